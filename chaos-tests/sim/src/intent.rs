//! What the simulated fabric is asked to be: its keys, its services, and the commands that change them.
//!
//! Services stand in a ring: service `i` serves contract `i` and is a client of contract `i + 1`. Every
//! node runs one endpoint. The commands go through the real state machine.

use std::{net::Ipv4Addr, sync::Arc};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    UnixMs, address,
    cga::CgaParams,
    command::{Admit, Apply, Command, Envelope, JoinToken, Refusal, Role, ServiceToken, TokenScope},
    id::{ContractRef, EndpointId, Name, NodeName, ServiceRef, ZoneName},
    key::{CommandId, FabricId, Hash, NodeId, PublicKey, Signer, TokenId},
    object::{
        Action, ContractRole, ContractSpec, DomainSpec, GuardrailSpec, Kind, Mode, Object, ObjectKey,
        PathSpec, PortRange, ServiceSpec, Spec,
    },
    policy::{FabricParams, PolicyState},
    record::{EndpointFact, EndpointPort, Health, ProofClaim},
};

/// The wall clock when the simulation begins.
pub(crate) const START_MS: UnixMs = 1_800_000_000_000;
/// When everything that is granted ends: long after any simulation.
const END_MS: UnixMs = START_MS + 1_000_000_000;
pub(crate) const FABRIC: FabricId = FabricId([5; 16]);
pub(crate) const SUFFIX: &str = "fabric.internal";
const DOMAIN: &str = "shop";

/// A name that is known to be one.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("names of the simulation are DNS labels")
}

/// A key made from a text; nobody else has it.
pub(crate) fn key_of(text: &str) -> SigningKey {
    SigningKey::from_bytes(&Hash::of(text.as_bytes()).0)
}

pub(crate) fn cloud(number: usize) -> Name {
    name(&format!("cloud{number}"))
}

pub(crate) fn service(number: usize) -> ServiceRef {
    ServiceRef::new(name(&format!("s{number}")), name(DOMAIN))
}

pub(crate) fn contract(number: usize) -> ContractRef {
    ContractRef::new(name(&format!("c{number}")), name(DOMAIN))
}

fn token_id(text: &str) -> TokenId {
    let hash = Hash::of(text.as_bytes());
    TokenId(std::array::from_fn(|i| hash.0[i]))
}

/// What a node is made of before anybody knows it.
#[derive(Debug, Clone)]
pub(crate) struct Birth {
    pub(crate) name: NodeName,
    pub(crate) key: SigningKey,
    pub(crate) cloud: usize,
    /// The service of which it runs an endpoint.
    pub(crate) service: usize,
}

impl Birth {
    pub(crate) fn id(&self) -> NodeId {
        self.key.public_key().node_id()
    }

    /// The secret under which packets for it are sealed.
    pub(crate) fn sealing_secret(&self) -> [u8; 32] {
        Hash::of(format!("sealing {}", self.name).as_bytes()).0
    }

    fn sealing_key(&self) -> PublicKey {
        let private = PrivateKey::from_private_key(&X25519, &self.sealing_secret()).expect("32 bytes");
        let public = private.compute_public_key().expect("an X25519 key has a public half");
        PublicKey(public.as_ref().try_into().expect("32 bytes"))
    }

    fn admit(&self) -> Admit {
        Admit {
            node: self.name.clone(),
            key: self.key.public_key(),
            sealing_key: self.sealing_key(),
            role: Role::Processor,
            zone: ZoneName::of_cloud(cloud(self.cloud)),
            token: Some(token_id(&format!("join{}", self.cloud))),
            sealed_issuer: None,
        }
    }

