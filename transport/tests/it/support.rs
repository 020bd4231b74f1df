//! Fixtures.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_fabric::id::NodeName;
use selvedge_transport::{
    Alpn, Credentials, Gate, Handler, PeerIdentity, Transport,
    testing::{OpenGate, TestCa, TestEvents},
};
use tokio::sync::watch;

/// Generous: tests do not measure speed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Answers with the name of the one who asked, a colon, and the question.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) datagrams: std::sync::Mutex<Vec<Bytes>>,
}

#[async_trait]
impl Handler for Echo {
    async fn request(&self, peer: Option<PeerIdentity>, _: SocketAddr, body: Bytes) -> Result<Bytes, String> {
        if &body[..] == b"no" {
            return Err("I will not".to_owned());
        }
        let who = peer.map_or_else(|| "nobody".to_owned(), |peer| peer.node.to_string());
        Ok([who.as_bytes(), b":", &body].concat().into())
    }

    fn datagram(&self, _peer: &PeerIdentity, body: Bytes) {
        self.datagrams.lock().expect("no panic").push(body);
    }
}

/// A transport with what a test needs to know of it.
pub(crate) struct Node {
    pub(crate) transport: Transport,
    pub(crate) events: Arc<TestEvents>,
    pub(crate) credentials: watch::Sender<Arc<Credentials>>,
    pub(crate) echo: Arc<Echo>,
}

impl Node {
    pub(crate) fn start(ca: &TestCa, credentials: Credentials) -> Self {
        Self::start_gated(ca, credentials, Arc::new(OpenGate), SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn start_gated(
        ca: &TestCa,
        credentials: Credentials,
        gate: Arc<dyn Gate>,
        listen: SocketAddr,
    ) -> Self {
        let events = Arc::new(TestEvents::default());
        let (sender, receiver) = watch::channel(Arc::new(credentials));
        let mut options = ca.options(receiver, gate, events.clone());
        options.listen = listen;
        let transport = Transport::bind(options).expect("a transport");
        let echo = Arc::new(Echo::default());
        for alpn in Alpn::ALL {
            transport.handle(alpn, echo.clone());
        }
        Self { transport, events, credentials: sender, echo }
    }

    pub(crate) fn named(ca: &TestCa, node: &str) -> Self {
        Self::start(ca, ca.credentials(node))
    }

    pub(crate) fn knows(&self, other: &Self) {
        self.transport.book().set(other.transport.me(), vec![other.transport.local_addr()]);
    }

    pub(crate) async fn ask(
        &self,
        node: &str,
        alpn: Alpn,
        body: &str,
    ) -> Result<String, selvedge_transport::RequestError> {
        let (to, body) = (name(node), Bytes::copy_from_slice(body.as_bytes()));
        let answer = self.transport.request(&to, alpn, body, DEADLINE).await;
        answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

/// Waits until `condition` holds; panics after [`DEADLINE`].
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
