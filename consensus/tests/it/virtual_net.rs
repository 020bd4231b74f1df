//! Replicas on real stores, joined by a network that delays, loses, repeats and cuts, in virtual time.
//!
//! Time stands still while anything works (syncs run on blocking threads), and jumps when everything
//! waits; so minutes of faults take seconds, and a busy machine changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use selvedge_consensus::{Peer, Peers, Replica, Rpc, RpcError, Settings, Timers};
use selvedge_fabric::{
    id::NodeName,
    key::{FabricId, PublicKey, Signer},
    view::Liveness,
};
use tempfile::TempDir;
use tokio::{sync::watch, time::sleep};

use crate::fabric::{self, Events, name};

/// No request between replicas lasts longer.
const LONGEST_REQUEST: Duration = Duration::from_secs(5);

/// How the network mistreats messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) max_delay_ms: u64,
    pub(crate) loss: f64,
    pub(crate) repeat: f64,
}

struct State {
    random: StdRng,
    weather: Weather,
    replicas: BTreeMap<NodeName, (Replica, PublicKey)>,
    cut_off: BTreeSet<NodeName>,
    slow: BTreeMap<NodeName, Duration>,
    /// Nodes that reach only each other.
    apart: BTreeSet<NodeName>,
}

/// The network and the nodes on it.
#[derive(Clone)]
pub(crate) struct VirtualNet(Arc<Mutex<State>>);

struct Port {
    net: VirtualNet,
    me: NodeName,
}

enum Fate {
    Lost,
    Delivered { delay: Duration, repeated: bool },
}

