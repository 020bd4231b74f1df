//! One simulated node: the real cores, joined as the daemon joins them.
//!
//! * [`facts`]: membership, as its service drives it.
//! * [`acts`]: plan, DNS and gate, as the reconciler drives them.
//! * [`carries`]: the router, as the overlay drives it.
//!
//! The node does no IO: what comes in are packets and time, what goes out waits in `out`.

mod acts;
mod carries;
mod facts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use selvedge_dataplane::Twin;
use selvedge_dns::ZoneIndex;
use selvedge_fabric::{
    Revision, UnixMs,
    key::NodeId,
    plan::Plan,
    planner::{Local, Prepared},
    policy::PolicyState,
    record::{Health, LinkFact, Record},
    view::View,
};
use selvedge_membership::{
    Timers,
    core::{
        Now,
        detector::Detector,
        gossip::Gossip,
        judge::{Judge, Judgement},
        own::Own,
        sights,
        store::{Key, RecordStore},
        view::ViewBuilder,
        watch::Watch,
    },
};

use selvedge_overlay::{Router, Settings};
use zeroize::Zeroizing;

use crate::{
    intent::{Birth, FABRIC, START_MS},
    mutant::Mutant,
};

/// Most that a node's monotonic clock advances at once, as the daemon's does.
const MAX_STEP_MS: u64 = 500;

/// What nodes send each other.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    /// A record, by the mesh.
    Push(Arc<Record>),
    /// A request of anti-entropy.
    Request(selvedge_membership::core::wire::Request),
    /// Its response.
    Response(selvedge_membership::core::wire::Response),
    /// A packet of SWIM.
    Swim(Bytes),
    /// Say that you live.
    Ping,
    /// I live.
    Pong,
    /// A byte that only a closed port answers.
    Poke,
    /// The host says that nothing listens there.
    Refused,
    /// A datagram of the overlay.
    Link(Bytes),
    /// Which policy have you? This is mine.
    AskPolicy(Revision),
    /// A newer policy.
    Policy(Arc<PolicyState>),
}

/// What a node wants sent.
#[derive(Debug)]
pub(crate) enum Send {
    To(NodeId, Packet),
    /// To all peers of the mesh but the one it came from.
    Spread(Arc<Record>, Option<NodeId>),
}

/// What is left of a node when its process ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<Key, (Record, UnixMs)>,
    pub(crate) incarnation: u64,
    pub(crate) policy: Arc<PolicyState>,
    /// The policy with which the fabric was founded; only a planted bug looks at it.
    pub(crate) founding: Arc<PolicyState>,
}

/// A clock of one node: its monotonic time begins at its start, and its wall clock may be wrong.
#[derive(Debug, Clone, Copy)]
struct Clock {
    read_ms: u64,
    mono_ms: u64,
    skew_ms: i64,
}

impl Clock {
    fn read(&mut self, true_ms: u64) -> Now {
        let elapsed_ms = true_ms.saturating_sub(self.read_ms);
        self.read_ms = true_ms;
        self.mono_ms += elapsed_ms.min(MAX_STEP_MS);
        Now { mono_ms: self.mono_ms, unix_ms: (START_MS + true_ms).saturating_add_signed(self.skew_ms) }
    }
}

/// When which periodic work was done last.
#[derive(Debug, Default)]
struct Done {
    view_ms: u64,
    write_ms: u64,
    rtt_ms: u64,
    presence_ms: u64,
    testified_ms: u64,
    asked_ms: u64,
}

pub(crate) struct Node {
    pub(crate) birth: Arc<Birth>,
    me: NodeId,
    clock: Clock,
    /// Shortest time between two views.
    view_every_ms: u64,
    timers: Timers,
    mutant: Option<Mutant>,
    pub(crate) disk: Disk,
    unwritten: BTreeSet<Key>,
    /// Round trips to nodes by their cloud, microseconds.
    rtt_by_cloud_us: Arc<Vec<u32>>,
    pub(crate) policy: Arc<PolicyState>,
    roster: BTreeMap<NodeId, sights::Node>,
    pub(crate) gossip: Gossip,
    detector: Option<Detector>,
    watch: Watch,
    judge: Judge,
    pub(crate) judgement: Judgement,
    views: ViewBuilder,
    pub(crate) view: Arc<View>,
    rtt_us: BTreeMap<NodeId, u32>,
    starts: BTreeMap<NodeId, u64>,
    unheard: bool,
    health: Health,
    done: Done,
    dirty: bool,
    pub(crate) local: Local,
    prepared: Option<Prepared>,
    pub(crate) plan: Option<Arc<Plan>>,
    /// What the plan was made of.
    pub(crate) inputs: (Arc<PolicyState>, Arc<View>),
    pub(crate) plans_made: u64,
    /// How many of them were looked at.
    pub(crate) plans_seen: u64,
    pub(crate) index: Option<ZoneIndex>,
    pub(crate) gate: Twin,
    /// Whether packets go between nodes: not in the largest worlds.
    carries: bool,
    router: Router,
    links_told: Vec<LinkFact>,
    links_told_us: u64,
    /// Packets that came out of the overlay here.
    pub(crate) delivered: Vec<Bytes>,
    pub(crate) out: Vec<Send>,
}

