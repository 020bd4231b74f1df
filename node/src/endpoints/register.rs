//! Registration: a service token in, a proven endpoint with an address out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use selvedge_fabric::{
    UnixMs,
    address::{self, Ipv4Block},
    cga::CgaParams,
    id::{EndpointId, NodeName, ServiceRef},
    policy::{Admission, FabricParams, PolicyState},
    record::{EndpointFact, EndpointPort, MAX_ENDPOINT_PORTS, MAX_ENDPOINTS, ProofClaim},
    token::ServiceTokenText,
    view::{EndpointError, verify_endpoint},
};

use super::{
    Endpoints, MAX_CHECKS,
    check::Check,
    initial_health,
    store::{Registered, StoreError},
};

/// Characters of a made-up endpoint name's random part.
const RANDOM_CHARACTERS: usize = 6;
/// Most characters of the service's name in a made-up endpoint name.
const MAX_STEM: usize = 48;

/// What registers an endpoint.
#[derive(Debug)]
pub struct Registration {
    /// The service.
    pub service: ServiceRef,
    /// The proof of it.
    pub token: ServiceTokenText,
    /// The name; made up, when absent.
    pub id: Option<EndpointId>,
    /// Where it serves.
    pub ports: Vec<EndpointPort>,
    /// Its IPv4 address; the lowest free one of the node's block, when absent.
    pub address: Option<Ipv4Addr>,
    /// How its health is found.
    pub checks: Vec<Check>,
    /// Share of new connections.
    pub weight: u16,
    /// It ends unless registered again within this many milliseconds.
    pub lease_ms: Option<u64>,
}

/// Why an endpoint cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The node has no policy yet, or is not in it.
    #[error("this node has no policy yet: try again when `selvedge status` says ready")]
    NotReady,
    /// The token is of another fabric or service.
    #[error("{0}")]
    Token(String),
    /// The proof or an address would be refused everywhere.
    #[error("{0}")]
    Refused(#[from] EndpointError),
    /// A bound is exceeded.
    #[error("{what}: at most {limit} on one node")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// No address is left or the wanted one is taken.
    #[error("{0}")]
    Address(String),
    /// The name is being registered at this moment.
    #[error("endpoint {0} is being registered by somebody else at this moment")]
    Busy(EndpointId),
    /// The name is taken by another service.
    #[error("endpoint {0} exists already, for another service")]
    Taken(EndpointId),
    /// It cannot be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Endpoints {
    /// Registers an endpoint, or replaces one of the same name and service.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn register(
        &self,
        registration: &Registration,
        policy: &PolicyState,
        me: &NodeName,
        now_ms: UnixMs,
    ) -> Result<Registered, RegisterError> {
        self.reserve(registration, policy, me, now_ms, Families::Ipv4)?.register()
    }

    /// Chooses name and addresses of an endpoint and proves it, without anybody hearing of it: what has
    /// yet to be attached gets its addresses, and is announced, only when that has succeeded.
    ///
    /// # Errors
    /// Why not.
    pub fn reserve(
        &self,
        registration: &Registration,
        policy: &PolicyState,
        me: &NodeName,
        now_ms: UnixMs,
        families: Families,
    ) -> Result<Reservation, RegisterError> {
        check_bounds(registration)?;
        let (params, admission) =
            policy.params.as_ref().zip(policy.nodes.get(me)).ok_or(RegisterError::NotReady)?;
        let block = address::block_of(params, admission).ok_or(RegisterError::NotReady)?;
        let id = registration.id.clone().unwrap_or_else(|| made_up_name(&registration.service));
        // Held to the end: two registrations at once must not choose the same address.
        let mut reserved = self.inner.lock_reserved();
        let mut taken = self.inner.lock().clone();
        if reserved.contains_key(&id) {
            return Err(RegisterError::Busy(id));
        }
        taken.extend(reserved.clone());
        let ipv4 = place(&taken, registration, &id, &block)?;
        let fact = prove(registration, params, admission, id, ipv4, families)?;
        verify_endpoint(policy, me, &fact, now_ms)?;
        let registered = Registered {
            fact,
            checks: registration.checks.clone(),
            lease_until_ms: registration.lease_ms.map(|ms| now_ms.saturating_add(ms)),
            lease_ms: registration.lease_ms,
        };
        reserved.insert(registered.fact.id.clone(), registered.clone());
        Ok(Reservation { endpoints: self.clone(), registered })
    }
}

/// Which addresses an endpoint gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone: without a data plane there is nothing an IPv6 overlay address would lead to.
    Ipv4,
    /// Both.
    Both,
}

