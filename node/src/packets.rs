//! The data plane as the daemon uses it: opened where it can be, told the plan, asked to guard.
//!
//! Everything that touches the kernel's tables blocks, so it runs on threads made for that, one call at a
//! time. When the daemon ends, what is pinned goes on deciding packets by the last plan.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use selvedge_dataplane::{
    Change, Counters, Dataplane, DataplaneError, Events as FlowEvents, ImageError, Options, Place,
    TableImage, Workload,
};
use selvedge_fabric::{
    Revision,
    event::{EventSink as _, Severity},
    id::{EndpointId, NodeName, ServiceRef},
    plan::Plan,
};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{config::PacketsMode, events::Events, net::Link};

/// Why packets cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// There is no data plane on this node.
    #[error("this node has no data plane: {0}")]
    Off(String),
    /// The service is not in the policy.
    #[error("{0} is no service at revision {1}: apply it first")]
    UnknownService(ServiceRef, u64),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] DataplaneError),
    /// The plan is too large for it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The plan that knows the endpoint is not in force.
    #[error("within {limit_s} s no plan came into force that knows the addresses of {endpoint}")]
    NotInForce {
        /// The endpoint.
        endpoint: EndpointId,
        /// How long was waited, seconds.
        limit_s: u64,
    },
    /// The thread that was to do it ended.
    #[error("a task of the data plane ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The data plane of this node, if it has one.
#[derive(Clone)]
pub struct Packets {
    me: NodeName,
    mode: PacketsMode,
    // Known from the first plan on that knows the fabric's addresses.
    state: Arc<OnceLock<State>>,
    plan: watch::Receiver<Arc<Plan>>,
    in_force: watch::Sender<Option<Arc<Plan>>>,
    /// The interface of the overlay; 0 while there is none.
    carrier: Arc<AtomicU32>,
    mtu: u32,
    api_port: u16,
}

#[derive(Clone)]
enum State {
    On(Arc<Mutex<Guarded>>),
    Off(Arc<str>),
}

/// The data plane, and what was asked to be guarded: services, whose numbers a new plan may change.
struct Guarded {
    dataplane: Dataplane,
    services: BTreeMap<Place, Guarding>,
}

/// For whom a place is guarded.
struct Guarding {
    service: ServiceRef,
    /// Of a control group, its directory.
    directory: Option<PathBuf>,
}

impl Packets {
    /// A data plane that is opened with the first plan, or adopted if an earlier life of this node left
    /// one in force.
    #[must_use]
    pub fn new(
        me: &NodeName,
        mode: PacketsMode,
        mtu: u32,
        api_port: u16,
        plan: watch::Receiver<Arc<Plan>>,
    ) -> Self {
        let (in_force, _) = watch::channel(None);
        Self {
            me: me.clone(),
            mode,
            state: Arc::default(),
            plan,
            in_force,
            carrier: Arc::default(),
            mtu,
            api_port,
        }
    }

    /// Opens the data plane, when the addresses of the fabric are known.
    ///
    /// # Errors
    /// When the configuration requires one and it cannot be had.
    fn open(&self, plan: &Plan) -> Result<(), PacketError> {
        if self.state.get().is_some() || plan.zone.ranges.is_empty() {
            return Ok(());
        }
        let state = self.open_for(plan)?;
        // Only the reconcile task opens.
        let _ = self.state.set(state);
        Ok(())
    }

    fn open_for(&self, plan: &Plan) -> Result<State, PacketError> {
        let options = Options::new(self.me.as_str());
        let loopback = plan.zone.ranges.iter().any(|(address, _)| address.is_loopback());
        let on =
            |dataplane| State::On(Arc::new(Mutex::new(Guarded { dataplane, services: BTreeMap::new() })));
        Ok(match self.mode {
            PacketsMode::Off => State::Off("it is switched off in the configuration (packets.mode)".into()),
            PacketsMode::Auto if !rustix::process::geteuid().is_root() => {
                State::Off("it needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN".into())
            }
            PacketsMode::Auto if loopback => {
                State::Off("the addresses of this fabric are loopback addresses (ipv4Pool)".into())
            }
            PacketsMode::Auto => match Dataplane::open(&options) {
                Ok(dataplane) => on(dataplane),
                Err(error) => {
                    tracing::warn!(%error, "packets are not enforced on this node; nothing can be attached");
                    State::Off(error.to_string().into())
                }
            },
            PacketsMode::Required => on(Dataplane::open(&options)?),
        })
    }

