//! What holds for every sequence of commands.

use proptest::{collection::vec, prelude::*, sample::select, sample::subsequence};
use selvedge_fabric::{
    command::{AdmissionState, Apply, Command, JoinToken, Role, ServiceToken, TokenScope},
    key::{Hash, TokenId},
    manifest,
    object::{
        ContractRole, ContractSpec, DomainSpec, Kind, Mode, Object, ObjectKey, PathSpec, PortRange, Protocol,
        RoleBinding, ServiceSpec, Spec,
    },
    policy::PolicyState,
};

use crate::support::{Fabric, admit, key, name};

/// The contracts of each domain: name, template, the role that accepts flows, the other one.
const CONTRACTS: [(&str, &str, &str, &str); 3] = [
    ("calls", "client-server", "server", "client"),
    ("gossip", "peer", "peer", "peer"),
    ("news", "publish-subscribe", "publisher", "subscriber"),
];
const DOMAINS: [&str; 2] = ["a-team", "b-team"];

/// Text for people: letters of any script and all that YAML gives a meaning to.
fn description() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        vec(any::<char>().prop_filter("control", |c| !c.is_control()), 0..20).prop_map(String::from_iter),
        "[ -~\n\t]{0,40}",
        select(vec!["yes", "null", "1e3", "- a", "a: b", "x #y", "2026-01-01", "\u{2028}", "---", "'\"\\"])
            .prop_map(str::to_owned),
    ]
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let port = (select(vec![Protocol::Tcp, Protocol::Udp]), 1..=u16::MAX, 0..50_u16)
        .prop_map(|(protocol, low, n)| PortRange { protocol, low, high: low.saturating_add(n) });
    let whole = select(vec![Protocol::Icmp, Protocol::Any]);
    let whole = whole.prop_map(|protocol| PortRange { protocol, low: 0, high: u16::MAX });
    vec(prop_oneof![4 => port, 1 => whole], 0..4)
}

prop_compose! {
    fn contract()(
        which in select(CONTRACTS.to_vec()),
        domain in select(DOMAINS.to_vec()),
        description in description(),
        ports in ports(),
        mode in select(vec![Mode::Enforce, Mode::Audit, Mode::Learn]),
        zones in subsequence(vec!["aws", "azr", "gcp/us-east1", "aws/eu"], 0..3),
        max_hops in proptest::option::of(1..=32_u8),
        ttl in proptest::option::weighted(0.3, 1..10_000_000_u64),
    ) -> Object {
        let avoid = zones.into_iter().map(|zone| zone.parse().expect("a zone")).collect();
        Object {
            key: ObjectKey { kind: Kind::Contract, domain: Some(name(domain)), name: which.0.to_owned() },
            spec: Spec::Contract(ContractSpec {
                description,
                template: name(which.1),
                roles: [(name(which.2), ContractRole { ports })].into(),
                mode,
                path: PathSpec { via: Vec::new(), avoid, max_hops },
                ttl,
                expires_at: None,
                rollout: None,
            }),
        }
    }
}

prop_compose! {
    fn service()(
        service in select(vec!["x", "y", "z"]),
        home in select(DOMAINS.to_vec()),
        description in description(),
        roles in subsequence((0..CONTRACTS.len() * 4).collect::<Vec<_>>(), 0..6),
    ) -> Object {
        let binding = |n: usize| {
            let (contract, _, accepting, opening) = CONTRACTS[n / 4];
            let role = if n.is_multiple_of(2) { accepting } else { opening };
            format!("{role}:{contract}@{}", DOMAINS[n / 2 % 2]).parse::<RoleBinding>().expect("a binding")
        };
        let mut roles: Vec<_> = roles.into_iter().map(binding).collect();
        roles.sort();
        roles.dedup();
        Object {
            key: ObjectKey { kind: Kind::Service, domain: Some(name(home)), name: service.to_owned() },
            spec: Spec::Service(ServiceSpec { description, roles }),
        }
    }
}

fn service_key() -> impl Strategy<Value = ObjectKey> {
    service().prop_map(|service| service.key)
}

fn join() -> impl Strategy<Value = Command> {
    (1..6_u8, 1..9_u8).prop_map(|(node, seed)| {
        let token = Some(TokenId([1; 9]));
        let admit = admit(&format!("w{node}"), seed, Role::Workload);
        Command::Admit(selvedge_fabric::command::Admit { token, ..admit })
    })
}

fn command() -> impl Strategy<Value = Command> {
    let node = || (0..6_u8).prop_map(|n| name(&format!("w{n}")));
    let state = select(vec![AdmissionState::Active, AdmissionState::Draining, AdmissionState::Revoked]);
    prop_oneof![
        6 => vec(prop_oneof![contract(), service()], 0..4).prop_map(|set| Command::Apply(Apply { set, ..Apply::default() })),
        2 => vec(service_key(), 1..3).prop_map(|delete| Command::Apply(Apply { delete, ..Apply::default() })),
        1 => (0..20_u64).prop_map(|to| Command::Rollback { to, base: None }),
        2 => join(),
        1 => node().prop_map(|node| Command::RemoveNode { node }),
        1 => (node(), state).prop_map(|(node, state)| Command::SetNodeState { node, state }),
        1 => vec(0..6_u32, 0..4).prop_map(|blocks| Command::ReleaseBlocks { blocks }),
        1 => (2..6_u8, service_key()).prop_map(|(id, service)| Command::CreateServiceToken(ServiceToken {
            id: TokenId([id; 9]),
            service: format!("{}@{}", service.name, service.domain.expect("a domain")).parse().expect("a reference"),
            key: key(id),
            scope: TokenScope::default(),
            not_after_ms: 100_000_000,
        })),
        1 => (1..6_u8).prop_map(|id| Command::RevokeToken { id: TokenId([id; 9]) }),
    ]
}

