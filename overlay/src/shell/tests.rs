//! Real transports on the loopback device, with channels for TUNs.

use std::{collections::BTreeMap, time::Duration};

use selvedge_fabric::plan::{LinkQuality, Owner};
use selvedge_transport::testing::{OpenGate, TestCa, TestEvents, public_key};

use super::*;
use crate::{
    ChannelTun, LinkState, TunPeer,
    testing::{self, client_ipv4, name, server_ipv4, udp4},
};

/// Generous: tests do not measure speed.
const DEADLINE: Duration = Duration::from_secs(30);

struct Node {
    id: NodeId,
    transport: Transport,
    overlay: Overlay,
    tun: TunPeer,
    plan: watch::Sender<Arc<Routing>>,
}

/// Processors 1, 2, … in zones of their own, where only those pairs know each other's address.
struct Fabric {
    nodes: BTreeMap<u64, Node>,
    intent: Routing,
}

impl Fabric {
    fn start(count: u64, known: &[(u64, u64)]) -> Self {
        let ca = TestCa::new("test");
        let zones = ["a", "b", "c", "d"];
        let listed: Vec<_> = (1..=count).map(|id| (id, zones[id as usize - 1])).collect();
        let small = testing::routing(1, &listed, &[]);
        let mut nodes = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for id in 1..=count {
            let key = TestCa::node_key();
            let credentials = ca.credentials_with(&ca.leaf(name(id).as_str()), &key);
            let (_, shown) = watch::channel(Arc::new(credentials));
            let options = ca.options(shown, Arc::new(OpenGate), Arc::new(TestEvents::default()));
            let transport = Transport::bind(options).unwrap();
            let node_id = public_key(&key).node_id();
            ids.insert(NodeId(id), node_id);
            let (tun, peer) = ChannelTun::pair();
            let (plan, routing) = watch::channel(Arc::default());
            let overlay = Overlay::start(Options {
                transport: transport.clone(),
                me: node_id,
                sealing_secret: Zeroizing::new(testing::secret(id)),
                routing,
                tun: Arc::new(tun),
                direct: true,
                events: Arc::new(TestEvents::default()),
            });
            nodes.insert(id, Node { id: node_id, transport, overlay, tun: peer, plan });
        }
        for (a, b) in known {
            nodes[a].transport.book().set(&name(*b), vec![nodes[b].transport.local_addr()]);
        }
        // The fixture numbers nodes; here they are named by their keys.
        let intent = Routing {
            nodes: small.nodes.iter().map(|(id, node)| (ids[id], node.clone())).collect(),
            owners: small
                .owners
                .iter()
                .map(|(address, owner)| (*address, Owner { node: ids[&owner.node], ..*owner }))
                .collect(),
            ..small
        };
        Self { nodes, intent }
    }

    /// Gives every node the intent and what all measured, as gossip does.
    fn plan(&self) {
        let facts = self.nodes.values().flat_map(|node| {
            let facts = node.overlay.facts().borrow().to_vec();
            facts.into_iter().map(|fact| {
                let quality = LinkQuality { rtt_us: fact.rtt_us, loss_permille: fact.loss_permille };
                ((node.id, fact.peer), quality)
            })
        });
        let measured: BTreeMap<_, _> = facts.collect();
        for node in self.nodes.values() {
            let routing = Routing { me: Some(node.id), measured: measured.clone(), ..self.intent.clone() };
            node.plan.send_replace(Arc::new(routing));
        }
    }

    fn path(&self, from: u64, to: u64) -> Option<usize> {
        self.nodes[&from].overlay.trace(None, &name(to)).ok().map(|path| path.len())
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(tokio::time::Instant::now() < end, "not in time: {what}");
            self.plan();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a packet until one arrives.
    async fn pass(&mut self, from: u64, to: u64, packet: Vec<u8>) -> Bytes {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            assert!(tokio::time::Instant::now() < end, "no packet from {from} to {to} in time");
            self.nodes[&from].tun.send.send(packet.clone().into()).await.unwrap();
            let there = self.nodes.get_mut(&to).unwrap();
            let arrives = tokio::time::timeout(Duration::from_millis(200), there.tun.receive.recv());
            if let Ok(Some(packet)) = arrives.await {
                return packet;
            }
        }
    }

    async fn stop(self) {
        for node in self.nodes.into_values() {
            node.overlay.shutdown().await;
            node.transport.close().await;
        }
    }
}

