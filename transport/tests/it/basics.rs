//! What works when nobody means harm.

use bytes::Bytes;
use selvedge_transport::{Alpn, DatagramError, MAX_REQUEST_BYTES, RequestError, testing::TestCa};

use crate::support::{DEADLINE, Node, eventually, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_on_a_mutually_authenticated_connection() {
    let ca = TestCa::new("test");
    let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
    a.knows(&b);
    assert_eq!(a.ask("b", Alpn::Raft, "hello").await, Ok("a:hello".to_owned()));
    assert_eq!(a.ask("b", Alpn::Raft, "no").await, Err(RequestError::Refused("I will not".to_owned())));
    assert_eq!(b.ask("a", Alpn::Raft, "back").await, Ok("b:back".to_owned()), "on the same connection");
    assert_eq!(a.ask("c", Alpn::Raft, "?").await, Err(RequestError::Unknown(name("c"))));
    assert_eq!(a.transport.connections().len(), 1);
    assert!(a.transport.rtt(&name("b")).is_some());
    a.transport.close().await;
    b.transport.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_connect_lazily_and_are_counted_when_dropped() {
    let ca = TestCa::new("test");
    let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
    a.knows(&b);
    a.transport.send_datagram(&name("b"), Alpn::Probe, Bytes::from_static(b"first"));
    assert_eq!(a.transport.counters().datagrams_unconnected, 1);
    eventually("a datagram arrives", || {
        a.transport.send_datagram(&name("b"), Alpn::Probe, Bytes::from_static(b"later"));
        b.echo.datagrams.lock().expect("no panic").iter().any(|body| &body[..] == b"later")
    })
    .await;
    a.transport.send_datagram(&name("b"), Alpn::Probe, vec![0; 70_000].into());
    assert_eq!(a.transport.counters().datagrams_unsendable, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_pass_and_too_large_ones_do_not() {
    let ca = TestCa::new("test");
    let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
    a.knows(&b);
    let largest = Bytes::from(vec![7; MAX_REQUEST_BYTES - 2]);
    let answer = a.transport.request(&name("b"), Alpn::Raft, largest, DEADLINE).await;
    assert_eq!(answer.map(|body| body.len()), Ok(MAX_REQUEST_BYTES));
    let too_large = Bytes::from(vec![7; MAX_REQUEST_BYTES + 1]);
    let refused = a.transport.request(&name("b"), Alpn::Raft, too_large, DEADLINE).await;
    assert!(matches!(refused, Err(RequestError::TooLarge { .. })), "{refused:?}");
    let answer_too_large = Bytes::from(vec![7; MAX_REQUEST_BYTES]);
    let refused = a.transport.request(&name("b"), Alpn::Raft, answer_too_large, DEADLINE).await;
    assert!(
        matches!(&refused, Err(RequestError::Refused(text)) if text.contains("too large")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_carries_datagrams_both_ways_until_it_is_closed() {
    let ca = TestCa::new("test");
    let (a, b) = (Node::named(&ca, "a"), Node::named(&ca, "b"));
    a.knows(&b);
    assert!(a.transport.channel(&name("b"), Alpn::Link).is_none());
    a.transport.connect(&name("b"), Alpn::Link);
    eventually("a connection", || a.transport.channel(&name("b"), Alpn::Link).is_some()).await;
    let there = a.transport.channel(&name("b"), Alpn::Link).expect("a channel");
    assert_eq!((there.dialled(), there.is_open(), &there.peer().node), (true, true, &name("b")));
    eventually("the other end of it", || b.transport.channel(&name("a"), Alpn::Link).is_some()).await;
    let back = b.transport.channel(&name("a"), Alpn::Link).expect("a channel");
    assert!(!back.dialled() && back.max_datagram_bytes().is_some_and(|max| max >= 1_162));

    there.send(Bytes::from_static(b"there")).expect("sent");
    back.send_now(Bytes::from_static(b"back")).expect("sent");
    let got =
        |node: &Node, what: &str| node.echo.datagrams.lock().expect("no panic").iter().any(|d| d == what);
    eventually("both arrive", || got(&b, "there") && got(&a, "back")).await;
    assert_eq!(there.send(vec![0; 70_000].into()), Err(DatagramError::TooLarge));

    there.close();
    eventually("the end", || !back.is_open()).await;
    assert_eq!(there.send(Bytes::from_static(b"late")), Err(DatagramError::Closed));
}
