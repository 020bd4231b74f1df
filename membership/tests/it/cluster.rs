//! What a handful of real instances make of each other.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use selvedge_fabric::{
    command::{AdmissionState, Role},
    event::Severity,
    key::Signer,
    policy::PolicyState,
    record::{Body, LinkFact},
    view::Liveness,
};
use selvedge_transport::testing::TestCa;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    fabric::{admission, endpoint, key, name, node_name, policy},
    instance::{Instance, until},
};

struct Cluster {
    ca: TestCa,
    dir: TempDir,
    policy: watch::Sender<Arc<PolicyState>>,
    nodes: Vec<Instance>,
}

impl Cluster {
    async fn start(clouds: &[&str]) -> Self {
        let (ca, dir) = (TestCa::new("fab"), tempfile::tempdir().unwrap());
        let policy = watch::Sender::new(Arc::new(policy(clouds)));
        let mut nodes: Vec<Instance> = Vec::new();
        for n in 0..clouds.len() {
            let node = Instance::start(&ca, n, dir.path(), &policy).await;
            node.meet(&nodes.iter().collect::<Vec<_>>());
            nodes.push(node);
        }
        let cluster = Self { ca, dir, policy, nodes };
        cluster.all_alive().await;
        cluster
    }

    async fn all_alive(&self) {
        let ids: Vec<usize> = self.nodes.iter().map(|node| node.n).collect();
        until("all nodes see all others alive", || {
            self.nodes.iter().all(|node| ids.iter().all(|&n| node.state(n) == Liveness::Alive))
        })
        .await;
    }