fn question(from: u64, to: u64, payload: &[u8]) -> Vec<u8> {
    udp4(client_ipv4(from), server_ipv4(to), 4_000, 53, payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_exchange_packets_over_quic() {
    let mut fabric = Fabric::start(2, &[(1, 2)]);
    fabric.until("a link", |fabric| fabric.path(1, 2) == Some(2) && fabric.path(2, 1) == Some(2)).await;
    for size in [1, 1_252] {
        let packet = question(1, 2, &vec![7; size]);
        assert_eq!(fabric.pass(1, 2, packet.clone()).await, packet);
    }
    let answer = udp4(server_ipv4(2), client_ipv4(1), 53, 4_000, b"back");
    assert_eq!(fabric.pass(2, 1, answer.clone()).await, answer);
    let links = fabric.nodes[&2].overlay.links();
    assert!(links.len() == 1 && links[0].state == LinkState::Up && links[0].rx_bytes > 1_000, "{links:?}");
    let forbidden = udp4(client_ipv4(1), server_ipv4(2), 4_000, 54, b"no");
    fabric.nodes[&1].tun.send.send(forbidden.into()).await.unwrap();
    let refused = |fabric: &Fabric| fabric.nodes[&1].overlay.counters().refused(Refusal::NoContract);
    fabric.until("a refusal", |fabric| refused(fabric) == 1).await;
    fabric.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_go_over_a_processor_and_around_one_that_dies() {
    let mut fabric = Fabric::start(4, &[(1, 2), (1, 4), (3, 2), (3, 4)]);
    fabric
        .until("both ways", |fabric| {
            fabric.path(1, 3) == Some(3)
                && [1, 3].iter().all(|id| fabric.nodes[id].overlay.facts().borrow().len() == 2)
        })
        .await;
    let packet = question(1, 3, b"over a processor");
    assert_eq!(fabric.pass(1, 3, packet.clone()).await, packet);
    let carried = |fabric: &Fabric, id: u64| fabric.nodes[&id].overlay.counters().carried;
    let (carrier, other) = if carried(&fabric, 2) > 0 { (2, 4) } else { (4, 2) };
    let dead = fabric.nodes.remove(&carrier).unwrap();
    dead.overlay.shutdown().await;
    dead.transport.close().await;
    let before = carried(&fabric, other);
    assert_eq!(fabric.pass(1, 3, packet.clone()).await, packet);
    assert!(carried(&fabric, other) > before);
    fabric.stop().await;
}

#[tokio::test]
async fn what_is_taken_over_holds_at_once() {
    let fabric = Fabric::start(2, &[(1, 2)]);
    fabric.until("a link", |fabric| fabric.path(1, 2) == Some(2)).await;
    // Until this test waits nothing else runs, so only the call can have brought it about.
    let node = &fabric.nodes[&1];
    node.plan.send_replace(Arc::default());
    assert_eq!(fabric.path(1, 2), Some(2), "the router has not seen it yet");
    node.overlay.take_over();
    assert_eq!(fabric.path(1, 2), None);
    fabric.stop().await;
}

/// Prints what one packet costs at several sizes, directly and over a processor; asserts nothing about
/// it. `cargo test --release -p selvedge-overlay -- --ignored --nocapture what_packets_cost`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints costs; asserts nothing about them"]
async fn what_packets_cost() {
    const PACKETS: usize = 20_000;
    const IN_FLIGHT: usize = 64;
    let mut fabric = Fabric::start(3, &[(1, 2), (3, 2)]);
    fabric.until("a way", |fabric| fabric.path(1, 3) == Some(3) && fabric.path(3, 1) == Some(3)).await;
    for to in [2, 3] {
        for size in [200_usize, 1_280, 1_320, 1_400] {
            let packet = Bytes::from(question(1, to, &vec![7; size - 28]));
            fabric.pass(1, to, packet.to_vec()).await;
            let tx = |fabric: &Fabric| fabric.nodes[&1].overlay.links()[0].clone();
            let (before, began) = (tx(&fabric), Instant::now());
            let send = fabric.nodes[&1].tun.send.clone();
            let (mut sent, mut got) = (0, 0);
            while got < PACKETS {
                while sent < PACKETS && sent - got < IN_FLIGHT {
                    send.send(packet.clone()).await.unwrap();
                    sent += 1;
                }
                let there = fabric.nodes.get_mut(&to).unwrap();
                match tokio::time::timeout(Duration::from_secs(2), there.tun.receive.recv()).await {
                    Ok(Some(_)) => got += 1,
                    _ => break,
                }
            }
            let per_packet = began.elapsed().as_secs_f64() * 1e6 / got.max(1) as f64;
            let bytes = (tx(&fabric).tx_bytes - before.tx_bytes) / got.max(1) as u64;
            let how = if to == 2 { "direct" } else { "sealed over one processor" };
            println!(
                "{how}, {size} bytes: {per_packet:.1} µs and {bytes} bytes on the link each, {got} of {sent}"
            );
        }
    }
    fabric.stop().await;
}
