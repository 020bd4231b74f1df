//! Three replicas on the real transport over loopback, on real disks, in real time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_consensus::{Options, Peers, Replica, Timers};
use selvedge_fabric::{
    id::NodeName,
    key::{PublicKey, Signature, Signer, TokenId},
};
use selvedge_transport::{
    Transport,
    testing::{OpenGate, TestCa, public_key},
};
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use crate::fabric::{self, Events, holds, name};

/// Generous: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
const NODES: [(&str, &str); 3] = [("p1", "aws"), ("p2", "azr"), ("p3", "gcp")];

/// Replicas need a node key for its public half only.
struct Identity(PublicKey);

impl Signer for Identity {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, _message: &[u8]) -> Signature {
        unreachable!("a replica signs nothing")
    }
}

struct Node {
    name: NodeName,
    key: PublicKey,
    transport: Transport,
    replica: Replica,
}

struct Fabric {
    dir: TempDir,
    events: Arc<Events>,
    nodes: Vec<Node>,
    liveness: watch::Receiver<Arc<Peers>>,
}

impl Fabric {
    async fn start() -> Self {
        let ca = TestCa::new("test");
        let (_, liveness) = watch::channel(Arc::new(Peers::new()));
        let dir = TempDir::new().expect("a directory");
        let mut fabric = Self { dir, events: Arc::default(), nodes: Vec::new(), liveness };
        for (node, _) in NODES {
            fabric.add(&ca, node).await;
        }
        for (from, to) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            let (to, addr) = (&fabric.nodes[to].name, fabric.nodes[to].transport.local_addr());
            fabric.nodes[from].transport.book().set(to, vec![addr]);
        }
        let init = fabric::init(NODES[0].0, NODES[0].1, fabric.nodes[0].key);
        fabric.nodes[0].replica.bootstrap(init).await.expect("a fabric");
        for (n, (node, cloud)) in NODES.iter().enumerate().skip(1) {
            for proposal in fabric::admission(node, cloud, fabric.nodes[n].key) {
                // From a node that is no member yet: it asks around.
                fabric.nodes[n].replica.propose(proposal, PATIENCE).await.expect("admitted");
            }
        }
        fabric.until("three voters", |r| r.status().borrow().voters.len() == 3).await;
        fabric
    }

    async fn add(&mut self, ca: &TestCa, node: &str) {
        let key = TestCa::node_key();
        let credentials = ca.credentials_with(&ca.leaf(node), &key);
        let (_, credentials) = watch::channel(Arc::new(credentials));
        let options = ca.options(credentials, Arc::new(OpenGate), Arc::clone(&self.events) as _);
        let transport = Transport::bind(options).expect("a transport");
        let key = public_key(&key);
        let replica = self.open(node, key, &transport).await;
        self.nodes.push(Node { name: name(node), key, transport, replica });
    }

    async fn open(&self, node: &str, key: PublicKey, transport: &Transport) -> Replica {
        let options = Options {
            dir: self.dir.path().join(node),
            me: name(node),
            signer: Arc::new(Identity(key)),
            anchor: None,
            transport: transport.clone(),
            liveness: self.liveness.clone(),
            timers: Timers::default(),
            events: Arc::clone(&self.events) as _,
        };
        Replica::open(options).await.expect("opens")
    }

    async fn until(&self, what: &str, condition: impl Fn(&Replica) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.nodes.iter().all(|node| condition(&node.replica)) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn leader(&self) -> usize {
        self.until("a leader", |r| r.status().borrow().leader.is_some()).await;
        let leader = self.nodes[0].replica.status().borrow().leader.clone();
        self.nodes.iter().position(|node| Some(&node.name) == leader.as_ref()).expect("one of us")
    }

    async fn end(self) {
        for node in self.nodes {
            node.replica.shutdown().await;
            node.transport.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_forwarded_and_many_writers_share_entries() {
    let fabric = Fabric::start().await;
    let before = fabric.nodes[0].replica.status().borrow().last_index;
    let mut writers = JoinSet::new();
    let gate = Arc::new(Semaphore::new(0));
    for n in 0..64_usize {
        let (replica, gate) = (fabric.nodes[n % 3].replica.clone(), Arc::clone(&gate));
        writers.spawn(async move {
            let _permit = gate.acquire().await.expect("opens");
            let id = TokenId(rand::random());
            for _ in 0..4 {
                replica.propose(fabric::write(TokenId(rand::random())), PATIENCE).await.expect("written");
            }
            replica.propose(fabric::write(id), PATIENCE).await.map(|_| id)
        });
    }
    gate.add_permits(64);
    let ids: Vec<_> = writers.join_all().await.into_iter().map(|id| id.expect("written")).collect();
    for node in &fabric.nodes {
        node.replica.barrier(PATIENCE).await.expect("a leader");
        let policy = node.replica.policy().borrow().clone();
        assert!(ids.iter().all(|id| holds(&policy, *id)));
    }
    let entries = fabric.nodes[0].replica.status().borrow().last_index - before;
    assert!(entries < 64 * 5, "{entries} entries for {} commands: nothing was batched", 64 * 5);
    fabric.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_followed_and_returns_from_its_disk() {
    let mut fabric = Fabric::start().await;
    let leader = fabric.leader().await;
    let lost = fabric.nodes.remove(leader);
    lost.replica.shutdown().await;
    let id = TokenId(rand::random());
    fabric.nodes[0].replica.propose(fabric::write(id), PATIENCE).await.expect("a new leader takes it");

    let Node { name, key, transport, replica } = lost;
    drop(replica);
    let replica = fabric.open(name.as_str(), key, &transport).await;
    assert!(replica.policy().borrow().params.is_some(), "the policy is there from disk");
    replica.barrier(PATIENCE).await.expect("caught up");
    assert!(holds(&replica.policy().borrow(), id));
    fabric.nodes.push(Node { name, key, transport, replica });
    fabric.end().await;
}