/// A fabric with both domains, every contract and a join token.
fn fabric() -> Fabric {
    let mut fabric = Fabric::new();
    let token = JoinToken {
        id: TokenId([1; 9]),
        secret_hash: Hash([0; 32]),
        role: Role::Workload,
        zone: "aws".parse().expect("a zone"),
        not_after_ms: 100_000_000,
        uses_left: 5,
    };
    fabric.command(Command::CreateJoinToken(token)).expect("a token");
    let mut set: Vec<Object> = Vec::new();
    for domain in DOMAINS {
        let key = ObjectKey { kind: Kind::Domain, domain: None, name: domain.to_owned() };
        set.push(Object { key, spec: Spec::Domain(DomainSpec::default()) });
        for (contract, template, ..) in CONTRACTS {
            let spec = ContractSpec {
                description: String::new(),
                template: name(template),
                roles: Default::default(),
                mode: Mode::Enforce,
                path: PathSpec::default(),
                ttl: None,
                expires_at: None,
                rollout: None,
            };
            let key =
                ObjectKey { kind: Kind::Contract, domain: Some(name(domain)), name: contract.to_owned() };
            set.push(Object { key, spec: Spec::Contract(spec) });
        }
    }
    fabric.set(set).expect("applied");
    fabric
}

/// What every state must be.
fn check_invariants(state: &PolicyState) {
    let numbers: std::collections::BTreeSet<_> = state.identities.values().collect();
    assert_eq!(numbers.len(), state.identities.len(), "one number, one service");
    assert!(numbers.iter().all(|n| (1..=state.last_identity).contains(*n)));
    let blocks: Vec<u32> =
        state.nodes.values().map(|n| n.block).chain(state.removed.values().filter_map(|r| r.block)).collect();
    let distinct: std::collections::BTreeSet<_> = blocks.iter().collect();
    assert_eq!(distinct.len(), blocks.len(), "one block, one node");
    assert!(!distinct.contains(&0));
    assert!(state.nodes.values().all(|n| !state.removed.contains_key(&n.key.node_id())));
    for token in state.service_tokens.values() {
        assert!(state.identities.contains_key(&token.service), "a token of a service that is gone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn apply_is_deterministic_and_survives_a_snapshot_at_any_time(
        commands in vec((command(), 0..2_000_u64, any::<bool>()), 1..30)
    ) {
        let mut fabric = fabric();
        let mut other = fabric.state.clone();
        for (command, later_ms, snapshot) in commands {
            fabric.now_ms += later_ms;
            let envelope = fabric.envelope(command);
            let before = fabric.state.clone();
            let outcome = fabric.state.apply(&envelope);
            if snapshot {
                other = PolicyState::decode(&other.encode()).expect("a snapshot");
            }
            prop_assert_eq!(&outcome, &other.apply(&envelope));
            prop_assert_eq!(&fabric.state, &other);
            prop_assert_eq!(fabric.state.intent_hash(), other.intent_hash());
            check_invariants(&fabric.state);
            let moved = fabric.state.revision - before.revision;
            match outcome {
                Ok(applied) => prop_assert_eq!(moved, u64::from(!applied.changes.is_empty())),
                Err(_) => {
                    prop_assert_eq!(moved, 0);
                    prop_assert_eq!(fabric.state.intent_hash(), before.intent_hash());
                }
            }
        }
    }

    #[test]
    fn an_export_applied_again_gives_the_same_objects_and_hash(commands in vec(command(), 1..20), json in any::<bool>()) {
        let mut fabric = fabric();
        for command in commands {
            let _refused_or_not = fabric.command(command);
        }
        let objects: Vec<_> = fabric.state.objects().collect();
        let text = if json { manifest::to_json(&objects) } else { manifest::to_yaml(&objects) };
        let read = manifest::parse(&text, None);
        prop_assert_eq!(read.as_ref(), Ok(&objects), "{}", text);
        let mut fresh = Fabric::new();
        fresh.now_ms = 77_000_000;
        fresh.set(objects).expect("what was applied can be applied");
        prop_assert_eq!(&fresh.state.objects, &fabric.state.objects);
        prop_assert_eq!(fresh.state.objects_hash(), fabric.state.objects_hash());
        prop_assert!(selvedge_fabric::policy::diff(&fabric.state, &read.expect("valid"), &[]).is_empty());
    }

    #[test]
    fn rollback_undoes_whatever_happened(commands in vec(command(), 1..20)) {
        let mut fabric = fabric();
        let (revision, hash) = (fabric.state.revision, fabric.state.objects_hash());
        for command in commands {
            let _refused_or_not = fabric.command(command);
        }
        fabric.command(Command::Rollback { to: revision, base: None }).expect("rolled back");
        prop_assert_eq!(fabric.state.objects_hash(), hash);
    }

    #[test]
    fn commands_survive_both_encodings(command in command()) {
        let json = serde_json::to_vec(&command).expect("JSON");
        prop_assert_eq!(&serde_json::from_slice::<Command>(&json).expect("JSON"), &command);
        let binary = postcard::to_allocvec(&command).expect("postcard");
        prop_assert_eq!(&postcard::from_bytes::<Command>(&binary).expect("postcard"), &command);
    }
}