    /// Its endpoint, once the policy gives it addresses.
    pub(crate) fn endpoint(&self, policy: &PolicyState, health: Health) -> Option<EndpointFact> {
        let ipv4 = self.address(policy)?;
        let service = service(self.service);
        let (id, cga) = (self.endpoint_id(), CgaParams::default());
        let claim = ProofClaim {
            fabric: &FABRIC,
            service: &service,
            node: &self.key.public_key(),
            endpoint: &id,
            cga: &cga,
            not_after_ms: END_MS,
        };
        let proof = claim.sign(token_id(&service.to_string()), &key_of(&service.to_string()));
        let protocol = selvedge_fabric::object::Protocol::Udp;
        let ports = vec![EndpointPort { protocol, contract: PORT, local: PORT }];
        let (ipv6, weight) = (None, 100);
        Some(EndpointFact { id, ports, ipv4: Some(ipv4), ipv6, cga, health, weight, proof, service })
    }

    pub(crate) fn endpoint_id(&self) -> EndpointId {
        name(&format!("e-{}", self.name))
    }

    /// The address of its endpoint.
    pub(crate) fn address(&self, policy: &PolicyState) -> Option<Ipv4Addr> {
        let admission = policy.nodes.get(&self.name).filter(|a| a.key == self.key.public_key())?;
        address::block_of(policy.params.as_ref()?, admission)?.endpoint_addresses().next()
    }
}

/// The port that every contract has at first.
pub(crate) const PORT: u16 = 53;
/// The port it has instead after a change.
pub(crate) const OTHER_PORT: u16 = 5353;

/// A change of intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A contract gets this port, and must not be carried through this cloud.
    Contract { number: usize, port: u16, avoid: Option<usize> },
    /// A service stops playing its roles, or plays them again.
    Roles { service: usize, plays: bool },
    /// A guardrail against a client of the contract, or none.
    Guardrail { contract: usize, of: usize, denies: bool },
    /// A node is admitted.
    Admit(NodeName),
    /// A node is taken out for good.
    Remove(NodeName),
}

/// Makes commands of changes.
#[derive(Debug)]
pub(crate) struct Commands {
    next: u128,
    services: usize,
}

impl Commands {
    pub(crate) const fn new(services: usize) -> Self {
        Self { next: 0, services }
    }

    fn envelope(&mut self, command: Command, at_ms: UnixMs) -> Envelope {
        self.next += 1;
        Envelope { id: CommandId(self.next.to_be_bytes()), actor: "sim".to_owned(), at_ms, command }
    }

    /// The commands that found the fabric.
    pub(crate) fn founding(&mut self, births: &[Birth], clouds: usize) -> Vec<Envelope> {
        let mut commands = vec![Command::Init { params: params(), first: births[0].admit() }];
        let by_cloud = (0..clouds).map(|cloud| Command::CreateJoinToken(join_token(cloud)));
        commands.extend(by_cloud);
        commands.extend(births[1..].iter().map(|birth| Command::Admit(birth.admit())));
        commands.push(apply(self.graph(), Vec::new()));
        commands.extend((0..self.services).map(|n| Command::CreateServiceToken(service_token(n))));
        commands.into_iter().map(|command| self.envelope(command, START_MS)).collect()
    }

    /// The command that makes a change.
    pub(crate) fn of(&mut self, change: &Change, births: &[Birth], at_ms: UnixMs) -> Envelope {
        let command = match change {
            Change::Contract { number, port, avoid } => {
                apply(vec![contract_object(*number, *port, *avoid)], Vec::new())
            }
            Change::Roles { service, plays } => {
                apply(vec![self.service_object(*service, *plays)], Vec::new())
            }
            Change::Guardrail { contract, of, denies } => {
                let object = guardrail(*contract, *of);
                match denies {
                    true => apply(vec![object], Vec::new()),
                    false => apply(Vec::new(), vec![object.key]),
                }
            }
            Change::Admit(name) => match births.iter().find(|birth| birth.name == *name) {
                Some(birth) => Command::Admit(birth.admit()),
                None => Command::RemoveNode { node: name.clone() },
            },
            Change::Remove(name) => Command::RemoveNode { node: name.clone() },
        };
        self.envelope(command, at_ms)
    }