/// An endpoint that is not announced yet. Dropping it gives its name and addresses back.
pub struct Reservation {
    endpoints: Endpoints,
    registered: Registered,
}

impl Reservation {
    /// What is going to be announced.
    #[must_use]
    pub const fn fact(&self) -> &EndpointFact {
        &self.registered.fact
    }

    /// Makes it durable and announces it.
    ///
    /// # Errors
    /// When it cannot be made durable; nothing has changed then.
    pub fn register(self) -> Result<Registered, RegisterError> {
        let registered = self.registered.clone();
        self.endpoints.inner.change(|table| {
            table.insert(registered.fact.id.clone(), registered.clone());
        })?;
        Ok(registered)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.endpoints.inner.lock_reserved().remove(&self.registered.fact.id);
    }
}

/// Whether there is room for an endpoint of this name, and at which address.
fn place(
    table: &BTreeMap<EndpointId, Registered>,
    registration: &Registration,
    id: &EndpointId,
    block: &Ipv4Block,
) -> Result<Ipv4Addr, RegisterError> {
    let old = table.get(id);
    if old.is_some_and(|r| r.fact.service != registration.service) {
        return Err(RegisterError::Taken(id.clone()));
    }
    if old.is_none() && table.len() >= MAX_ENDPOINTS {
        return Err(RegisterError::Limit { what: "endpoints", limit: MAX_ENDPOINTS });
    }
    let others = table.values().filter(|r| r.fact.id != *id);
    let taken = others.filter_map(|r| r.fact.ipv4).collect();
    let wanted = registration.address.or(old.and_then(|r| r.fact.ipv4));
    choose_address(block, &taken, wanted)
}

fn check_bounds(registration: &Registration) -> Result<(), RegisterError> {
    if registration.ports.len() > MAX_ENDPOINT_PORTS {
        return Err(RegisterError::Limit { what: "ports of an endpoint", limit: MAX_ENDPOINT_PORTS });
    }
    if registration.checks.len() > MAX_CHECKS {
        return Err(RegisterError::Limit { what: "checks of an endpoint", limit: MAX_CHECKS });
    }
    Ok(())
}

fn prove(
    registration: &Registration,
    params: &FabricParams,
    admission: &Admission,
    id: EndpointId,
    ipv4: Ipv4Addr,
    families: Families,
) -> Result<EndpointFact, RegisterError> {
    let token = &registration.token;
    if token.fabric != params.id {
        return Err(RegisterError::Token(format!("the token is of another fabric ({})", token.fabric)));
    }
    if token.service != registration.service {
        let problem = format!("the token is for {}, not for {}", token.service, registration.service);
        return Err(RegisterError::Token(problem));
    }
    let cga = CgaParams { modifier: rand::random(), collision_count: 0 };
    let claim = ProofClaim {
        fabric: &params.id,
        service: &registration.service,
        node: &admission.key,
        endpoint: &id,
        cga: &cga,
        not_after_ms: token.not_after_ms,
    };
    let proof = claim.sign(token.id, &token.signing_key());
    Ok(EndpointFact {
        service: registration.service.clone(),
        ports: registration.ports.clone(),
        ipv4: Some(ipv4),
        ipv6: (families == Families::Both)
            .then(|| address::endpoint_ipv6(params, &admission.zone, &admission.key, &cga)),
        cga,
        health: initial_health(&registration.checks),
        weight: registration.weight,
        proof,
        id,
    })
}

fn choose_address(
    block: &Ipv4Block,
    taken: &BTreeSet<Ipv4Addr>,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, RegisterError> {
    match wanted {
        Some(address) if !block.is_for_endpoint(address) => {
            Err(RegisterError::Address(format!("{address} is not of this node's block {block}")))
        }
        Some(address) if taken.contains(&address) => {
            Err(RegisterError::Address(format!("{address} is taken by another endpoint of this node")))
        }
        Some(address) => Ok(address),
        None => {
            let free = block.endpoint_addresses().find(|a| !taken.contains(a));
            free.ok_or_else(|| {
                RegisterError::Address(format!("no address is free in the node's block {block}"))
            })
        }
    }
}

/// `<service>-<random>`: readable, and unique for all practical purposes.
fn made_up_name(service: &ServiceRef) -> EndpointId {
    const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let stem: String = service.name.as_str().chars().take(MAX_STEM).collect();
    loop {
        let random: [u8; RANDOM_CHARACTERS] = rand::random();
        let tail: String =
            random.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect();
        // The parts are labels, so the whole is one too, and the loop ends at its first turn.
        if let Ok(name) = EndpointId::new(&format!("{stem}-{tail}")) {
            return name;
        }
    }
}
