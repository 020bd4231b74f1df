//! Keeps this node's certificate fresh, without a quorum.
//!
//! A processor issues its own; another node asks any processor. A failed renewal never drops the
//! certificate that is still valid, and an expired one is good for exactly one thing: renewal.

use std::{sync::Arc, time::Duration};

use selvedge_fabric::{
    UnixMs,
    event::{EventSink, Severity},
    id::NodeName,
    key::Signer,
    view::{Liveness, View},
};
use selvedge_transport::{Alpn, Credentials, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    enroll::{RenewReply, RenewRequest},
    events::Events,
    identity::{DataDir, Identity},
    issuer::IssuerSource,
    pki,
};

/// Pause after a failed renewal.
const RETRY: Duration = Duration::from_secs(1);
/// Longest sleep: the clock may be set.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// Time for one processor to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// When this node's certificate ends.
pub struct CertificateClock(watch::Receiver<Arc<Credentials>>);

impl CertificateClock {
    /// Follows the credentials in use.
    #[must_use]
    pub const fn new(credentials: watch::Receiver<Arc<Credentials>>) -> Self {
        Self(credentials)
    }

    /// End of the certificate in use.
    #[must_use]
    pub fn expires_ms(&self) -> Option<UnixMs> {
        let credentials = self.0.borrow().clone();
        let leaf = credentials.chain.first()?;
        pki::validity(leaf).ok().map(|v| v.not_after_ms)
    }
}

/// What renewal needs.
pub struct Renewal {
    /// The data directory, where a new certificate is kept.
    pub dir: DataDir,
    /// Who this node is.
    pub identity: Identity,
    /// Its key.
    pub key: Arc<pki::NodeKey>,
    /// The issuing key, on processors.
    pub issuer: Arc<IssuerSource>,
    /// Lifetime of certificates that this node issues to itself.
    pub lifetime: Duration,
    /// Where new certificates are put to use.
    pub credentials: watch::Sender<Arc<Credentials>>,
    /// How other processors are reached.
    pub transport: Transport,
    /// Who they are.
    pub view: watch::Receiver<Arc<View>>,
    /// Where failures are seen.
    pub events: Events,
}

impl Renewal {
    /// Renews whenever two thirds of the lifetime are over, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let wait = match self.due() {
                Some(wait) => wait.min(MAX_SLEEP),
                None => match self.renew().await {
                    Ok(()) => {
                        failures = 0;
                        // Never at once: a certificate that is due as soon as it is made would be renewed
                        // without end.
                        RETRY
                    }
                    Err(reason) => {
                        failures += 1;
                        self.complain(failures, reason);
                        RETRY
                    }
                },
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// How long until renewal is due; `None` when it is.
    fn due(&self) -> Option<Duration> {
        let Ok(validity) = pki::validity(&self.identity.node_cert) else { return None };
        let now = clock::unix_ms();
        let due =
            validity.not_before_ms + validity.not_after_ms.saturating_sub(validity.not_before_ms) / 3 * 2;
        (due > now).then(|| Duration::from_millis(due - now))
    }

    async fn renew(&mut self) -> Result<(), String> {
        self.identity = match self.issuer.get() {
            Ok(issuer) => {
                let (identity, key) = (&self.identity, self.key.public_key());
                let issued = issuer.issue(&identity.node, identity.role, &key, self.lifetime);
                self.with(issued.map_err(|e| e.to_string())?)?
            }
            Err(_) => self.ask_others().await?,
        };
        self.credentials.send_replace(Arc::new(self.identity.credentials(&self.key)));
        tracing::info!("certificate renewed");
        // The new certificate is in use already; the old one on disk would only be renewed again.
        self.identity.save(&self.dir).map_err(|e| e.to_string())
    }

    /// This node with another certificate, if that is one it can show.
    fn with(&self, certificate: Vec<u8>) -> Result<Identity, String> {
        let identity = Identity { node_cert: certificate, ..self.identity.clone() };
        identity.check_certificate(&self.key, clock::unix_ms()).map_err(|e| e.to_string())?;
        Ok(identity)
    }

    /// What a processor answered, if it is of use.
    fn read(&self, reply: &[u8]) -> Result<Identity, String> {
        let reply: RenewReply = serde_json::from_slice(reply).map_err(|e| e.to_string())?;
        self.with(reply.certificate)
    }

    async fn ask_others(&self) -> Result<Identity, String> {
        let csr = pki::csr(&self.key).map_err(|e| e.to_string())?;
        let body = serde_json::to_vec(&RenewRequest { csr }).map_err(|e| e.to_string())?;
        let mut problems = Vec::new();
        for node in self.processors() {
            let answer = self.transport.request(&node, Alpn::Renew, body.clone().into(), ASK_TIMEOUT).await;
            match answer.map_err(|e| e.to_string()).and_then(|bytes| self.read(&bytes)) {
                Ok(identity) => return Ok(identity),
                Err(why) => problems.push(format!("{node}: {why}")),
            }
        }
        Err(if problems.is_empty() { "no processor is known".to_owned() } else { problems.join("; ") })
    }

    /// Nodes worth asking, living ones first.
    fn processors(&self) -> Vec<NodeName> {
        let view = self.view.borrow();
        let known = view.nodes.iter().filter(|(name, _)| **name != self.identity.node);
        let mut known: Vec<_> = known.map(|(name, node)| (node.state, name.clone())).collect();
        known.sort();
        let gone = |state: &Liveness| *state == Liveness::Left;
        let names: Vec<_> =
            known.into_iter().filter(|(state, _)| !gone(state)).map(|(_, name)| name).collect();
        if names.is_empty() { self.transport.book().names() } else { names }
    }

    fn complain(&self, failures: u32, reason: String) {
        // Once, then every minute or so.
        if failures == 1 || failures.is_multiple_of(60) {
            let node = self.identity.node.as_str();
            self.events.emit(Severity::Warning, "renewal-failed", node, reason);
        }
    }
}
