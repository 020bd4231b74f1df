//! A running node, as far as membership goes.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{KeyPair, PKCS_ED25519};
use selvedge_fabric::{
    event::Severity,
    policy::PolicyState,
    record::{Body, Presence},
    view::{Liveness, NodeView, View},
};
use selvedge_membership::{Membership, Options, Timers};
use selvedge_transport::{
    Credentials, Transport,
    testing::{OpenGate, TestCa, TestEvents},
};
use tokio::sync::{mpsc, watch};

use crate::fabric::{FABRIC, name, node_name, seed, signer};

/// How long something may take that should take a second or two. Generous: machines are busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// DER of PKCS #8 before the 32 bytes of an Ed25519 seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(crate) struct Instance {
    pub(crate) n: usize,
    pub(crate) membership: Membership,
    pub(crate) transport: Transport,
    pub(crate) events: Arc<TestEvents>,
}

impl Instance {
    pub(crate) async fn start(
        ca: &TestCa,
        n: usize,
        dir: &Path,
        policy: &watch::Sender<Arc<PolicyState>>,
    ) -> Self {
        Self::start_at(ca, n, dir, policy, ([127, 0, 0, 1], 0).into()).await
    }

    /// Starts with the fabric port at `listen`.
    pub(crate) async fn start_at(
        ca: &TestCa,
        n: usize,
        dir: &Path,
        policy: &watch::Sender<Arc<PolicyState>>,
        listen: SocketAddr,
    ) -> Self {
        Self::start_with(ca.fabric().as_str(), credentials(ca, n), n, dir, policy, listen).await
    }

    /// Starts with credentials that come from elsewhere.
    pub(crate) async fn start_with(
        fabric: &str,
        credentials: Credentials,
        n: usize,
        dir: &Path,
        policy: &watch::Sender<Arc<PolicyState>>,
        listen: SocketAddr,
    ) -> Self {
        let events = Arc::new(TestEvents::default());
        let (_, credentials) = watch::channel(Arc::new(credentials));
        let transport = Transport::bind(selvedge_transport::Options {
            listen,
            fabric: name(fabric),
            me: None,
            credentials,
            gate: Arc::new(OpenGate),
            events: events.clone(),
        })
        .unwrap();
        let membership = Membership::start(Options {
            dir: dir.join(format!("p{n}")),
            me: node_name(n),
            signer: signer(n),
            node_key_seed: seed(n),
            fabric: FABRIC,
            epoch: watch::channel(0).1,
            gossip_listen: ([127, 0, 0, 1], 0).into(),
            transport: transport.clone(),
            policy: policy.subscribe(),
            revocations: watch::channel(Arc::default()).1,
            revoked: mpsc::channel(1).0,
            timers: Timers::default(),
            events: events.clone(),
        })
        .await
        .unwrap();
        membership.announce(Body::Presence(Presence {
            addresses: vec![transport.local_addr()],
            gossip: vec![membership.gossip_addr()],
            software: "test".into(),
            ..Presence::default()
        }));
        Self { n, membership, transport, events }
    }

    /// Tells it where `others` gossip.
    pub(crate) fn meet(&self, others: &[&Self]) {
        let seeds: BTreeMap<_, _> =
            others.iter().map(|o| (node_name(o.n), vec![o.membership.gossip_addr()])).collect();
        self.membership.set_gossip_seeds(seeds);
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.membership.view().borrow().clone()
    }

    pub(crate) fn sees(&self, n: usize) -> NodeView {
        self.view().nodes[&node_name(n)].clone()
    }

    pub(crate) fn state(&self, n: usize) -> Liveness {
        self.sees(n).state
    }

    pub(crate) fn has_event(&self, severity: Severity, code: &str) -> bool {
        self.events.all().iter().any(|(s, c, _, _)| *s == severity && *c == code)
    }

    /// Ends it without a word to the others, and frees its ports.
    pub(crate) async fn kill(self) {
        self.membership.shutdown().await;
        self.transport.close().await;
    }
}

/// Credentials of node `n` under its own key.
pub(crate) fn credentials(ca: &TestCa, n: usize) -> Credentials {
    let der = [&PKCS8_PREFIX[..], &seed(n)[..]].concat();
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ED25519).unwrap();
    ca.credentials_with(&ca.leaf(node_name(n).as_str()), &pair)
}

/// Waits until `done`, and says `what` failed when that takes too long.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not happen within {DEADLINE:?}");
}
