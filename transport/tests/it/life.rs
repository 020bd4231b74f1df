//! Connections over time: renewal, death, return, and two who call each other at once.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_fabric::UnixMs;
use selvedge_transport::{
    Alpn, Handler, PeerIdentity, RequestError,
    testing::{OpenGate, TestCa},
};
use tokio::runtime::{Builder, Runtime};

use crate::support::{Node, eventually, name};

/// Tasks and requests of [`many_small_requests_at_once`].
const TASKS: usize = 64;
const REQUESTS_PER_TASK: usize = 1_000;

/// A node in a runtime of its own, which can be killed so that nothing says farewell.
struct Mortal {
    runtime: Runtime,
    node: Node,
}

impl Mortal {
    fn start(ca: &TestCa, key: &rcgen::KeyPair, listen: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let credentials = ca.credentials_with(&ca.leaf("b"), key);
        let _inside = runtime.enter();
        let node = Node::start_gated(ca, credentials, Arc::new(OpenGate), listen);
        Self { runtime, node }
    }

    /// As kill -9 does: tasks stop where they are, the socket closes, no packet is sent.
    fn kill(self) {
        self.runtime.shutdown_background();
        drop(self.node);
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_is_noticed_by_its_closed_port() {
    let ca = TestCa::new("test");
    let (client, peer) = (Node::named(&ca, "a"), Mortal::start(&ca, &TestCa::node_key(), any_port()));
    client.knows(&peer.node);
    assert_eq!(client.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
    let address = peer.node.transport.local_addr();
    tokio::task::spawn_blocking(move || peer.kill()).await.expect("no panic");
    eventually("the port is closed", || std::net::UdpSocket::bind(address).is_ok()).await;
    // It may have died after it handled the request: all that can be said is that no answer came.
    match client.ask("b", Alpn::Raft, "still there?").await {
        Err(RequestError::Lost { why, .. }) => assert!(why.contains("nobody listens"), "{why}"),
        other => panic!("{other:?}"),
    }
    match client.ask("b", Alpn::Raft, "and now?").await {
        Err(RequestError::Connect { why, .. }) => assert!(why.contains("nobody listens"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Takes a request, and never answers.
struct Grave(Arc<tokio::sync::Notify>);

#[async_trait]
impl Handler for Grave {
    async fn request(&self, _: Option<PeerIdentity>, _: SocketAddr, _: Bytes) -> Result<Bytes, String> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_handled_by_a_peer_killed_since_is_lost_and_not_unsent() {
    let ca = TestCa::new("test");
    let (client, peer) = (Node::named(&ca, "a"), Mortal::start(&ca, &TestCa::node_key(), any_port()));
    client.knows(&peer.node);
    let taken = Arc::new(tokio::sync::Notify::new());
    peer.node.transport.handle(Alpn::Raft, Arc::new(Grave(Arc::clone(&taken))));
    let kill = async {
        taken.notified().await;
        tokio::task::spawn_blocking(move || peer.kill()).await.expect("no panic");
    };
    let (answer, ()) = tokio::join!(client.ask("b", Alpn::Raft, "do it"), kill);
    assert!(matches!(answer, Err(RequestError::Lost { .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_restarts_on_its_port_answers_the_next_request() {
    let ca = TestCa::new("test");
    let key = TestCa::node_key();
    let (client, peer) = (Node::named(&ca, "a"), Mortal::start(&ca, &key, any_port()));
    client.knows(&peer.node);
    assert_eq!(client.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
    let address = peer.node.transport.local_addr();
    tokio::task::spawn_blocking(move || peer.kill()).await.expect("no panic");
    eventually("the port is free", || std::net::UdpSocket::bind(address).is_ok()).await;
    let again = Mortal::start(&ca, &key, address);
    assert_eq!(client.ask("b", Alpn::Raft, "back?").await, Ok("a:back?".to_owned()));
    tokio::task::spawn_blocking(move || again.kill()).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_credentials_are_used_without_a_restart() {
    let ca = TestCa::new("test");
    let key = TestCa::node_key();
    let (client, server) =
        (Node::start(&ca, ca.credentials_with(&ca.leaf("a"), &key)), Node::named(&ca, "b"));
    client.knows(&server);
    assert_eq!(client.ask("b", Alpn::Raft, "old").await, Ok("a:old".to_owned()));
    let shown = || server.transport.connections().into_iter().map(|(peer, _)| peer.not_after_ms).max();
    let before: Option<UnixMs> = shown();

    let mut leaf = ca.leaf("a");
    leaf.ends_in_s = 7_200;
    client.credentials.send_replace(Arc::new(ca.credentials_with(&leaf, &key)));
    assert_eq!(client.ask("b", Alpn::Raft, "new").await, Ok("a:new".to_owned()));
    eventually("the server has seen the new certificate", || shown() > before).await;

    client.credentials.send_replace(Arc::new(TestCa::new("test").credentials("a")));
    assert_eq!(client.ask("b", Alpn::Link, "fresh").await, Ok("a:fresh".to_owned()));
    assert!(client.events.wait_for("the old ones stay").await, "unusable credentials are told of");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_may_dial_at_once() {
    let ca = TestCa::new("test");
    for round in 0..10 {
        let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
        a.knows(&b);
        b.knows(&a);
        let (from_a, from_b) = tokio::join!(a.ask("b", Alpn::Raft, "1"), b.ask("a", Alpn::Raft, "2"));
        assert_eq!((from_a, from_b), (Ok("a:1".to_owned()), Ok("b:2".to_owned())), "round {round}");
        let (from_a, from_b) = tokio::join!(a.ask("b", Alpn::Raft, "3"), b.ask("a", Alpn::Raft, "4"));
        assert_eq!((from_a, from_b), (Ok("a:3".to_owned()), Ok("b:4".to_owned())), "round {round}");
        assert!(a.transport.connections().len() <= 2);
        tokio::join!(a.transport.close(), b.transport.close());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_tried_when_one_is_dead() {
    let ca = TestCa::new("test");
    let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addresses = vec![silent.local_addr().expect("an address"), b.transport.local_addr()];
    a.transport.book().set(&name("b"), addresses);
    assert_eq!(a.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_transport_frees_its_port_and_answers_nothing() {
    let ca = TestCa::new("test");
    let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
    a.knows(&b);
    assert_eq!(a.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
    a.transport.close().await;
    assert_eq!(a.ask("b", Alpn::Raft, "hello").await, Err(RequestError::Closed));
    eventually("the peer has taken note", || b.transport.connections().is_empty()).await;
    let address = a.transport.local_addr();
    drop(a);
    eventually("the port is free", || std::net::UdpSocket::bind(address).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_requests_at_once() {
    let ca = TestCa::new("test");
    let (a, b) = (Arc::new(Node::named(&ca, "a")), Node::named(&ca, "b"));
    a.knows(&b);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let a = Arc::clone(&a);
        tasks.spawn(async move {
            for request in 0..REQUESTS_PER_TASK {
                let body = format!("{task}/{request}");
                assert_eq!(a.ask("b", Alpn::Raft, &body).await, Ok(format!("a:{body}")));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("all answered");
    }
    assert_eq!(a.transport.connections().len(), 1);
}
