//! Peers that a drill keeps apart: silence, and an end that needs nobody.

use std::time::{Duration, Instant};

use bytes::Bytes;
use selvedge_fabric::isolation::{Cut, Cuts};
use selvedge_transport::{Alpn, RequestError, testing::TestCa};

use crate::support::{DEADLINE, Node, eventually, name};

/// Much longer than the test.
const LONG: Duration = Duration::from_secs(600);
/// A request that is to fail may wait this long.
const SHORT: Duration = Duration::from_millis(700);

fn from(peer: &str, cut: Cut) -> Cuts {
    Cuts { nodes: [(name(peer), cut)].into(), ..Cuts::default() }
}

fn pair() -> (Node, Node, Node) {
    let ca = TestCa::new("test");
    let (a, b, c) = (Node::named(&ca, "a"), Node::named(&ca, "b"), Node::named(&ca, "c"));
    for (one, other) in [(&a, &b), (&b, &a), (&a, &c), (&c, &a)] {
        one.knows(other);
    }
    (a, b, c)
}

async fn is_heard(from: &Node, to: &str) -> bool {
    match from.transport.request(&name(to), Alpn::Raft, Bytes::from_static(b"?"), SHORT).await {
        Ok(_) => true,
        Err(RequestError::NotAdmitted { .. } | RequestError::Refused(_)) => panic!("silence is no refusal"),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_cut_off_is_silent_and_others_are_not() {
    let (a, b, c) = pair();
    assert!(is_heard(&a, "b").await && is_heard(&a, "c").await);
    a.transport.isolate(from("b", Cut::BOTH), Instant::now() + LONG);
    assert!(a.transport.cut(&name("b")).is_any() && !a.transport.cut(&name("c")).is_any());
    assert!(!is_heard(&a, "b").await && !is_heard(&b, "a").await && is_heard(&a, "c").await);
    assert!(is_heard(&c, "a").await);
    assert!(a.events.all().is_empty(), "nobody is to blame: {:?}", a.events.all());
    a.transport.isolate(Cuts::default(), Instant::now() + LONG);
    eventually_heard(&a, "b").await;
    eventually_heard(&b, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_comes_by_itself_also_for_who_was_never_met() {
    let (a, b, c) = pair();
    let everybody = Cuts { everybody: Cut::BOTH, ..Cuts::default() };
    a.transport.isolate(everybody, Instant::now() + Duration::from_secs(3));
    assert!(!is_heard(&b, "a").await && !is_heard(&a, "c").await);
    for (one, other) in [(&a, "b"), (&c, "a"), (&b, "a")] {
        eventually_heard(one, other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_direction_alone_is_cut() {
    let (a, b, _c) = pair();
    assert!(is_heard(&a, "b").await);
    let said = |node: &Node| node.echo.datagrams.lock().expect("no panic").len();
    a.transport.isolate(from("b", Cut { to: true, from: false }), Instant::now() + LONG);
    let (heard_by_a, heard_by_b) = (said(&a), said(&b));
    eventually("b is heard by a", || {
        b.transport.send_datagram(&name("a"), Alpn::Raft, Bytes::from_static(b"b"));
        said(&a) > heard_by_a
    })
    .await;
    for _ in 0..20 {
        a.transport.send_datagram(&name("b"), Alpn::Raft, Bytes::from_static(b"a"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(said(&b), heard_by_b, "a is not heard");
}

/// A stranger's address tells nothing: whoever comes from a new one is known by its certificate.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_from_a_new_address_is_cut_off_too() {
    let (a, b, _c) = pair();
    a.transport.isolate(from("b", Cut::BOTH), Instant::now() + LONG);
    assert!(!is_heard(&b, "a").await, "they never met");
    assert!(a.transport.connections().iter().all(|(peer, _)| peer.node != name("b")));
    assert!(a.events.all().is_empty(), "{:?}", a.events.all());
}

async fn eventually_heard(from: &Node, to: &str) {
    let end = Instant::now() + DEADLINE;
    while !is_heard(from, to).await {
        assert!(Instant::now() < end, "{to} is not heard again");
    }
}

/// Whoever sets the filter looks at connections, and whoever sends on a connection looks at the filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_filter_changes_under_load() {
    const CHANGES: u32 = 5_000;
    let (a, b, _c) = pair();
    assert!(is_heard(&a, "b").await);
    let (sender, load) = (a.transport.clone(), tokio_util::sync::CancellationToken::new());
    let sending = load.clone().run_until_cancelled_owned(async move {
        loop {
            (0..64).for_each(|_| sender.send_datagram(&name("b"), Alpn::Raft, Bytes::from_static(b"load")));
            tokio::task::yield_now().await;
        }
    });
    let sending = tokio::spawn(sending);
    let changer = a.transport.clone();
    let changing = tokio::task::spawn_blocking(move || {
        for change in 0..CHANGES {
            let cuts = if change % 2 == 0 { from("b", Cut::BOTH) } else { Cuts::default() };
            changer.isolate(cuts, Instant::now() + LONG);
        }
    });
    tokio::time::timeout(DEADLINE, changing).await.expect("no lock waits for another").expect("no panic");
    load.cancel();
    sending.await.expect("no panic");
    eventually_heard(&b, "a").await;
}
