//! The forwarder: other names, by way of configured resolvers and a small cache.
//!
//! It exists so that a host can name this server alone in its `resolv.conf`. It is a forwarder, not a
//! resolver: it follows no delegations and validates nothing, and so clears the AD bit, which it could
//! not vouch for. What guards against forged answers is what guards every forwarder: a random id, a
//! fresh socket with a port of the kernel's choosing for each try, connected to the one upstream asked,
//! and a reply taken only when its question is ours (RFC 5452).

mod cache;
mod exchange;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hickory_proto::op::{Message, ResponseCode};
use selvedge_fabric::event::{EventSink, Severity};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    answer::reply_to,
    ede::{self, Ede},
    metrics::{Forwarding, Metrics},
};
use cache::{Cache, CacheKey};

/// Most queries that wait for upstreams at a time; each holds a socket.
const MAX_IN_FLIGHT: usize = 256;
/// How often each upstream is tried.
const ROUNDS: usize = 2;
/// How long a query may take in all. Stub resolvers give up after five seconds.
const TOTAL_TIMEOUT: Duration = Duration::from_millis(4500);

/// Asks upstreams and remembers what they said.
pub(crate) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    /// The upstream that answered last: asked first.
    favourite: AtomicUsize,
    cache: Mutex<Cache>,
    in_flight: Arc<Semaphore>,
    /// No upstream answered the last query; told once, when it changes.
    silent: AtomicBool,
    metrics: Arc<Metrics>,
    events: Arc<dyn EventSink>,
}

/// The right to ask upstreams one question.
#[derive(Debug)]
pub(crate) struct Ticket {
    key: CacheKey,
    _permit: OwnedSemaphorePermit,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Vec<SocketAddr>, metrics: Arc<Metrics>, events: Arc<dyn EventSink>) -> Self {
        Self {
            upstreams,
            favourite: AtomicUsize::new(0),
            cache: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            silent: AtomicBool::new(false),
            metrics,
            events,
        }
    }

    /// Begins to resolve a query of one question.
    ///
    /// # Errors
    /// The reply, when it is known at once: from the cache, or SERVFAIL when too many queries wait.
    pub(crate) fn begin(&self, query: &Message) -> Result<Ticket, Box<Message>> {
        let Some(key) = CacheKey::of(query) else {
            return Err(Box::new(fail(query, Ede::NotReady, "not one question")));
        };
        let known = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key, Instant::now());
        if let Some(known) = known {
            self.metrics.forwarding(Forwarding::CacheHit);
            return Err(Box::new(pass_on(query, known)));
        }
        match self.in_flight.clone().try_acquire_owned() {
            Ok(permit) => Ok(Ticket { key, _permit: permit }),
            Err(_) => {
                self.metrics.forwarding(Forwarding::Full);
                Err(Box::new(fail(query, Ede::NotReady, "too many queries wait for upstreams")))
            }
        }
    }

    /// Asks the upstreams, one after the other, until one answers.
    pub(crate) async fn resolve(&self, query: &Message, ticket: Ticket) -> Message {
        self.metrics.forwarding(Forwarding::Sent);
        let found = timeout(TOTAL_TIMEOUT, self.ask_all(query)).await.unwrap_or_default();
        self.tell_silence(found.is_none());
        match found {
            Some(found) => {
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                cache.put(ticket.key, &found, Instant::now());
                drop(cache);
                pass_on(query, found)
            }
            None => {
                self.metrics.forwarding(Forwarding::Failed);
                fail(query, Ede::NoReachableAuthority, "no upstream answered")
            }
        }
    }

    /// The first answer that settles the question; failing that, the last that any upstream gave.
    async fn ask_all(&self, query: &Message) -> Option<Message> {
        let (count, first) = (self.upstreams.len(), self.favourite.load(Relaxed));
        let mut last = None;
        for turn in 0..count * ROUNDS {
            let which = (first + turn) % count;
            match exchange::ask(self.upstreams[which], query).await {
                Ok(reply) if settles(&reply) => {
                    self.favourite.store(which, Relaxed);
                    return Some(reply);
                }
                Ok(reply) => last = Some(reply),
                Err(error) => {
                    tracing::debug!(upstream = %self.upstreams[which], %error, "an upstream gave no answer");
                }
            }
        }
        last
    }

    fn tell_silence(&self, silent: bool) {
        if self.silent.swap(silent, Relaxed) == silent {
            return;
        }
        let names = self.upstreams.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        if silent {
            let message = format!(
                "no upstream answers ({names}): names outside the fabric do not resolve; check dns.upstreams \
                 and the way there"
            );
            self.events.emit(Severity::Warning, "dns-upstream-silent", &names, message);
        } else {
            let message = format!("an upstream answers again ({names})");
            self.events.emit(Severity::Info, "dns-upstream-back", &names, message);
        }
    }
}

/// Whether a reply settles the question. An upstream that fails or refuses may only be the wrong one.
fn settles(reply: &Message) -> bool {
    matches!(reply.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// What an upstream said, as a reply to `query`.
fn pass_on(query: &Message, found: Message) -> Message {
    let mut reply = reply_to(query);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = found.metadata.response_code;
    reply.answers = found.answers;
    reply.authorities = found.authorities;
    reply.additionals = found.additionals;
    reply
}

fn fail(query: &Message, code: Ede, why: &str) -> Message {
    let mut reply = reply_to(query);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = ResponseCode::ServFail;
    ede::explain(&mut reply, code, why);
    reply
}
