//! The endpoints of this node: registered by whoever holds a service token, kept on disk, checked,
//! and announced. They live and die without any quorum.

pub mod check;
mod register;
mod store;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use register::{Families, RegisterError, Registration, Reservation};
use selvedge_fabric::{
    id::EndpointId,
    record::{EndpointFact, Health},
};
pub use store::{Registered, StoreError};
use tokio::{sync::watch, task::JoinSet};

use self::{
    check::{Check, Judge},
    store::Store,
};
use crate::{clock, identity::DataDir};

/// How often due checks and leases are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Most checks of one endpoint.
const MAX_CHECKS: usize = 8;

/// The endpoints of this node.
#[derive(Clone)]
pub struct Endpoints {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    table: Mutex<BTreeMap<EndpointId, Registered>>,
    /// Chosen and proven, but not there yet: their names and addresses are nobody else's meanwhile.
    reserved: Mutex<BTreeMap<EndpointId, Registered>>,
    facts: watch::Sender<Arc<Vec<EndpointFact>>>,
    /// From where some addresses must be asked for their health.
    sources: Mutex<BTreeMap<IpAddr, IpAddr>>,
}

impl Endpoints {
    /// Reads the endpoints that were registered before. Their health is unknown until checked.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub fn open(dir: &DataDir) -> Result<Self, StoreError> {
        let store = Store::new(dir.endpoints());
        let mut table = store.load()?;
        for endpoint in table.values_mut() {
            endpoint.fact.health = initial_health(&endpoint.checks);
        }
        let (facts, _) = watch::channel(Arc::new(facts_of(&table)));
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                table: Mutex::new(table),
                reserved: Mutex::default(),
                facts,
                sources: Mutex::default(),
            }),
        })
    }

    /// What to announce; a new value with every change.
    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Arc<Vec<EndpointFact>>> {
        self.inner.facts.subscribe()
    }

    /// Takes an endpoint away. `false` when there is none of that name.
    ///
    /// # Errors
    /// When the change cannot be made durable; nothing has changed then.
    pub fn deregister(&self, id: &EndpointId) -> Result<bool, StoreError> {
        self.inner.change(|table| table.remove(id).is_some())
    }

    /// Asks these addresses for their health from those that stand beside them, and all others from where
    /// the kernel would.
    pub fn probe_from(&self, sources: BTreeMap<IpAddr, IpAddr>) {
        *self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// Runs the checks, for ever.
    pub async fn check_forever(self) {
        let mut due: BTreeMap<(EndpointId, usize), Slot> = BTreeMap::new();
        let mut running = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.end_leases();
                    self.start_due(&mut due, &mut running);
                }
                Some(result) = running.join_next() => {
                    let Ok((key, passed)) = result else { continue };
                    let Some(slot) = due.get_mut(&key) else { continue };
                    slot.busy = false;
                    slot.judge.observe(passed);
                    let mine = due.range((key.0.clone(), 0)..=(key.0.clone(), usize::MAX));
                    let health = mine.map(|(_, slot)| slot.judge.health()).max().unwrap_or(Health::Unknown);
                    self.inner.set_health(&key.0, health);
                }
            }
        }
    }

    /// Starts every check whose time has come and that is not still running.
    fn start_due(
        &self,
        due: &mut BTreeMap<(EndpointId, usize), Slot>,
        running: &mut JoinSet<((EndpointId, usize), bool)>,
    ) {
        let checks = self.checks();
        due.retain(|key, _| checks.contains_key(key));
        let now = Instant::now();
        for (key, (check, address)) in checks {
            let slot =
                due.entry(key.clone()).or_insert(Slot { next: now, busy: false, judge: Judge::default() });
            if slot.busy || slot.next > now {
                continue;
            }
            slot.busy = true;
            slot.next = now + Duration::from_millis(check.interval_ms);
            let sources = self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner);
            let source = sources.get(&address).copied();
            running.spawn(async move { (key, check.run(address, source).await) });
        }
    }

    /// The checks of endpoints that have an address.
    fn checks(&self) -> BTreeMap<(EndpointId, usize), (Check, IpAddr)> {
        let table = self.inner.lock();
        let all = table.values().filter_map(|r| {
            let address = r.fact.ipv4.map(IpAddr::from).or(r.fact.ipv6.map(IpAddr::from))?;
            Some((r, address))
        });
        all.flat_map(|(r, address)| {
            let numbered = r.checks.iter().enumerate();
            numbered.map(move |(n, check)| ((r.fact.id.clone(), n), (check.clone(), address)))
        })
        .collect()
    }

    /// Takes away endpoints whose lease or proof has ended.
    fn end_leases(&self) {
        let now = clock::unix_ms();
        let ended =
            |r: &Registered| r.lease_until_ms.is_some_and(|t| t <= now) || r.fact.proof.not_after_ms <= now;
        if !self.inner.lock().values().any(ended) {
            return;
        }
        if let Err(error) = self.inner.change(|table| table.retain(|_, r| !ended(r))) {
            tracing::warn!(%error, "an endpoint whose time is over cannot be taken from disk");
        }
    }
}

/// When a check runs next, and what its results made of it.
struct Slot {
    next: Instant,
    busy: bool,
    judge: Judge,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<EndpointId, Registered>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_reserved(&self) -> MutexGuard<'_, BTreeMap<EndpointId, Registered>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and makes that durable before anybody hears of it.
    fn change<T>(
        &self,
        edit: impl FnOnce(&mut BTreeMap<EndpointId, Registered>) -> T,
    ) -> Result<T, StoreError> {
        let mut table = self.lock();
        let mut next = table.clone();
        let outcome = edit(&mut next);
        if next != *table {
            self.store.save(&next)?;
            *table = next;
            self.facts.send_replace(Arc::new(facts_of(&table)));
        }
        Ok(outcome)
    }

    /// Health is found again after a restart, so it is announced without being stored.
    fn set_health(&self, id: &EndpointId, health: Health) {
        let mut table = self.lock();
        let Some(endpoint) = table.get_mut(id).filter(|r| r.fact.health != health) else { return };
        tracing::info!(endpoint = %id, was = ?endpoint.fact.health, now = ?health, "health changed");
        endpoint.fact.health = health;
        self.facts.send_replace(Arc::new(facts_of(&table)));
    }
}

fn facts_of(table: &BTreeMap<EndpointId, Registered>) -> Vec<EndpointFact> {
    table.values().map(|r| r.fact.clone()).collect()
}

const fn initial_health(checks: &[Check]) -> Health {
    if checks.is_empty() { Health::Passing } else { Health::Unknown }
}