    async fn stop(self) {
        for node in self.nodes {
            node.kill().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_announced_replace_those_that_membership_makes() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let peer = key(1).public_key().node_id();
    let links = |loss_permille| vec![LinkFact { peer, rtt_us: 4_200, loss_permille }];
    for told in [links(7), Vec::new(), links(9)] {
        cluster.nodes[0].membership.announce(Body::Links(told.clone()));
        until("the links are known at the other end", || cluster.nodes[1].sees(0).links == told).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_reach_everybody_and_a_killed_cloud_is_seen_and_taken_back() {
    let mut cluster = Cluster::start(&["a", "a", "b", "b", "c"]).await;
    let announced = std::time::Instant::now();
    cluster.nodes[4].membership.announce(Body::Endpoints(vec![endpoint(4, "web-1")]));
    until("the endpoint is known everywhere", || {
        cluster.nodes.iter().all(|node| node.sees(4).endpoints.contains_key(&name("web-1")))
    })
    .await;
    println!("endpoint known to all after {:?}", announced.elapsed());

    let victim = cluster.nodes.pop().unwrap();
    let (address, before) = (victim.transport.local_addr(), victim.sees(4).incarnation);
    victim.kill().await;
    let killed = std::time::Instant::now();
    until("the cloud is down for all others", || {
        let down = |node: &Instance| {
            node.view().clouds_down.contains_key(&name("c")) && node.state(4) == Liveness::Down
        };
        cluster.nodes.iter().all(down)
    })
    .await;
    println!("seen by all {:?} after the kill", killed.elapsed());
    assert!(cluster.nodes.iter().all(|node| node.state(0) == Liveness::Alive && !node.view().isolated));

    let back = Instance::start_at(&cluster.ca, 4, cluster.dir.path(), &cluster.policy, address).await;
    until("it knows from its disk whom to dial", || back.view().nodes.len() == 5).await;
    cluster.nodes.push(back);
    cluster.all_alive().await;
    assert!(cluster.nodes[0].sees(4).incarnation > before);
    assert!(cluster.nodes[0].view().clouds_down.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_admitted_is_refused_and_a_revoked_one_is_cut() {
    let mut cluster = Cluster::start(&["a", "b", "c"]).await;
    // Its own policy admits it; that of the others does not.
    let mut own = policy(&["a", "b", "c"]);
    own.nodes.insert(node_name(3), admission(3, "a", Role::Processor));
    let own = watch::Sender::new(Arc::new(own));
    let stranger = Instance::start(&cluster.ca, 3, cluster.dir.path(), &own).await;
    stranger.meet(&cluster.nodes.iter().collect::<Vec<_>>());
    until("its connection is refused, with an event", || {
        cluster.nodes.iter().any(|node| node.has_event(Severity::Security, "peer-refused"))
    })
    .await;
    assert_eq!(cluster.nodes[0].view().nodes.len(), 3);
    stranger.kill().await;

    cluster.policy.send_modify(|policy| {
        let policy = Arc::make_mut(policy);
        policy.revision += 1;
        policy.nodes.get_mut(&node_name(2)).unwrap().state = AdmissionState::Revoked;
    });
    let revoked = cluster.nodes.pop().unwrap();
    until("the revoked node has no gossip connection", || revoked.membership.metrics().gossip_peers == 0)
        .await;
    revoked.kill().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_without_a_good_proof_is_not_served() {
    let cluster = Cluster::start(&["a", "b"]).await;
    // Proven for another node's key.
    let stolen = endpoint(0, "stolen");
    cluster.nodes[1].membership.announce(Body::Endpoints(vec![stolen, endpoint(1, "good")]));
    until("the good one is known", || cluster.nodes[0].sees(1).endpoints.contains_key(&name("good"))).await;
    assert!(!cluster.nodes[0].sees(1).endpoints.contains_key(&name("stolen")));
    assert!(cluster.nodes[0].has_event(Severity::Security, "endpoint-refused"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_alone_serves_what_its_disk_knew() {
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    cluster.nodes[1].membership.announce(Body::Endpoints(vec![endpoint(1, "web-1")]));
    until("the endpoint is known", || cluster.nodes[0].sees(1).endpoints.len() == 1).await;
    let Cluster { ca, dir, policy, nodes } = cluster;
    for node in nodes {
        node.kill().await;
    }

    let alone = Instance::start(&ca, 0, dir.path(), &policy).await;
    let at_once = alone.sees(1);
    assert_eq!((at_once.state, at_once.endpoints.len()), (Liveness::Unknown, 1));
    assert!(at_once.heard_ms.is_some());
    until("it knows that it sees nobody", || alone.view().isolated).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((alone.state(1), alone.sees(1).endpoints.len()), (Liveness::Unknown, 1));
    assert!(alone.has_event(Severity::Warning, "isolated"));
    alone.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_gossip_port_does_no_harm() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..2_000_u32 {
        let bytes: Vec<u8> = (0..n % 1_300).map(|i| (i.wrapping_mul(n) >> 3) as u8).collect();
        socket.send_to(&bytes, cluster.nodes[0].membership.gossip_addr()).unwrap();
    }
    cluster.nodes[1].membership.announce(Body::Endpoints(vec![endpoint(1, "web-1")]));
    until("facts still arrive", || cluster.nodes[0].sees(1).endpoints.len() == 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_says_so_and_workload_nodes_live_by_their_processors() {
    let mut cluster = Cluster::start(&["a", "b", "c"]).await;
    cluster.policy.send_modify(|policy| {
        let policy = Arc::make_mut(policy);
        policy.revision += 1;
        policy.nodes.insert(node_name(9), admission(9, "a", Role::Workload));
    });
    until("it lives while somebody vouches", || {
        cluster.nodes[1].membership.vouch(&node_name(9), 1);
        cluster.nodes.iter().all(|node| node.view().nodes.len() == 4 && node.state(9) == Liveness::Alive)
    })
    .await;
    until("it is down when nobody does any more", || {
        cluster.nodes.iter().all(|node| node.state(9) == Liveness::Down)
    })
    .await;
    let leaving = cluster.nodes.pop().unwrap();
    leaving.membership.leave().await;
    leaving.kill().await;
    until("it has left, and is not down", || {
        cluster.nodes.iter().all(|node| node.state(2) == Liveness::Left)
    })
    .await;
    cluster.stop().await;
}

/// What the others say did not change while a processor was away, so nothing of it is news; but what the
/// processor remembers from before proves nothing about now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_restarts_soon_knows_who_is_vouched_for() {
    let mut cluster = Cluster::start(&["a", "b", "c"]).await;
    cluster.policy.send_modify(|policy| {
        let policy = Arc::make_mut(policy);
        policy.revision += 1;
        policy.nodes.insert(node_name(9), admission(9, "a", Role::Workload));
    });
    let lives = |node: &Instance| node.view().nodes.len() == 4 && node.state(9) == Liveness::Alive;
    until("it lives while somebody vouches", || {
        cluster.nodes[0].membership.vouch(&node_name(9), 1);
        cluster.nodes.iter().all(lives)
    })
    .await;
    let gone = cluster.nodes.pop().unwrap();
    // Time to write down what was heard.
    let mut beats = 0;
    until("some heartbeats", || {
        cluster.nodes[0].membership.vouch(&node_name(9), 1);
        beats += 1;
        beats > 100
    })
    .await;
    gone.kill().await;
    let back = Instance::start(&cluster.ca, 2, cluster.dir.path(), &cluster.policy).await;
    until("the one that is back sees it alive", || {
        cluster.nodes[0].membership.vouch(&node_name(9), 1);
        lives(&back)
    })
    .await;
    cluster.nodes.push(back);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_live_holders_of_one_key_are_quarantined() {
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    cluster.nodes[2].membership.announce(Body::Endpoints(vec![endpoint(2, "web-1")]));
    until("its endpoint is known", || cluster.nodes[0].sees(2).endpoints.len() == 1).await;
    // The same key on another disk.
    let elsewhere = tempfile::tempdir().unwrap();
    let clone = Instance::start(&cluster.ca, 2, elsewhere.path(), &cluster.policy).await;
    clone.meet(&[&cluster.nodes[0], &cluster.nodes[1]]);
    until("the others set its facts aside", || {
        let aside = |n: usize| {
            let seen = cluster.nodes[n].sees(2);
            seen.quarantined && seen.endpoints.is_empty()
        };
        aside(0) && aside(1)
    })
    .await;
    assert!(cluster.nodes[0].has_event(Severity::Security, "key-held-twice"));
    clone.kill().await;
    cluster.stop().await;
}
