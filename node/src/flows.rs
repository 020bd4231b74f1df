//! The flow log: what the data plane opened, refused and cut on this node, with names in place of numbers.
//!
//! The kernel tells of packets; people think of flows. What happens to one flow again and again within
//! 200 ms is one record with its packets and bytes added up. The newest [`KEPT_FLOWS`] records are kept.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use selvedge_dataplane::{
    Events, FlowEvent,
    abi::{Direction, Identity, Mode, Note, Reason},
};
use selvedge_fabric::{
    compile::Origin,
    id::{NodeName, ServiceRef},
    plan::Plan,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{api::types, clock};

/// Records kept.
pub const KEPT_FLOWS: usize = 16_384;
/// For how long what happens to a flow is added up.
const WINDOW: Duration = Duration::from_millis(200);
/// Most flows that are added up at once; beyond, records are made at once.
const MAX_OPEN: usize = 4_096;

/// The flow log of this node.
#[derive(Clone)]
pub struct Flows {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Mutex<VecDeque<types::FlowItem>>,
    newest: watch::Sender<u64>,
}

impl Default for Flows {
    fn default() -> Self {
        let (newest, _) = watch::channel(0);
        Self { inner: Arc::new(Inner { ring: Mutex::default(), newest }) }
    }
}

/// Which records are wanted. All that are given must match.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Sent by this service.
    pub from: Option<ServiceRef>,
    /// Sent to this service.
    pub to: Option<ServiceRef>,
    /// `allow` or `deny`.
    pub verdict: Option<String>,
}

impl Wanted {
    fn matches(&self, item: &types::FlowItem) -> bool {
        let is = |wanted: &Option<ServiceRef>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.to_string() == name)
        };
        is(&self.from, &item.from)
            && is(&self.to, &item.to)
            && self.verdict.as_ref().is_none_or(|verdict| *verdict == item.verdict)
    }
}

impl Flows {
    /// Records after `since`, oldest first: the newest `limit` of them, with the number to go on from.
    #[must_use]
    pub fn after(&self, since: u64, limit: usize, wanted: &Wanted) -> types::FlowPage {
        let ring = self.inner.lock();
        let newest = ring.back().map_or(0, |item| item.sequence);
        let matching = ring.iter().rev().take_while(|item| item.sequence > since);
        let mut flows: Vec<_> = matching.filter(|item| wanted.matches(item)).take(limit).cloned().collect();
        flows.reverse();
        types::FlowPage { newest, flows }
    }

    /// Number of the newest record, 0 when there is none.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.inner.newest.subscribe()
    }

    /// Reads what the kernel tells until `stop`.
    pub async fn run(
        self,
        mut events: Events,
        me: NodeName,
        plan: watch::Receiver<Arc<Plan>>,
        stop: CancellationToken,
    ) {
        let reading = async {
            let mut open = Open::default();
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Ok(event) => {
                            let item = || item(&event, &me, &plan.borrow());
                            if let Some(full) = open.add(&event, item) {
                                self.inner.append(full);
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, "the flow log ends: the kernel's events cannot be read");
                            return;
                        }
                    },
                    () = open.due() => open.drain().for_each(|item| self.inner.append(item)),
                }
            }
        };
        stop.run_until_cancelled(reading).await;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, VecDeque<types::FlowItem>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, mut item: types::FlowItem) {
        let mut ring = self.lock();
        if ring.len() == KEPT_FLOWS {
            ring.pop_front();
        }
        item.sequence = ring.back().map_or(0, |last| last.sequence) + 1;
        self.newest.send_replace(item.sequence);
        ring.push_back(item);
    }
}

/// What makes two events one record.
type Key = (IpAddr, IpAddr, u8, u16, Note, Reason, Direction);

/// Records that are being added up.
#[derive(Default)]
struct Open {
    records: BTreeMap<Key, types::FlowItem>,
    until: Option<Instant>,
}

impl Open {
    /// Adds an event; gives back a record when there is no room to add up.
    fn add(&mut self, event: &FlowEvent, item: impl FnOnce() -> types::FlowItem) -> Option<types::FlowItem> {
        let FlowEvent { source, destination, protocol, destination_port, note, reason, direction, .. } =
            *event;
        let key = (source, destination, protocol, destination_port, note, reason, direction);
        if let Some(record) = self.records.get_mut(&key) {
            record.packets += 1;
            record.bytes += u64::from(event.bytes);
            return None;
        }
        if self.records.len() >= MAX_OPEN {
            return Some(item());
        }
        self.until.get_or_insert_with(|| Instant::now() + WINDOW);
        self.records.insert(key, item());
        None
    }

    /// Returns when the records are to be closed.
    async fn due(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = types::FlowItem> + use<> {
        self.until = None;
        std::mem::take(&mut self.records).into_values()
    }
}

/// A record of an event, with names as the plan of now has them.
fn item(event: &FlowEvent, me: &NodeName, plan: &Plan) -> types::FlowItem {
    let rule = plan.verdicts.rule(event.rule);
    let contract = rule.and_then(|rule| match &rule.origin {
        Origin::Contract(contract) => Some(contract.to_string()),
        Origin::Guardrail(_) => None,
    });
    types::FlowItem {
        sequence: 0,
        time: types::rfc3339(unix_ms(event.time_ns)),
        node: me.to_string(),
        from: name(event.source_identity, event.source, plan),
        to: name(event.destination_identity, event.destination, plan),
        source: address(event.source, event.source_port),
        destination: address(event.destination, event.destination_port),
        port: port(event.protocol, event.destination_port),
        verdict: if event.reason.allows() { "allow" } else { "deny" }.to_owned(),
        reason: event.reason.name().to_owned(),
        contract,
        rule: rule.map(|rule| rule.origin.to_string()),
        mode: match event.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
            Mode::Learn => "learn",
        }
        .to_owned(),
        direction: match event.direction {
            Direction::Leaving => "leaving",
            Direction::Arriving => "arriving",
        }
        .to_owned(),
        event: match event.note {
            Note::Opened => "opened",
            Note::Cut => "cut",
            Note::Refused | Note::None => "refused",
        }
        .to_owned(),
        revision: event.revision,
        packets: 1,
        bytes: u64::from(event.bytes),
    }
}

/// The service, or the address of somebody who is none.
fn name(identity: Identity, address: IpAddr, plan: &Plan) -> String {
    plan.verdicts.service(identity).map_or_else(|| address.to_string(), ToString::to_string)
}

fn address(address: IpAddr, port: u16) -> String {
    match (address, port) {
        (address, 0) => address.to_string(),
        (IpAddr::V4(address), port) => format!("{address}:{port}"),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
    }
}

/// The port as contracts write it.
fn port(protocol: u8, port: u16) -> String {
    match protocol {
        6 => format!("tcp/{port}"),
        17 => format!("udp/{port}"),
        1 | 58 => "icmp".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// The kernel's monotonic time as time of day.
fn unix_ms(monotonic_ns: u64) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns =
        u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    clock::unix_ms().saturating_sub(now_ns.saturating_sub(monotonic_ns) / 1_000_000)
}