/// What a node is started with.
pub(crate) struct Start {
    pub(crate) birth: Arc<Birth>,
    pub(crate) disk: Disk,
    pub(crate) true_ms: u64,
    pub(crate) skew_ms: i64,
    pub(crate) seed: u64,
    pub(crate) view_every_ms: u64,
    pub(crate) carries: bool,
    pub(crate) rtt_by_cloud_us: Arc<Vec<u32>>,
    pub(crate) mutant: Option<Mutant>,
}

impl Node {
    pub(crate) fn new(start: Start) -> Self {
        let Start { birth, disk, true_ms, skew_ms, seed, view_every_ms, carries, rtt_by_cloud_us, mutant } =
            start;
        let mut clock = Clock { read_ms: true_ms, mono_ms: 0, skew_ms };
        let now = clock.read(true_ms);
        let timers = Timers::default();
        let key = selvedge_fabric::key::Signer::public_key(&birth.key);
        let me = key.node_id();
        let policy = disk.policy.clone();
        let mut store = RecordStore::new(FABRIC, 0);
        store.set_policy(&policy);
        for (record, heard_ms) in disk.records.values() {
            // What is not good any more is left behind, as the daemon does.
            let _ = store.merge(record.clone(), *heard_ms, false);
        }
        let incarnation = disk.incarnation.max(store.incarnation(me));
        let router = Router::new(Settings {
            me,
            sealing_secret: Zeroizing::new(birth.sealing_secret()),
            first_session: (seed >> 8) as u32,
            direct: true,
        });
        let own = Own::new(key, incarnation, seed);
        let mut node = Self {
            me,
            clock,
            view_every_ms,
            timers,
            mutant,
            disk,
            unwritten: BTreeSet::new(),
            rtt_by_cloud_us,
            policy,
            roster: BTreeMap::new(),
            gossip: Gossip::new(store, own, timers.exchange_ms, seed.rotate_left(7)),
            detector: None,
            watch: Watch::new(me, timers),
            judge: Judge::new(timers, now.mono_ms),
            judgement: Judgement::default(),
            views: ViewBuilder::new(birth.name.clone()),
            view: Arc::default(),
            rtt_us: BTreeMap::new(),
            starts: BTreeMap::new(),
            unheard: false,
            health: Health::Passing,
            done: Done::default(),
            dirty: true,
            local: Local { me: Some(birth.name.clone()), tun: true, ..Local::default() },
            prepared: None,
            plan: None,
            inputs: Default::default(),
            plans_made: 0,
            plans_seen: 0,
            index: None,
            gate: Twin::default(),
            carries,
            router,
            links_told: Vec::new(),
            links_told_us: 0,
            delivered: Vec::new(),
            out: Vec::new(),
            birth,
        };
        node.disk.incarnation = node.gossip.own().incarnation();
        node.begin(seed, now);
        node
    }

    /// A wall clock that somebody sets.
    pub(crate) const fn set_skew(&mut self, skew_ms: i64) {
        self.clock.skew_ms = skew_ms;
    }

    /// Seconds since its start, as flow tables count.
    pub(crate) const fn uptime_s(&self) -> u32 {
        (self.clock.mono_ms / 1_000) as u32
    }

    /// Whether it has heard of `other` itself since its start.
    pub(crate) fn has_heard(&self, other: NodeId) -> bool {
        let of_swim = || self.detector.iter().any(|d| d.states().any(|(id, _)| id == other));
        self.watch.heard_ms(other).is_some() || of_swim()
    }
}
