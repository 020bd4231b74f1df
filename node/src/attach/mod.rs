//! Attachments: workloads whose every packet is decided by their identity.
//!
//! Attaching is a sequence that may end anywhere, also by a crash, so each step leaves only what the next
//! start can undo: the intention is written to disk, the wire is laid with its gate in place first, names
//! are set up, and only then is the endpoint announced. Detaching is the same backwards. What vanishes by
//! itself, because a container ended, is noticed and detached.

pub mod group;
pub mod resolver;
pub mod store;
mod target;
mod tend;
mod tree;
pub mod wiring;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use selvedge_dataplane::Place as Guarded;
use selvedge_fabric::{
    address,
    event::{EventSink as _, Severity},
    id::{EndpointId, NodeName},
    key::FabricId,
    planner::Local,
    policy::PolicyState,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use self::{
    group::{GroupError, Owner},
    resolver::ResolverError,
    store::{Attachment, Store, StoreError},
    target::Target,
    wiring::{WireError, Wiring},
};
use crate::{
    clock,
    endpoints::{Endpoints, Families, RegisterError, Registration},
    events::Events,
    gateway::Gateway,
    identity::DataDir,
    net::{NamespaceError, NetError, Netlink, Subnet},
    packets::{PacketError, Packets},
};

/// Most attachments of a node.
pub const MAX_ATTACHMENTS: usize = 256;
/// How long a plan that knows a new endpoint may take to come into force. It takes milliseconds, unless
/// the machine is overloaded or the kernel refuses the plan.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(10);

/// Where a workload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In a network namespace, by its file.
    Netns(PathBuf),
    /// In the network namespace of a process.
    Pid(u32),
    /// Behind an interface of this host, a tap(4) or the near end of a veth(4): its other side configures
    /// itself.
    Interface(String),
    /// In a control group of this host, made for it: a process tree in the host's own network.
    Group,
}

/// What to attach.
pub struct Request {
    /// As which endpoint.
    pub registration: Registration,
    /// What.
    pub place: Place,
    /// Whether to set up its name resolution.
    pub resolver: bool,
}

/// What was attached.
#[derive(Debug)]
pub struct Attached {
    /// As it is kept.
    pub attachment: Attachment,
    /// Where it finds DNS and workload API.
    pub gateways: Vec<IpAddr>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// Why something could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The endpoint cannot be had.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The namespace is the host's.
    #[error("{0} is the network of this host itself: attach a namespace of its own, or use `selvedge run`")]
    Own(String),
    /// The wire cannot be laid.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Its packets cannot be decided, so it gets none.
    #[error("its packets could not be enforced, so it got no address: {0}")]
    Enforce(#[from] PacketError),
    /// Names cannot be set up.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// There is no control group to be had.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// It cannot be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The gateway does not serve.
    #[error("the gateway of its workload cannot serve: {0}")]
    Gateway(String),
    /// Too many.
    #[error("at most {MAX_ATTACHMENTS} workloads can be attached to one node")]
    Limit,
    /// The name is in use.
    #[error("endpoint {0} is attached already; detach it first, or choose another --id")]
    Attached(EndpointId),
    /// There is none.
    #[error("endpoint {0} is not attached to this node")]
    Unknown(EndpointId),
}

/// The attachments of this node.
pub struct Attachments {
    me: NodeName,
    owner: Owner,
    store: Store,
    /// One change at a time, however long it takes.
    table: Mutex<BTreeMap<EndpointId, Attachment>>,
    endpoints: Endpoints,
    packets: Packets,
    gateway: Gateway,
    policy: watch::Receiver<Arc<PolicyState>>,
    local: watch::Sender<Local>,
    events: Events,
}

/// What [`Attachments`] work with.
pub struct Parts {
    /// This node.
    pub me: NodeName,
    /// Its fabric.
    pub fabric: FabricId,
    /// Its endpoints.
    pub endpoints: Endpoints,
    /// What decides packets.
    pub packets: Packets,
    /// What serves workloads.
    pub gateway: Gateway,
    /// The policy.
    pub policy: watch::Receiver<Arc<PolicyState>>,
    /// Where to tell which addresses are attached.
    pub local: watch::Sender<Local>,
    /// Where to tell what happened.
    pub events: Events,
}

impl Attachments {
    /// Takes up what was attached before: what is still there goes on, without a packet lost, what is not
    /// is taken away.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub async fn open(dir: &DataDir, parts: Parts) -> Result<Self, AttachError> {
        let store = Store::new(dir.attachments());
        let table = store.load()?;
        let Parts { me, fabric, endpoints, packets, gateway, policy, local, events } = parts;
        let (owner, table) = (Owner { fabric, node: me.clone() }, Mutex::new(table));
        let this = Self { me, owner, store, table, endpoints, packets, gateway, policy, local, events };
        this.guard().await;
        this.end_leftovers().await;
        this.tend().await;
        let table = this.table.lock().await;
        if !table.is_empty()
            && let Err(error) = this.gateway.serve(&this.gateways())
        {
            this.events.emit(Severity::Warning, "gateway", this.me.as_str(), error);
        }
        drop(table);
        Ok(this)
    }