impl VirtualNet {
    pub(crate) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let weather = Weather { max_delay_ms: 4, ..Weather::default() };
        let (replicas, cut_off, slow) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let apart = BTreeSet::new();
        Self(Arc::new(Mutex::new(State { random, weather, replicas, cut_off, slow, apart })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Cuts a node off from all others, in both directions.
    pub(crate) fn cut(&self, node: &NodeName) {
        self.state().cut_off.insert(node.clone());
    }

    /// What is sent to this node takes so much longer.
    pub(crate) fn slow(&self, node: &NodeName, by: Duration) {
        self.state().slow.insert(node.clone(), by);
    }

    /// Parts these nodes from all others; both sides live on.
    pub(crate) fn part(&self, nodes: &[&str]) {
        self.state().apart = nodes.iter().map(|n| name(n)).collect();
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.cut_off.clear();
        state.apart.clear();
    }

    pub(crate) fn choose(&self, below: usize) -> usize {
        self.state().random.random_range(0..below)
    }

    pub(crate) fn replica(&self, node: &str) -> Replica {
        self.state().replicas[&name(node)].0.clone()
    }

    fn fate(&self, from: &NodeName, to: &NodeName) -> Fate {
        let mut state = self.state();
        let parted = state.apart.contains(from) != state.apart.contains(to);
        if parted || state.cut_off.contains(from) || state.cut_off.contains(to) {
            return Fate::Lost;
        }
        let weather = state.weather;
        if state.random.random_bool(weather.loss) {
            return Fate::Lost;
        }
        let more = state.slow.get(to).copied().unwrap_or_default();
        let delay = Duration::from_millis(state.random.random_range(0..=weather.max_delay_ms)) + more;
        Fate::Delivered { delay, repeated: state.random.random_bool(weather.repeat) }
    }

    async fn carry(&self, from: NodeName, to: NodeName, body: Bytes) -> Result<Bytes, RpcError> {
        let Fate::Delivered { delay, repeated } = self.fate(&from, &to) else {
            return std::future::pending().await;
        };
        sleep(delay).await;
        let (sender, receiver) = {
            let state = self.state();
            (state.replicas.get(&from).map(|(_, key)| *key), state.replicas.get(&to).map(|(r, _)| r.clone()))
        };
        let (Some(key), Some(receiver)) = (sender, receiver) else {
            return Err(RpcError::NotSent(format!("{to} does not run")));
        };
        if repeated {
            let _ = receiver.serve(&from, &key, &body).await;
        }
        let answer = receiver.serve(&from, &key, &body).await.map_err(RpcError::Refused)?;
        // A replica that is kept would keep its files open.
        drop(receiver);
        match self.fate(&to, &from) {
            Fate::Lost => std::future::pending().await,
            Fate::Delivered { delay, .. } => sleep(delay).await,
        }
        Ok(answer)
    }
}

#[async_trait]
impl Rpc for Port {
    async fn request(&self, to: &NodeName, body: Bytes, timeout: Duration) -> Result<Bytes, RpcError> {
        let carried = tokio::time::timeout(timeout, self.net.carry(self.me.clone(), to.clone(), body)).await;
        carried.unwrap_or_else(|_| Err(RpcError::NoAnswer(format!("{to} did not answer"))))
    }

    fn addresses(&self, _node: &NodeName) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn suggest(&self, _node: &NodeName, _addresses: &[SocketAddr]) {}

    fn acquaintances(&self) -> Vec<NodeName> {
        self.net.state().replicas.keys().cloned().collect()
    }
}

/// A fabric on a [`VirtualNet`].
pub(crate) struct Cluster {
    pub(crate) net: VirtualNet,
    pub(crate) events: Arc<Events>,
    pub(crate) timers: Timers,
    dir: TempDir,
    detector: watch::Sender<Arc<Peers>>,
    liveness: watch::Receiver<Arc<Peers>>,
}

pub(crate) fn signing_key(node: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..node.len()].copy_from_slice(node.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn key(node: &str) -> PublicKey {
    signing_key(node).public_key()
}

impl Cluster {
    pub(crate) fn empty(seed: u64) -> Self {
        let (detector, liveness) = watch::channel(Arc::new(Peers::new()));
        Self {
            net: VirtualNet::new(seed),
            events: Arc::default(),
            timers: Timers::default(),
            dir: TempDir::new().expect("a directory"),
            detector,
            liveness,
        }
    }

    /// One voter in each of three clouds.
    pub(crate) async fn of_three(seed: u64) -> Self {
        let cluster = Self::empty(seed);
        cluster.found("p1", "aws").await;
        cluster.join("p2", "azr").await;
        cluster.join("p3", "gcp").await;
        cluster.until("three voters", |replica| replica.status().borrow().voters.len() == 3).await;
        cluster
    }

    pub(crate) fn dir_of(&self, node: &str) -> std::path::PathBuf {
        self.dir.path().join(node)
    }

    pub(crate) async fn start(&self, node: &str) -> Replica {
        let replica =
            open(&self.net, node, &self.dir_of(node), &self.timers, &self.events, &self.liveness).await;
        self.net.state().replicas.insert(name(node), (replica.clone(), key(node)));
        replica
    }

    pub(crate) async fn stop(&self, node: &str) {
        let removed = self.net.state().replicas.remove(&name(node));
        removed.expect("it runs").0.shutdown().await;
        // What a leader was sending keeps its files open until the deadline of that request.
        sleep(LONGEST_REQUEST).await;
    }

    pub(crate) async fn found(&self, node: &str, cloud: &str) {
        let replica = self.start(node).await;
        replica.bootstrap(fabric::init(node, cloud, key(node))).await.expect("a fabric");
    }

    pub(crate) async fn join(&self, node: &str, cloud: &str) {
        let replica = self.start(node).await;
        for proposal in fabric::admission(node, cloud, key(node)) {
            replica.propose(proposal, Duration::from_secs(20)).await.expect("admitted");
        }
    }

    /// Failure detection holds `node` for dead, everywhere.
    pub(crate) fn hold_for_dead(&self, node: &NodeName) {
        let zone = "aws/a".parse().expect("a zone");
        let peer = Peer { name: node.clone(), zone, liveness: Liveness::Down, since_ms: 0 };
        self.detector
            .send_modify(|peers| drop(Arc::make_mut(peers).insert(key(node.as_str()).node_id(), peer)));
    }

    pub(crate) fn replicas(&self) -> Vec<Replica> {
        self.net.state().replicas.values().map(|(replica, _)| replica.clone()).collect()
    }

    /// Waits until all replicas satisfy `condition`; fails after two virtual minutes.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Replica) -> bool) {
        for _ in 0..1_200 {
            if self.replicas().iter().all(&condition) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let states: Vec<_> = self.replicas().iter().map(|r| r.status().borrow().clone()).collect();
        panic!("not within two minutes: {what}: {states:#?}");
    }

    /// The leader on which a majority agrees.
    pub(crate) async fn leader(&self) -> NodeName {
        for _ in 0..1_200 {
            let leaders: Vec<_> =
                self.replicas().iter().filter_map(|r| r.status().borrow().leader.clone()).collect();
            let agreed = leaders
                .iter()
                .find(|l| leaders.iter().filter(|other| other == l).count() * 2 > leaders.len());
            if let Some(leader) = agreed {
                return leader.clone();
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("no leader within two minutes");
    }

    pub(crate) async fn end(self) {
        for replica in self.replicas() {
            replica.shutdown().await;
        }
    }
}

async fn open(
    net: &VirtualNet,
    node: &str,
    dir: &Path,
    timers: &Timers,
    events: &Arc<Events>,
    liveness: &watch::Receiver<Arc<Peers>>,
) -> Replica {
    let settings = Settings {
        dir: dir.to_owned(),
        me: name(node),
        key: key(node),
        anchor: Some((FabricId([1; 16]), key("recovery"))),
        liveness: liveness.clone(),
        timers: *timers,
        events: Arc::clone(events) as _,
        seed: net.state().random.random(),
    };
    let port = Arc::new(Port { net: net.clone(), me: name(node) });
    let replica = Replica::open_over(settings, port).await.expect("opens");
    replica.attest(Arc::new(signing_key(node)));
    replica
}