    /// Whether packets are decided on this node.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self.state.get(), Some(State::On(_)))
    }

    /// Largest packet of an endpoint, bytes.
    #[must_use]
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// What stands for an endpoint of a service in the data plane.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn workload(
        &self,
        service: &ServiceRef,
        addresses: &[IpAddr],
        gateways: &[IpAddr],
    ) -> Result<(ServiceRef, Workload), PacketError> {
        let plan = self.plan.borrow();
        let unknown = || PacketError::UnknownService(service.clone(), plan.revision);
        let identity = plan.verdicts.identity(service).ok_or_else(unknown)?;
        let ipv4 =
            |all: &[IpAddr]| all.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
        let ipv6 =
            |all: &[IpAddr]| all.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        let workload = Workload {
            identity,
            ipv4: ipv4(addresses),
            ipv6: ipv6(addresses),
            gateway_ipv4: ipv4(gateways),
            gateway_ipv6: ipv6(gateways),
            api_port: self.api_port,
            probes: true,
        };
        Ok((service.clone(), workload))
    }

    /// Decides every packet of an interface from here on.
    ///
    /// # Errors
    /// When there is no data plane or the kernel refuses.
    pub async fn gate(&self, link: &Link, workload: (ServiceRef, Workload)) -> Result<(), PacketError> {
        let (index, (service, workload)) = (link.index, workload);
        self.with(move |guarded| {
            let known = guarded.dataplane.attachments().find(|a| a.place == Place::Interface(index));
            if let Some(known) = known.filter(|known| known.workload != workload) {
                tracing::warn!(index, was = ?known.workload, is = ?workload, "its flows are forgotten");
            }
            guarded.dataplane.attach_interface(index, workload)?;
            let guarding = Guarding { service, directory: None };
            guarded.services.insert(Place::Interface(index), guarding);
            Ok(())
        })
        .await
    }

    /// Decides every packet of the processes in a control group from here on.
    ///
    /// # Errors
    /// When there is no data plane, the directory is no control group, or the kernel refuses.
    pub async fn gate_group(
        &self,
        directory: &Path,
        workload: (ServiceRef, Workload),
    ) -> Result<(), PacketError> {
        let (directory, (service, workload)) = (directory.to_owned(), workload);
        self.with(move |guarded| {
            let place = guarded.dataplane.attach_cgroup(&directory, workload)?;
            guarded.services.insert(place, Guarding { service, directory: Some(directory) });
            Ok(())
        })
        .await
    }

    /// Lets go of an interface or a control group; fine when it was not held.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn ungate(&self, place: Place) -> Result<(), PacketError> {
        if !self.is_on() {
            return Ok(());
        }
        self.with(move |guarded| {
            guarded.services.remove(&place);
            match guarded.dataplane.detach(place) {
                Err(DataplaneError::NotAttached(_)) => Ok(()),
                done => Ok(done?),
            }
        })
        .await
    }

    /// Ends what another version of this program left in force at what is not attached any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn forget_predecessors(&self) -> Result<(), PacketError> {
        if !self.is_on() {
            return Ok(());
        }
        self.with(|guarded| Ok(guarded.dataplane.forget_predecessors()?)).await
    }

    /// Puts a plan in force. When it returns, no packet is judged by an earlier one.
    ///
    /// # Errors
    /// When the plan is too large or the kernel refuses; the earlier plan is then still in force.
    pub async fn apply(&self, plan: Arc<Plan>) -> Result<(), PacketError> {
        self.open(&plan)?;
        if self.is_on() {
            let (plan, carrier) = (plan.clone(), Arc::clone(&self.carrier));
            self.with(move |guarded| {
                guarded.dataplane.set_carrier(carrier.load(Ordering::Acquire));
                guarded.renumber(&plan)?;
                Ok(guarded.dataplane.sync(TableImage::new(&plan)?)?)
            })
            .await?;
        }
        self.in_force.send_replace(Some(plan));
        Ok(())
    }

    /// Says by which interface packets of other nodes arrive. Before that none are taken.
    pub async fn carried_by(&self, ifindex: u32) {
        self.carrier.store(ifindex, Ordering::Release);
        let carrier = Arc::clone(&self.carrier);
        // Where the data plane is not open yet, the first plan does it.
        let _ = self
            .with(move |guarded| {
                guarded.dataplane.set_carrier(carrier.load(Ordering::Acquire));
                Ok(())
            })
            .await;
    }

    /// The plan in force, once there is one: no packet of this node is judged by an earlier one.
    #[must_use]
    pub fn in_force(&self) -> watch::Receiver<Option<Arc<Plan>>> {
        self.in_force.subscribe()
    }

    /// The revision in force; 0 before the first. A plan that leaves something out enforces what was before.
    #[must_use]
    pub fn revision_in_force(&self) -> Revision {
        let in_force = self.in_force.borrow();
        in_force.as_ref().map_or(0, |plan| plan.revision.saturating_sub(u64::from(!plan.whole)))
    }

    /// Waits until packets of this node are judged by a plan in which these addresses are the endpoint's.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn know(
        &self,
        endpoint: &EndpointId,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<(), PacketError> {
        let knows = |plan: &Plan| {
            let is_its =
                |address| plan.identities.get(address).is_some_and(|bound| bound.endpoint == *endpoint);
            addresses.iter().all(is_its)
        };
        let mut in_force = self.in_force();
        let known = in_force.wait_for(|plan| plan.as_ref().is_some_and(|plan| knows(plan)));
        match tokio::time::timeout(limit, known).await {
            Ok(Ok(_)) => Ok(()),
            // The channel is closed only with this.
            Ok(Err(_)) | Err(_) => {
                Err(PacketError::NotInForce { endpoint: endpoint.clone(), limit_s: limit.as_secs() })
            }
        }
    }

    /// Puts back what somebody took away from the kernel, and tells.
    pub async fn reassert(&self, events: &Events) {
        if !self.is_on() {
            return;
        }
        match self.with(|guarded| Ok(guarded.dataplane.reassert()?)).await {
            Ok(changes) => {
                for text in changes.iter().filter_map(disturbance) {
                    events.emit(Severity::Security, "enforcement-removed", "dataplane", text);
                }
            }
            Err(error) => {
                events.emit(Severity::Security, "enforcement-unsure", "dataplane", error.to_string());
            }
        }
    }

    /// What was counted.
    ///
    /// # Errors
    /// When there is no data plane or it cannot be read.
    pub async fn counters(&self) -> Result<Counters, PacketError> {
        self.with(|guarded| Ok(guarded.dataplane.counters()?)).await
    }

    /// The flow events, once; waits until there is a data plane. None without one.
    pub async fn events(&self) -> Option<FlowEvents> {
        // The first plan that is in force has decided whether there is one.
        let mut in_force = self.in_force();
        while self.state.get().is_none() {
            in_force.changed().await.ok()?;
        }
        let taken = self.with(|guarded| Ok(guarded.dataplane.events())).await;
        taken.inspect_err(|error| tracing::warn!(%error, "there is no flow log")).ok().flatten()
    }

    async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Guarded) -> Result<T, PacketError> + Send + 'static,
    ) -> Result<T, PacketError> {
        let guarded = match self.state.get() {
            Some(State::On(guarded)) => guarded.clone(),
            Some(State::Off(why)) => return Err(PacketError::Off(why.to_string())),
            None => return Err(PacketError::Off("it has no policy yet".to_owned())),
        };
        spawn_blocking(move || f(&mut guarded.lock().unwrap_or_else(PoisonError::into_inner))).await?
    }
}

