//! Small fabrics for tests, built by hand.

use std::net::Ipv4Addr;

use ed25519_dalek::SigningKey;

use crate::{
    UnixMs, address,
    cga::CgaParams,
    command::{AdmissionState, Role, ServiceToken, TokenScope},
    id::{ContractRef, EndpointId, Name, NodeName, ServiceRef},
    key::{FabricId, Hash, PublicKey, Signer, TokenId},
    object::{
        Action, ContractRole, ContractSpec, DomainSpec, GuardrailSpec, Kind, Mode, ObjectKey, PathSpec,
        PortRange, RoleBinding, ServiceSpec, Spec,
    },
    policy::{Admission, FabricParams, PolicyState},
    record::{EndpointFact, EndpointPort, Health, ProofClaim},
    view::{Liveness, NodeView, View},
};

/// A time at which everything in the fixtures holds.
pub(crate) const NOW_MS: UnixMs = 1_800_000_000_000;
/// When tokens and proofs of the fixtures end.
pub(crate) const END_MS: UnixMs = NOW_MS + 1_000_000_000;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn object(text: &str) -> ServiceRef {
    text.parse().expect("name@domain")
}

pub(crate) fn port(text: &str) -> PortRange {
    text.parse().expect("a port range")
}

/// A key made from a name; nobody else has it.
pub(crate) fn key_of(name: &str) -> SigningKey {
    SigningKey::from_bytes(&Hash::of(name.as_bytes()).0)
}

pub(crate) fn fabric() -> PolicyState {
    let params = FabricParams {
        name: name("test"),
        id: FabricId([1; 16]),
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd, 1, 2, 3, 4, 5],
        ipv4_pool: "127.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        recovery_key: PublicKey([0; 32]),
        created_ms: 0,
    };
    PolicyState { params: Some(params), revision: 1, ..PolicyState::default() }
}

/// A fluent way to fill a state; each reference is written `name@domain`.
pub(crate) trait Build: Sized {
    fn state(&mut self) -> &mut PolicyState;

    fn put(mut self, kind: Kind, text: &str, spec: Spec) -> Self {
        let (object, domain) = match text.split_once('@') {
            Some((object, domain)) => (object, Some(name(domain))),
            None => (text, None),
        };
        let state = self.state();
        if let Some(domain) = &domain {
            let key = ObjectKey { kind: Kind::Domain, domain: None, name: domain.to_string() };
            state.objects.entry(key).or_insert_with(|| Spec::Domain(DomainSpec::default()));
        }
        state.objects.insert(ObjectKey { kind, domain, name: object.to_owned() }, spec);
        state.revision += 1;
        self
    }

    fn contract(self, text: &str, template: &str, roles: &[(&str, &[&str])]) -> Self {
        self.contract_in(Mode::Enforce, text, template, roles)
    }

    fn contract_in(self, mode: Mode, text: &str, template: &str, roles: &[(&str, &[&str])]) -> Self {
        let role = |(role, ports): &(&str, &[&str])| {
            (name(role), ContractRole { ports: ports.iter().map(|p| port(p)).collect() })
        };
        let spec = ContractSpec {
            description: String::new(),
            template: name(template),
            roles: roles.iter().map(role).collect(),
            mode,
            path: PathSpec::default(),
            ttl: None,
            expires_at: None,
            rollout: None,
        };
        self.put(Kind::Contract, text, Spec::Contract(spec))
    }

    fn service(mut self, text: &str, roles: &[&str]) -> Self {
        let service = object(text);
        let binding =
            |role: &&str| RoleBinding::parse_in(role, Some(&service.domain)).expect("role:contract");
        let roles = roles.iter().map(binding).collect();
        let state = self.state();
        state.last_identity += 1;
        state.identities.insert(service, state.last_identity);
        self.put(Kind::Service, text, Spec::Service(ServiceSpec { description: String::new(), roles }))
    }

    fn guardrail(self, title: &str, action: Action, from: &str, to: &str, ports: &[&str]) -> Self {
        let spec = GuardrailSpec {
            description: String::new(),
            action,
            from: from.parse().expect("a selector"),
            to: to.parse().expect("a selector"),
            ports: ports.iter().map(|p| port(p)).collect(),
        };
        self.put(Kind::Guardrail, title, Spec::Guardrail(spec))
    }

    fn node(mut self, title: &str, zone: &str) -> Self {
        let state = self.state();
        let block = 1 + state.nodes.len() as u32;
        let admission = Admission {
            key: key_of(title).public_key(),
            sealing_key: PublicKey([0; 32]),
            role: Role::Processor,
            zone: zone.parse().expect("a zone"),
            state: AdmissionState::Active,
            block,
            token: None,
            admitted_ms: u64::from(block),
        };
        state.nodes.insert(name(title), admission);
        self
    }