    /// The addresses of what was attached before.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub fn addresses_of_before(dir: &DataDir) -> Result<BTreeSet<IpAddr>, AttachError> {
        let table = Store::new(dir.attachments()).load()?;
        let whole = table.into_values().filter(Attachment::is_whole);
        Ok(whole.flat_map(|attachment| attachment.addresses).collect())
    }

    /// Everything that is attached, by endpoint.
    pub async fn list(&self) -> Vec<Attachment> {
        self.table.lock().await.values().cloned().collect()
    }

    /// Attaches a workload. When it returns, packets of this node are judged by a plan that knows the
    /// endpoint: its first packet finds its identity.
    ///
    /// # Errors
    /// Why not; nothing is left behind then.
    pub async fn attach(&self, request: &Request) -> Result<Attached, AttachError> {
        let mut table = self.table.lock().await;
        if table.len() >= MAX_ATTACHMENTS {
            return Err(AttachError::Limit);
        }
        if let Some(id) = request.registration.id.as_ref().filter(|id| table.contains_key(id)) {
            return Err(AttachError::Attached(id.clone()));
        }
        let target = Target::find(&request.place)?;
        let policy = self.policy.borrow().clone();
        let now = clock::unix_ms();
        let reservation =
            self.endpoints.reserve(&request.registration, &policy, &self.me, now, Families::Both)?;
        let fact = reservation.fact();
        let addresses = [fact.ipv4.map(IpAddr::from), fact.ipv6.map(IpAddr::from)];
        let addresses: Vec<_> = addresses.into_iter().flatten().collect();
        let mut attachment = Attachment {
            endpoint: fact.id.clone(),
            service: fact.service.clone(),
            place: request.place.clone(),
            interface: target.interface(&fact.id),
            index: 0,
            addresses,
            resolver: None,
            group: target.group(&self.owner, &fact.id)?,
        };
        // From here on a crash leaves something behind, so what it is comes first.
        self.keep(&mut table, attachment.clone())?;
        let laid = self.lay(&target, &mut attachment, request.resolver).await;
        let warnings = match laid.and_then(|warnings| {
            reservation.register()?;
            Ok(warnings)
        }) {
            Ok(warnings) => warnings,
            Err(error) => {
                self.undo(&attachment).await;
                self.forget(&mut table, &attachment.endpoint);
                return Err(error);
            }
        };
        self.keep(&mut table, attachment.clone())?;
        drop(table);
        if let Err(error) =
            self.packets.know(&attachment.endpoint, &attachment.addresses, IN_FORCE_LIMIT).await
        {
            // Gone already when somebody detached it meanwhile.
            let _ = self.detach(&attachment.endpoint).await;
            return Err(error.into());
        }
        tracing::info!(endpoint = %attachment.endpoint, interface = attachment.interface, "attached");
        Ok(Attached { attachment, gateways: self.gateways(), warnings })
    }

    /// Detaches a workload and deregisters its endpoint.
    ///
    /// # Errors
    /// When it is not attached or the change cannot be made durable.
    pub async fn detach(&self, endpoint: &EndpointId) -> Result<(), AttachError> {
        let mut table = self.table.lock().await;
        let attachment =
            table.get(endpoint).cloned().ok_or_else(|| AttachError::Unknown(endpoint.clone()))?;
        // Nobody is sent there any more before it is gone.
        self.endpoints.deregister(endpoint).map_err(RegisterError::from)?;
        self.undo(&attachment).await;
        self.forget(&mut table, endpoint);
        tracing::info!(%endpoint, "detached");
        Ok(())
    }

    /// Whether an endpoint is attached.
    pub async fn is_attached(&self, endpoint: &EndpointId) -> bool {
        self.table.lock().await.contains_key(endpoint)
    }

    /// Everything of attaching that touches the kernel.
    async fn lay(
        &self,
        target: &Target,
        attachment: &mut Attachment,
        resolver: bool,
    ) -> Result<Vec<String>, AttachError> {
        let wiring = self.wiring(attachment)?;
        let packets = self.packets.clone();
        let workload = packets.workload(&attachment.service, &attachment.addresses, &wiring.gateways);
        if attachment.group.is_some() {
            self.lay_tree(&wiring, attachment, workload?).await?;
            return Ok(Vec::new());
        }
        let gate = async |link: &crate::net::Link| -> Result<(), AttachError> {
            Ok(packets.gate(link, workload?).await?)
        };
        let link = match target {
            Target::Namespace { inside, .. } => wiring.lay(inside, gate).await?,
            Target::Interface(name) => wiring.lay_to(name, gate).await?,
            Target::Group => return Ok(Vec::new()),
        };
        attachment.index = link.index;
        self.gateway.serve(&wiring.gateways).map_err(AttachError::Gateway)?;
        match target {
            Target::Namespace { names: resolver::Place::Own(file), .. } if resolver => {
                file.set_up(&wiring.gateways)?;
                attachment.resolver = Some(file.clone());
                Ok(Vec::new())
            }
            Target::Namespace { names: resolver::Place::Shared(why), .. } if resolver => {
                Ok(vec![format!("its name resolution was not set up: {why}")])
            }
            Target::Interface(_) => {
                let list =
                    |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Ok(vec![format!(
                    "what is behind {} configures itself: addresses {}, gateway and DNS {}, MTU {}",
                    attachment.interface,
                    list(&attachment.addresses),
                    list(&wiring.gateways),
                    wiring.mtu
                )])
            }
            Target::Namespace { .. } | Target::Group => Ok(Vec::new()),
        }
    }

    /// Takes away everything that [`Self::lay`] may have made. What does not work is told, and does not
    /// stop the rest.
    async fn undo(&self, attachment: &Attachment) {
        let tell = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(%error, endpoint = %attachment.endpoint, "cannot {what}");
        };
        if let Some(Err(error)) = attachment.resolver.as_ref().map(resolver::ResolvConf::put_back) {
            tell("put its resolv.conf back", &error);
        }
        if let Some(group) = &attachment.group {
            return self.undo_tree(attachment, group).await;
        }
        let ours = !matches!(attachment.place, Place::Interface(_));
        match Netlink::open() {
            Ok(netlink) if ours => {
                if let Err(error) = netlink.delete_link(&attachment.interface).await {
                    tell("delete its interface", &error);
                }
            }
            // Somebody else's interface stays; what was routed to it does not.
            Ok(netlink) => {
                for address in &attachment.addresses {
                    match netlink.delete_route(Subnet::host(*address)).await {
                        Err(error) if !error.is_absent() => tell("delete its route", &error),
                        _ => {}
                    }
                }
            }
            Err(error) => tell("delete its interface", &error),
        }
        if let Err(error) = self.packets.ungate(Guarded::Interface(attachment.index)).await {
            tell("take its gate away", &error);
        }
    }

    fn wiring(&self, attachment: &Attachment) -> Result<Wiring, AttachError> {
        let policy = self.policy.borrow().clone();
        let params = policy.params.as_ref().ok_or(RegisterError::NotReady)?;
        let (pool, pool_len) = address::Ipv4Pool::of(params).map_err(|_| RegisterError::NotReady)?.range();
        let mut prefix = [0; 16];
        prefix[..params.ula_prefix.len()].copy_from_slice(&params.ula_prefix);
        Ok(Wiring {
            endpoint: attachment.endpoint.clone(),
            addresses: attachment.addresses.clone(),
            gateways: self.gateways(),
            ranges: vec![
                Subnet { address: pool.into(), len: pool_len },
                Subnet { address: IpAddr::from(prefix), len: 48 },
            ],
            mtu: self.packets.mtu(),
        })
    }

    /// This node's own overlay addresses.
    fn gateways(&self) -> Vec<IpAddr> {
        let policy = self.policy.borrow().clone();
        let Some((params, admission)) = policy.params.as_ref().zip(policy.nodes.get(&self.me)) else {
            return Vec::new();
        };
        let ipv4 = address::block_of(params, admission).map(|block| block.node_address().into());
        let ipv6 = address::node_ipv6(params, &admission.zone, &admission.key);
        ipv4.into_iter().chain([ipv6.into()]).collect()
    }

    fn keep(
        &self,
        table: &mut BTreeMap<EndpointId, Attachment>,
        attachment: Attachment,
    ) -> Result<(), StoreError> {
        table.insert(attachment.endpoint.clone(), attachment);
        self.store.save(table)?;
        self.publish(table);
        Ok(())
    }

    fn forget(&self, table: &mut BTreeMap<EndpointId, Attachment>, endpoint: &EndpointId) {
        table.remove(endpoint);
        self.publish(table);
        if let Err(error) = self.store.save(table) {
            // The next start finds that it is gone, and takes it away once more.
            tracing::warn!(%error, %endpoint, "a detached endpoint cannot be taken from disk");
        }
    }

    /// Tells the planner which addresses are known to be whose.
    fn publish(&self, table: &BTreeMap<EndpointId, Attachment>) {
        self.endpoints.probe_from(self.probe_sources(table));
        let whole = table.values().filter(|a| a.is_whole());
        let attached: BTreeSet<_> = whole.flat_map(|a| a.addresses.iter().copied()).collect();
        self.local.send_if_modified(|local| {
            let before = (local.tun, local.attached.take());
            local.tun |= self.packets.is_on();
            local.attached = Some(attached);
            before != (local.tun, local.attached.clone())
        });
    }
}

impl From<NetError> for AttachError {
    fn from(error: NetError) -> Self {
        Self::Wire(error.into())
    }
}
