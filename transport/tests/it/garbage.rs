//! Bytes from outside: they may cost time, never memory without bound, and never the service.

use std::{net::UdpSocket, sync::Arc};

use quinn::Endpoint;
use selvedge_transport::{Alpn, MAX_JOIN_REQUEST_BYTES, MAX_REQUEST_BYTES, testing::TestCa};

use crate::{
    raw,
    support::{Node, eventually},
};

/// Memory that the process may gain under a flood; its own buffers and the allocator's slack are in it.
const MAX_GROWTH_BYTES: usize = 96 << 20;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// A small generator (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[0];
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_garbage_leaves_the_service_alone() {
    let ca = TestCa::new("test");
    let (server, client) = (Node::named(&ca, "b"), Node::named(&ca, "a"));
    client.knows(&server);
    let before = resident_bytes();
    let to = server.transport.local_addr();
    let flood = tokio::task::spawn_blocking(move || {
        let (mut random, mut packet) = (Random(0x5e1f_ed9e), [0; 1500]);
        let sockets: Vec<_> = (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
        for round in 0..20_000_usize {
            let length = usize::try_from(random.next() % 1500).expect("small");
            random.fill(&mut packet[..length.min(64)]);
            match round % 3 {
                // A QUIC version 1 Initial by its head, and by its head alone.
                0 => packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
                // A version nobody knows: answered by a version negotiation, without state.
                1 => packet[0] |= 0xc0,
                _ => packet[0] &= 0x7f,
            }
            let length = if round % 3 == 0 { 1200 } else { length };
            let _ = sockets[round % sockets.len()].send_to(&packet[..length], to);
        }
    });
    flood.await.expect("no panic");
    assert_eq!(client.ask("b", Alpn::Raft, "still there?").await, Ok("a:still there?".to_owned()));
    let growth = resident_bytes().saturating_sub(before);
    assert!(growth < MAX_GROWTH_BYTES, "grew by {growth} bytes");
}

/// First packets of handshakes that are never continued, made by a real client that talks to nobody.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    nobody.set_nonblocking(true).expect("non-blocking");
    let nobody = tokio::net::UdpSocket::from_std(nobody).expect("a socket");
    let to = nobody.local_addr().expect("an address");
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let (mut packets, mut buffer) = (Vec::new(), [0; 2048]);
    for _ in 0..count {
        let dial =
            endpoint.connect_with(raw::client_config(Alpn::Join.wire(), None), to, "x").expect("a dial");
        let (length, _) = nobody.recv_from(&mut buffer).await.expect("a packet");
        packets.push(buffer[..length].to_vec());
        drop(dial);
    }
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_do_not_lock_others_out() {
    let ca = TestCa::new("test");
    let (server, client) = (Node::named(&ca, "b"), Node::named(&ca, "a"));
    client.knows(&server);
    let attacker = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for packet in first_packets(600).await {
        attacker.send_to(&packet, server.transport.local_addr()).expect("sent");
    }
    assert_eq!(client.ask("b", Alpn::Raft, "and I?").await, Ok("a:and I?".to_owned()));
    eventually("half-open handshakes are given up", || server.transport.counters().handshakes_failed > 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_harm_only_their_stream() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let to = server.transport.local_addr();
    let cases: [(&[u8], bool); 6] = [
        (&[], false),
        (&[0, 0, 0], false),
        (&[0, 0, 0, 0, 9, b'x'], false),
        (&[0, 0, 0, 0, 1, b'x', b'y'], false),
        (&[9, 0, 0, 0, 1, b'x'], false),
        (&[0, 0, 0, 0, 1, b'x'], true),
    ];
    let (_endpoint, connection) =
        raw::connect(to, Alpn::Raft.wire(), Some(ca.credentials("a"))).await.expect("connected");
    for (frame, answered) in cases {
        let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
        send.write_all(frame).await.expect("written");
        send.finish().expect("open until now");
        let answer = receive.read_to_end(100).await.unwrap_or_default();
        assert_eq!(!answer.is_empty(), answered, "{frame:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_size_beyond_the_limit_is_refused_before_it_is_sent() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let to = server.transport.local_addr();
    let known = Some(ca.credentials("a"));
    for (alpn, shown, limit) in
        [(Alpn::Raft, known, MAX_REQUEST_BYTES), (Alpn::Join, None, MAX_JOIN_REQUEST_BYTES)]
    {
        let (_endpoint, connection) = raw::connect(to, alpn.wire(), shown).await.expect("connected");
        let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
        let length = u32::try_from(limit + 1).expect("small").to_be_bytes();
        send.write_all(&[&[0], &length[..]].concat()).await.expect("written");
        let answer = receive.read_to_end(1000).await.expect("an answer");
        assert!(String::from_utf8_lossy(&answer).contains("too large"), "{alpn}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gets_no_streams_of_the_other_kind() {
    let ca = TestCa::new("test");
    let server = Node::named(&ca, "b");
    let credentials = Some(ca.credentials("a"));
    let (_endpoint, connection) =
        raw::connect(server.transport.local_addr(), Alpn::Raft.wire(), credentials).await.expect("connected");
    let connection = Arc::new(connection);
    // A bidirectional one opens, so the limits have arrived; a unidirectional one never does.
    let _bidirectional = connection.open_bi().await.expect("a stream");
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), connection.open_uni()).await;
    assert!(waited.is_err(), "a unidirectional stream was granted");
}