    fn token(mut self, service: &str, scope: TokenScope) -> Self {
        let service = object(service);
        let token = ServiceToken {
            id: token_id(&service),
            key: key_of(&service.to_string()).public_key(),
            service,
            scope,
            not_after_ms: END_MS,
        };
        self.state().service_tokens.insert(token.id, token);
        self
    }
}

impl Build for PolicyState {
    fn state(&mut self) -> &mut PolicyState {
        self
    }
}

pub(crate) fn token_id(service: &ServiceRef) -> TokenId {
    let hash = Hash::of(service.to_string().as_bytes());
    TokenId(std::array::from_fn(|i| hash.0[i]))
}

pub(crate) fn end_contract(policy: &mut PolicyState, contract: &ContractRef, at_ms: UnixMs) {
    for (key, spec) in &mut policy.objects {
        let Spec::Contract(spec) = spec else { continue };
        if key.name == contract.name.as_str() && key.domain.as_ref() == Some(&contract.domain) {
            spec.expires_at = Some(at_ms);
        }
    }
}

/// A genuine endpoint: the `host`th of its node's block, proof included.
pub(crate) fn endpoint(
    policy: &PolicyState,
    node: &str,
    id: &str,
    service: &str,
    port: (&str, u16),
    host: u32,
) -> EndpointFact {
    let params = policy.params.as_ref().expect("params");
    let admission = &policy.nodes[&name(node)];
    let block = address::block_of(params, admission).expect("a block");
    let cga = CgaParams { modifier: [host as u8; 16], collision_count: 0 };
    let prefix = address::zone_prefix(params, &admission.zone);
    let mut fact = EndpointFact {
        id: name(id),
        service: object(service),
        ports: vec![EndpointPort {
            protocol: self::port(port.0).protocol,
            contract: self::port(port.0).low,
            local: port.1,
        }],
        ipv4: Some(Ipv4Addr::from(u32::from(block.node_address()) + host)),
        ipv6: Some(crate::cga::assemble(prefix, &admission.key.spki_der(), 0, &cga)),
        cga,
        health: Health::Passing,
        weight: 100,
        proof: ProofClaim {
            fabric: &params.id,
            service: &object(service),
            node: &admission.key,
            endpoint: &name(id),
            cga: &cga,
            not_after_ms: END_MS,
        }
        .sign(token_id(&object(service)), &key_of(service)),
    };
    fact.ports.sort();
    fact
}

/// A view in which every admitted node is alive and has no endpoints.
pub(crate) fn view_of(policy: &PolicyState, me: &str) -> View {
    let node = |admission: &Admission| NodeView {
        key: admission.key,
        state: Liveness::Alive,
        incarnation: 1,
        addresses: Vec::new(),
        gossip: Vec::new(),
        api: Vec::new(),
        rtt_us: None,
        enforced: None,
        load: None,
        links: Vec::new(),
        heard_ms: Some(NOW_MS - 1),
        quarantined: false,
        endpoints: std::collections::BTreeMap::new(),
    };
    View {
        generation: 1,
        me: Some(name(me)),
        nodes: policy.nodes.iter().map(|(name, admission)| (name.clone(), node(admission))).collect(),
        ..View::default()
    }
}

/// Adds an endpoint to the node that it names.
pub(crate) fn announce(view: &mut View, node: &NodeName, fact: EndpointFact) {
    let node = view.nodes.get_mut(node).expect("a known node");
    let id: EndpointId = fact.id.clone();
    node.endpoints.insert(id, fact);
}

/// The voting application of the reference graphs.
pub(crate) fn voting_app() -> PolicyState {
    let contracts = [
        ("voting-frontend@voting-app", "tcp/80"),
        ("voting-backend@voting-app", "tcp/5432"),
        ("result-frontend@voting-app", "tcp/80"),
        ("result-backend@voting-app", "tcp/5432"),
        ("voting-worker@voting-app", "tcp/6379"),
        ("result-worker@voting-app", "tcp/5432"),
    ];
    let mut policy = fabric();
    for (contract, port) in contracts {
        policy = policy.contract(contract, "client-server", &[("server", &[port])]);
    }
    policy
        .service("http-proxy@voting-app", &["client:voting-frontend", "client:result-frontend"])
        .service("voting-svc@voting-app", &["server:voting-frontend", "client:voting-backend"])
        .service("voting-db@voting-app", &["server:voting-backend", "server:voting-worker"])
        .service("result-svc@voting-app", &["server:result-frontend", "client:result-backend"])
        .service("result-db@voting-app", &["server:result-backend", "server:result-worker"])
        .service("worker@voting-app", &["client:voting-worker", "client:result-worker"])
        .contract("frontend@getaway-app", "client-server", &[("server", &["tcp/80"])])
        .service("http-proxy@getaway-app", &["client:frontend"])
        .service("getaway-svc@getaway-app", &["server:frontend"])
}
