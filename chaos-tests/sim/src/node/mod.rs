//! One simulated node: the real cores, joined as the daemon joins them.
//!
//! * [`facts`]: membership, as its service drives it.
//! * [`acts`]: plan, DNS and gate, as the reconciler drives them.
//! * [`replica`]: a model of the replicated log, around the real rules.
//! * [`carries`]: the router, as the overlay drives it.
//!
//! The node does no IO: what comes in are packets and time, what goes out waits in `out`.

mod acts;
mod carries;
mod facts;
mod log;
mod replica;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use selvedge_dataplane::Twin;
use selvedge_dns::ZoneIndex;
use selvedge_fabric::{
    Revision, UnixMs,
    compile::VerdictTables,
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
        outlook::Outlook,
        own::Own,
        store::{Key, RecordStore},
        view::ViewBuilder,
    },
};

use selvedge_overlay::{Peeked, Router, Settings};
use zeroize::Zeroizing;

pub(crate) use self::log::{Deed, Entry, Members};
use self::{
    log::{Message, Stored},
    replica::Replica,
};
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
    /// What replicas of the log say.
    Raft(Box<Message>),
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
    pub(crate) log: Stored,
    pub(crate) policy: Arc<PolicyState>,
    /// The policy with which the fabric was founded; only a planted bug looks at it.
    pub(crate) founding: Arc<PolicyState>,
}

impl Disk {
    /// The facts it kept. What is not good any more is left behind, as the daemon does.
    fn facts(&self) -> RecordStore {
        let mut store = RecordStore::new(FABRIC, 0);
        store.set_policy(&self.policy);
        for (record, heard_ms) in self.records.values() {
            let _ = store.merge(record.clone(), *heard_ms, false);
        }
        store
    }
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

/// The log of the node that founds the fabric.
pub(crate) fn founding_log(me: NodeId) -> Stored {
    Replica::founding(me)
}

/// When which periodic work was done last.
#[derive(Debug, Default)]
struct Done {
    view_ms: u64,
    write_ms: u64,
    rtt_ms: u64,
    presence_ms: u64,
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
    pub(crate) gossip: Gossip,
    pub(crate) outlook: Outlook,
    views: ViewBuilder,
    pub(crate) view: Arc<View>,
    rtt_us: BTreeMap<NodeId, u32>,
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
    /// The plan by which its DNS answers.
    named_by: Option<Arc<Plan>>,
    index: Option<(Arc<Plan>, ZoneIndex)>,
    pub(crate) gate: Twin,
    /// Whether packets go between nodes: not in the largest worlds.
    carries: bool,
    router: Router,
    links_told: Vec<LinkFact>,
    links_told_us: u64,
    /// Packets that came out of the overlay here.
    pub(crate) delivered: Vec<(Revision, Bytes)>,
    /// Frames that it sent, and the revision by which it routed them.
    pub(crate) frames: Vec<(NodeId, Revision, Peeked)>,
    routed_revision: Revision,
    /// Only a planted bug looks at it.
    first_verdicts: Option<Arc<VerdictTables>>,
    pub(crate) replica: Replica,
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

fn router(me: NodeId, birth: &Birth, seed: u64) -> Router {
    Router::new(Settings {
        me,
        sealing_secret: Zeroizing::new(birth.sealing_secret()),
        first_session: (seed >> 8) as u32,
        direct: true,
    })
}

impl Node {
    pub(crate) fn new(start: Start) -> Self {
        let Start {
            birth,
            mut disk,
            true_ms,
            skew_ms,
            seed,
            view_every_ms,
            carries,
            rtt_by_cloud_us,
            mutant,
        } = start;
        let mut clock = Clock { read_ms: true_ms, mono_ms: 0, skew_ms };
        let now = clock.read(true_ms);
        let timers = Timers::default();
        let key = selvedge_fabric::key::Signer::public_key(&birth.key);
        let me = key.node_id();
        let policy = disk.policy.clone();
        let store = disk.facts();
        let incarnation = disk.incarnation.max(store.incarnation(me));
        let router = router(me, &birth, seed);
        let replica =
            Replica::new(me, std::mem::take(&mut disk.log), seed.rotate_left(17), mutant, now.mono_ms);
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
            gossip: Gossip::new(store, own, timers.exchange_ms, seed.rotate_left(7)),
            outlook: Outlook::new(me, timers, now),
            views: ViewBuilder::new(birth.name.clone()),
            view: Arc::default(),
            rtt_us: BTreeMap::new(),
            health: Health::Passing,
            done: Done::default(),
            dirty: true,
            local: Local { me: Some(birth.name.clone()), tun: true, ..Local::default() },
            prepared: None,
            plan: None,
            inputs: Default::default(),
            plans_made: 0,
            plans_seen: 0,
            named_by: None,
            index: None,
            gate: Twin::default(),
            carries,
            router,
            links_told: Vec::new(),
            links_told_us: 0,
            delivered: Vec::new(),
            frames: Vec::new(),
            routed_revision: 0,
            first_verdicts: None,
            replica,
            out: Vec::new(),
            birth,
        };
        node.disk.incarnation = node.gossip.own().incarnation();
        node.begin(seed, now);
        node
    }

    /// What is left when its process ends.
    pub(crate) fn into_disk(mut self) -> Disk {
        if self.mutant == Some(Mutant::ForgottenVotes) {
            self.replica.forget_votes();
        }
        Disk { log: self.replica.stored, ..self.disk }
    }

    /// A wall clock that somebody sets.
    pub(crate) const fn set_skew(&mut self, skew_ms: i64) {
        self.clock.skew_ms = skew_ms;
    }

    /// What it has for its verdict on `other`, for a report.
    pub(crate) fn sight_of(&self, other: NodeId) -> String {
        let swim = self.outlook.detector.iter().flat_map(Detector::states).find(|(id, _)| *id == other);
        let seen = self.outlook.watch.seen(other, self.clock.mono_ms);
        let heard = self.outlook.watch.heard_ms(other);
        let incarnation = self.gossip.store().incarnation(other);
        format!(
            "incarnation {incarnation}, swim {:?}, seen {seen:?}, heard at {heard:?} of {}",
            swim.map(|(_, swim)| swim),
            self.clock.mono_ms
        )
    }

    /// Its monotonic time.
    pub(crate) const fn mono_ms(&self) -> u64 {
        self.clock.mono_ms
    }

    /// Seconds since its start, as flow tables count.
    pub(crate) const fn uptime_s(&self) -> u32 {
        (self.clock.mono_ms / 1_000) as u32
    }

    /// Whether it has heard of `other` itself since its start.
    pub(crate) fn has_heard(&self, other: NodeId) -> bool {
        let of_swim = || self.outlook.detector.iter().any(|d| d.states().any(|(id, _)| id == other));
        self.outlook.watch.heard_ms(other).is_some() || of_swim()
    }
}