/// What people are told of a change that was undone; an interface that is gone is no disturbance.
fn disturbance(change: &Change) -> Option<String> {
    match change {
        Change::Gone(_) => None,
        Change::Removed(place) => {
            Some(format!("somebody removed the program that guards {place}: it was put back"))
        }
        Change::Overtaken(place) => {
            Some(format!("another program was put before the one that guards {place}: ours is first again"))
        }
        Change::Unpinned(place) => {
            Some(format!("somebody removed the pin of the program that guards {place}: it was put back"))
        }
        Change::Floorless(place) => Some(format!(
            "somebody removed what drops the packets of {place} that no program judges: it was put back"
        )),
        Change::Unguarded => Some(
            "somebody removed what keeps others from the addresses of process trees: it was put back"
                .to_owned(),
        ),
    }
}

impl Guarded {
    /// A service that was deleted and made again has another number: what is attached as it follows. One
    /// that is no more is nobody, who may nothing.
    fn renumber(&mut self, plan: &Plan) -> Result<(), PacketError> {
        let attached: Vec<_> = self.dataplane.attachments().copied().collect();
        for attached in attached {
            let Some(guarding) = self.services.get(&attached.place) else { continue };
            let identity = plan.verdicts.identity(&guarding.service).unwrap_or_default();
            if identity == attached.workload.identity {
                continue;
            }
            let workload = Workload { identity, ..attached.workload };
            match (attached.place, &guarding.directory) {
                (Place::Interface(index), _) => self.dataplane.attach_interface(index, workload)?,
                (Place::Group(_), Some(directory)) => {
                    self.dataplane.attach_cgroup(directory, workload)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