    fn graph(&self) -> Vec<Object> {
        let domain = ObjectKey { kind: Kind::Domain, domain: None, name: DOMAIN.to_owned() };
        let mut objects = vec![Object { key: domain, spec: Spec::Domain(DomainSpec::default()) }];
        objects.extend((0..self.services).map(|number| contract_object(number, PORT, None)));
        objects.extend((0..self.services).map(|number| self.service_object(number, true)));
        objects
    }

    fn service_object(&self, number: usize, plays: bool) -> Object {
        let roles = [format!("server:c{number}"), format!("client:c{}", (number + 1) % self.services)];
        let binding = |text: &String| {
            selvedge_fabric::object::RoleBinding::parse_in(text, Some(&name(DOMAIN))).expect("a role binding")
        };
        let roles = if plays { roles.iter().map(binding).collect() } else { Vec::new() };
        object(
            Kind::Service,
            &format!("s{number}"),
            Spec::Service(ServiceSpec { roles, ..ServiceSpec::default() }),
        )
    }
}

fn object(kind: Kind, title: &str, spec: Spec) -> Object {
    Object { key: ObjectKey { kind, domain: Some(name(DOMAIN)), name: title.to_owned() }, spec }
}

fn contract_object(number: usize, port: u16, avoid: Option<usize>) -> Object {
    let ports = vec![format!("udp/{port}").parse().expect("a port")];
    let avoid = avoid.map(|number| ZoneName::of_cloud(cloud(number))).into_iter().collect();
    let spec = ContractSpec {
        description: String::new(),
        template: name("client-server"),
        roles: [(name("server"), ContractRole { ports })].into(),
        mode: Mode::Enforce,
        path: PathSpec { avoid, ..PathSpec::default() },
        ttl: None,
        expires_at: None,
        rollout: None,
    };
    object(Kind::Contract, &format!("c{number}"), Spec::Contract(spec))
}

/// Forbids the client of a contract to reach its server, whatever the contract says.
fn guardrail(contract: usize, of: usize) -> Object {
    let client = (contract + of - 1) % of;
    let spec = GuardrailSpec {
        description: String::new(),
        action: Action::Deny,
        from: format!("s{client}@{DOMAIN}").parse().expect("a selector"),
        to: format!("s{contract}@{DOMAIN}").parse().expect("a selector"),
        ports: Vec::<PortRange>::new(),
    };
    let key = ObjectKey { kind: Kind::Guardrail, domain: None, name: format!("g{contract}") };
    Object { key, spec: Spec::Guardrail(spec) }
}

fn apply(set: Vec<Object>, delete: Vec<ObjectKey>) -> Command {
    Command::Apply(Apply { set, delete, ..Apply::default() })
}

fn params() -> FabricParams {
    FabricParams {
        name: name("sim"),
        id: FABRIC,
        suffix: SUFFIX.to_owned(),
        ula_prefix: [0xfd, 5, 5, 5, 5, 5],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 28,
        root_cert: vec![1],
        issuing_cert: vec![2],
        recovery_key: key_of("recovery").public_key(),
        created_ms: START_MS,
    }
}

fn join_token(number: usize) -> JoinToken {
    JoinToken {
        id: token_id(&format!("join{number}")),
        secret_hash: Hash([0; 32]),
        role: Role::Processor,
        zone: ZoneName::of_cloud(cloud(number)),
        not_after_ms: END_MS,
        uses_left: 100_000,
    }
}

fn service_token(number: usize) -> ServiceToken {
    let service = service(number);
    ServiceToken {
        id: token_id(&service.to_string()),
        key: key_of(&service.to_string()).public_key(),
        service,
        scope: TokenScope::default(),
        not_after_ms: END_MS,
    }
}

/// The policy after a command.
///
/// # Errors
/// Why the state machine refuses it.
pub(crate) fn applied(policy: &PolicyState, envelope: &Envelope) -> Result<Arc<PolicyState>, Refusal> {
    let mut next = policy.clone();
    next.apply(envelope)?;
    Ok(Arc::new(next))
}
