//! Whom a workload node asks, and when it asks somebody else.
//!
//! One processor at a time is asked for policy by requests that it leaves open until there is news. It
//! is left for the next one when it does not answer, when its bundle proves nothing, and when others
//! say in their own signed facts that they enforce a newer policy than it gives.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use selvedge_fabric::{
    command::{AdmissionState, Role},
    event::{EventSink, Severity},
    id::{NodeName, ZoneName},
    key::Hash,
    record::Enforced,
    view::{Liveness, View},
};
use selvedge_transport::{Alpn, RequestError, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Answer, Ask, FollowError, Follower, decode, encode};
use crate::events::Events;

/// How long a processor may leave a request for policy open.
pub(super) const LONG_POLL: Duration = Duration::from_secs(4);
/// Time for the answer itself, on top.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Shortest time between two requests; it keeps a processor that answers at once from being flooded.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause after failures; it doubles from [`MIN_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How often this node says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Processors that vouch for it: one may die.
const HOMES: usize = 2;
/// Time for a heartbeat to be answered.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);

/// What following needs of the node.
pub struct Following {
    /// The policy.
    pub follower: Arc<Follower>,
    /// Where this node is.
    pub zone: ZoneName,
    /// How processors are reached.
    pub transport: Transport,
    /// Who lives, and what they enforce.
    pub view: watch::Receiver<Arc<View>>,
    /// Where refusals are seen.
    pub events: Events,
}

/// What came of asking one processor.
enum Asked {
    News,
    Nothing,
    Failed(String),
}

impl Following {
    /// Follows the policy until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.follower.use_transport(self.transport.clone());
        stop.run_until_cancelled(self.poll()).await;
    }

    async fn poll(&self) {
        let (mut turn, mut failures) = (0_usize, 0_u32);
        loop {
            let processors = self.processors();
            let Some(node) = processors.get(turn % processors.len().max(1)) else {
                self.follower.note_silence();
                tokio::time::sleep(MAX_PAUSE).await;
                continue;
            };
            match self.ask(node).await {
                Asked::News => (turn, failures) = (turn % processors.len(), 0),
                Asked::Nothing if self.is_behind() => turn += 1,
                Asked::Nothing => failures = 0,
                Asked::Failed(why) => {
                    tracing::debug!(processor = %node, why, "no policy from there");
                    (turn, failures) = (turn + 1, failures + 1);
                    self.follower.note_silence();
                }
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    async fn ask(&self, node: &NodeName) -> Asked {
        let follower = &self.follower;
        let (epoch, have, voters) = (follower.epoch(), follower.revision(), follower.voter_sequence());
        let wait_ms = u64::try_from(LONG_POLL.as_millis()).unwrap_or(u64::MAX);
        let ask = encode(&match epoch {
            0 => Ask::Policy { have, voters, wait_ms },
            epoch => Ask::PolicyOf { epoch, have, voters, wait_ms },
        });
        let answer = self.transport.request(node, Alpn::Fabric, ask.into(), LONG_POLL + ANSWER_TIMEOUT).await;
        let answer = match answer {
            Ok(bytes) => decode(&bytes),
            Err(RequestError::Refused(why)) => Err(why),
            Err(other) => Err(other.to_string()),
        };
        let (bundle, quorum) = match answer {
            Ok(Answer::Policy { bundle, quorum }) => (bundle, quorum),
            Ok(_) => return Asked::Failed("it answered something else than was asked".to_owned()),
            Err(why) => return Asked::Failed(why),
        };
        let outcome = match bundle {
            None => Asked::Nothing,
            Some(bytes) => match follower.take(bytes).await {
                Ok(revision) => {
                    tracing::debug!(processor = %node, revision, "policy");
                    Asked::News
                }
                Err(error) => return Asked::Failed(self.refuse(node, &error)),
            },
        };
        follower.heard(node, &quorum);
        outcome
    }

    /// Asks one processor, whatever comes of it.
    #[cfg(test)]
    pub(super) async fn ask_once(&self, node: &NodeName) {
        self.ask(node).await;
    }

    /// Tells of a bundle that was not taken. Who hands out what no majority signed is broken or worse.
    fn refuse(&self, node: &NodeName, error: &FollowError) -> String {
        let (severity, code, message) = match error {
            FollowError::File(_) => {
                let message =
                    format!("the policy is in force, and after a restart an older one will be: {error}");
                (Severity::Warning, "policy-not-kept", message)
            }
            FollowError::Bundle(_) | FollowError::NoVoters(_) => {
                (Severity::Security, "policy-refused", format!("the policy from {node} is not used: {error}"))
            }
        };
        self.events.emit(severity, code, node.as_str(), message.clone());
        message
    }

    /// Whether some processor says that it enforces a newer policy than this node has.
    fn is_behind(&self) -> bool {
        let have = (self.follower.epoch(), self.follower.revision());
        let newer = |e: Enforced| (e.epoch, e.revision) > have;
        let view = self.view.borrow();
        view.nodes.values().any(|n| n.state == Liveness::Alive && n.enforced.is_some_and(newer))
    }

    /// Processors worth asking, best first: living ones, near ones, and among equals each workload node
    /// has its own order, so that they share the work.
    fn processors(&self) -> Vec<NodeName> {
        let policy = self.follower.policy().borrow().clone();
        if policy.params.is_none() {
            return self.transport.book().names();
        }
        let view = self.view.borrow();
        let admitted = policy.nodes.iter().filter(|(name, admission)| {
            let serves = admission.role == Role::Processor && admission.state != AdmissionState::Revoked;
            serves && **name != *self.follower.me()
        });
        let mut known: Vec<_> = admitted
            .map(|(name, admission)| {
                let state = view.nodes.get(name).map_or(Liveness::Unknown, |n| n.state);
                let own_order = Hash::of(format!("{} {name}", self.follower.me()).as_bytes());
                (state, distance(&self.zone, &admission.zone), own_order, name.clone())
            })
            .collect();
        known.sort();
        known.into_iter().map(|(_, _, _, name)| name).collect()
    }

    /// Says to the home processors that this node lives, until `stop`.
    pub async fn run_heartbeat(self: Arc<Self>, stop: CancellationToken) {
        let beat = async {
            let mut tick = tokio::time::interval(HEARTBEAT);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let me = self.follower.me();
                let incarnation = self.view.borrow().nodes.get(me).map_or(0, |n| n.incarnation);
                let homes: Vec<_> = self.processors().into_iter().take(HOMES).collect();
                futures::future::join_all(homes.iter().map(|home| self.beat(home, incarnation))).await;
            }
        };
        stop.run_until_cancelled(beat).await;
    }

    async fn beat(&self, home: &NodeName, incarnation: u64) {
        let ask = encode(&Ask::Alive { incarnation });
        let answer = self.transport.request(home, Alpn::Fabric, ask.into(), HEARTBEAT_TIMEOUT).await;
        if let Err(error) = answer {
            tracing::debug!(%home, %error, "heartbeat not answered");
        }
    }
}

/// Smaller is nearer: same zone, same cloud, elsewhere.
fn distance(here: &ZoneName, there: &ZoneName) -> u8 {
    match there {
        same if same == here => 0,
        near if near.cloud() == here.cloud() => 1,
        _ => 2,
    }
}

/// With jitter, so that the followers of a processor that died do not all knock at the next at once.
fn pause(failures: u32) -> Duration {
    let longest = (MIN_PAUSE * 2_u32.saturating_pow(failures.min(8))).min(MAX_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}
