//! Who is refused, by which side, and that somebody is told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use selvedge_fabric::{
    event::Severity,
    id::{Name, NodeName},
    key::PublicKey,
};
use selvedge_transport::{
    Alpn, Gate, MAX_JOIN_REQUEST_BYTES, PeerIdentity, RequestError, join_request,
    testing::{TestCa, public_key},
};

use crate::{
    raw,
    support::{DEADLINE, Node, eventually, name},
};

/// Admits names under their keys.
struct Admitted(BTreeMap<NodeName, PublicKey>);

impl Gate for Admitted {
    fn admit(&self, peer: &PeerIdentity, _: Alpn) -> Result<(), String> {
        let admitted = self.0.get(&peer.node) == Some(&peer.key);
        if admitted { Ok(()) } else { Err(format!("{} is not admitted under that key", peer.node)) }
    }
}

/// Admits everybody until it is told to stop.
struct Revocable(AtomicBool);

impl Gate for Revocable {
    fn admit(&self, peer: &PeerIdentity, _: Alpn) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Err(format!("{} is revoked", peer.node)) } else { Ok(()) }
    }
}

fn not_admitted<T: std::fmt::Debug>(answer: Result<T, RequestError>) -> String {
    match answer {
        Err(RequestError::NotAdmitted { why, .. }) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Waits for the event of a refusal and checks that it is marked as one.
async fn told(node: &Node, text: &str) {
    assert!(node.events.wait_for(text).await, "no event with {text:?} in {:?}", node.events.all());
    let events = node.events.all();
    let event = events.iter().find(|event| event.3.contains(text)).expect("just seen");
    assert_eq!((event.0, event.1), (Severity::Security, "peer-refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_refused_on_both_sides() {
    let (ours, theirs) = (TestCa::new("test"), TestCa::new("test"));
    let (server, client) = (Node::named(&ours, "b"), Node::named(&theirs, "a"));
    client.knows(&server);
    let why = not_admitted(client.ask("b", Alpn::Raft, "hello").await);
    assert!(why.contains("not issued under this fabric's CA"), "{why}");
    told(&client, "not issued under this fabric's CA").await;

    raw::ending(server.transport.local_addr(), Alpn::Raft.wire(), Some(theirs.credentials("a"))).await;
    told(&server, "not issued under this fabric's CA").await;
    assert!(server.transport.connections().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minted_certificate_of_a_node_that_is_not_admitted_is_refused() {
    let ca = TestCa::new("test");
    let (admitted_key, minted_key) = (TestCa::node_key(), TestCa::node_key());
    let gate = Admitted(BTreeMap::from([(name("a"), public_key(&admitted_key))]));
    let any_port = ([127, 0, 0, 1], 0).into();
    let server = Node::start_gated(&ca, ca.credentials("b"), Arc::new(gate), any_port);
    for (key, of, admitted) in
        [(&admitted_key, "a", true), (&minted_key, "a", false), (&minted_key, "x", false)]
    {
        let client = Node::start(&ca, ca.credentials_with(&ca.leaf(of), key));
        client.knows(&server);
        let answer = client.ask("b", Alpn::Raft, "hello").await;
        if admitted {
            assert_eq!(answer, Ok("a:hello".to_owned()));
        } else {
            assert!(not_admitted(answer).contains("is not admitted under that key"));
        }
    }
    told(&server, "not-admitted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_admitted_is_refused_by_the_client() {
    let ca = TestCa::new("test");
    let any_port = ([127, 0, 0, 1], 0).into();
    let server = Node::named(&ca, "b");
    let client = Node::start_gated(&ca, ca.credentials("a"), Arc::new(Admitted(BTreeMap::new())), any_port);
    client.knows(&server);
    assert!(not_admitted(client.ask("b", Alpn::Raft, "hello").await).contains("not admitted"));
    told(&client, "not-admitted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_ca_with_another_fabric_is_refused() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let mut leaf = ca.leaf("a");
    leaf.fabric = Name::new("other").expect("a name");
    let foreign = ca.credentials_with(&leaf, &TestCa::node_key());
    let why = raw::ending(server.transport.local_addr(), Alpn::Raft.wire(), Some(foreign)).await;
    assert!(why.contains("of fabric other, not test"), "{why}");
    told(&server, "wrong-fabric").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_good_for_renewal_alone() {
    let ca = TestCa::new("test");
    let expired = |of: &str| {
        let mut leaf = ca.leaf(of);
        (leaf.begins_in_s, leaf.ends_in_s) = (-7_200, -3_600);
        ca.credentials_with(&leaf, &TestCa::node_key())
    };
    let (server, client) = (Node::named(&ca, "b"), Node::start(&ca, expired("a")));
    client.knows(&server);
    assert_eq!(client.ask("b", Alpn::Renew, "hello").await, Ok("a:hello".to_owned()));
    let peer = server.transport.connections().remove(0).0;
    assert!(peer.expired, "the handler can tell");
    for alpn in [Alpn::Raft, Alpn::Probe, Alpn::Fabric, Alpn::Link] {
        assert!(not_admitted(client.ask("b", alpn, "hello").await).contains("ended"), "{alpn}");
    }
    told(&server, "expired").await;

    let dead = Node::start(&ca, expired("c"));
    server.knows(&dead);
    assert!(not_admitted(server.ask("c", Alpn::Renew, "hello").await).contains("ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_does_not_outlive_the_certificate_it_was_made_with() {
    let ca = TestCa::new("test");
    let mut leaf = ca.leaf("a");
    leaf.ends_in_s = 3;
    let (server, client) =
        (Node::named(&ca, "b"), Node::start(&ca, ca.credentials_with(&leaf, &TestCa::node_key())));
    client.knows(&server);
    assert_eq!(client.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
    eventually("the connection is closed", || {
        server.transport.recheck();
        server.transport.connections().is_empty()
    })
    .await;
    // Where the client has not noticed, nobody can tell it whether its request was handled before.
    let answer = match client.ask("b", Alpn::Raft, "hello").await {
        Err(RequestError::Lost { .. }) => client.ask("b", Alpn::Raft, "hello").await,
        answer => answer,
    };
    assert!(not_admitted(answer).contains("ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_the_far_future_is_refused() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let mut leaf = ca.leaf("a");
    (leaf.begins_in_s, leaf.ends_in_s) = (3 * 86_400, 4 * 86_400);
    let early = ca.credentials_with(&leaf, &TestCa::node_key());
    let why = raw::ending(server.transport.local_addr(), Alpn::Raft.wire(), Some(early)).await;
    assert!(why.contains("check the clocks"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_that_answers_at_the_address_is_refused() {
    let ca = TestCa::new("test");
    let (client, other) = (Node::named(&ca, "a"), Node::named(&ca, "c"));
    client.transport.book().set(&name("b"), vec![other.transport.local_addr()]);
    assert!(not_admitted(client.ask("b", Alpn::Raft, "hello").await).contains("node c answered where b"));
    told(&client, "wrong-node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_join_comes_without_a_certificate() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let seed = server.transport.local_addr();
    let answer = join_request(seed, &ca.pin(), Bytes::from_static(b"let me in"), DEADLINE).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"nobody:let me in")));
    for alpn in [Alpn::Renew, Alpn::Raft, Alpn::Probe, Alpn::Fabric, Alpn::Link] {
        let why = raw::ending(seed, alpn.wire(), None).await;
        assert!(why.contains("needs a client certificate"), "{alpn}: {why}");
    }
    told(&server, "no-certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_node_believes_only_a_processor_under_the_pinned_root() {
    let (ca, other) = (TestCa::new("test"), TestCa::new("test"));
    let server = Node::named(&ca, "b");
    let ask =
        |seed, pin| async move { join_request(seed, &pin, Bytes::from_static(b"secret"), DEADLINE).await };
    let why = not_admitted(ask(server.transport.local_addr(), other.pin()).await);
    assert!(why.contains("not the one whose pin"), "{why}");
    told(&server, "pins another CA").await;
    let mut leaf = ca.leaf("w");
    leaf.processor = false;
    let workload = Node::start(&ca, ca.credentials_with(&leaf, &TestCa::node_key()));
    let why = not_admitted(ask(workload.transport.local_addr(), ca.pin()).await);
    assert!(why.contains("only a processor may admit"), "{why}");
    leaf.processor = true;
    leaf.ends_in_s = -30;
    let expired = Node::start(&ca, ca.credentials_with(&leaf, &TestCa::node_key()));
    assert!(not_admitted(ask(expired.transport.local_addr(), ca.pin()).await).contains("ended"));
    let too_large = Bytes::from(vec![0; MAX_JOIN_REQUEST_BYTES + 1]);
    let answer = join_request(server.transport.local_addr(), &ca.pin(), too_large, DEADLINE).await;
    assert!(matches!(answer, Err(RequestError::TooLarge { .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_alpn_is_refused() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let why = raw::ending(server.transport.local_addr(), b"h3", Some(ca.credentials("a"))).await;
    assert!(why.contains("120"), "the alert no_application_protocol: {why}");
    told(&server, "tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_cuts_live_connections() {
    let ca = TestCa::new("test");
    let gate = Arc::new(Revocable(AtomicBool::new(false)));
    let server = Node::start_gated(&ca, ca.credentials("b"), gate.clone(), ([127, 0, 0, 1], 0).into());
    let client = Node::named(&ca, "a");
    client.knows(&server);
    assert_eq!(client.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
    gate.0.store(true, Ordering::SeqCst);
    server.transport.recheck();
    assert!(server.transport.connections().is_empty());
    // Until the client has heard of it, it cannot tell whether the request came before or after.
    match client.ask("b", Alpn::Raft, "hello").await {
        Err(RequestError::Lost { why, .. } | RequestError::NotAdmitted { why, .. }) => {
            assert!(why.contains("a is revoked"), "{why}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert!(not_admitted(client.ask("b", Alpn::Raft, "hello").await).contains("a is revoked"));
    told(&server, "a is revoked").await;

    gate.0.store(false, Ordering::SeqCst);
    let mut answer = client.ask("b", Alpn::Raft, "again").await;
    while answer.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = client.ask("b", Alpn::Raft, "again").await;
    }
    assert_eq!(answer, Ok("a:again".to_owned()), "after the pause the node is let in again");
}
