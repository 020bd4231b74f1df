//! The tables against a second, naive reading of the rules, and single cases by name.

use proptest::prelude::*;
use selvedge_abi::{MAX_RANGES, Reason, Verdict, decide};

use super::*;
use crate::{
    object::{Action, Kind, Mode as ContractMode, Spec},
    testing::*,
};

fn verdict(policy: &PolicyState, from: &str, to: &str, ports: &str) -> Verdict {
    let tables = compile(policy, NOW_MS);
    let one = port(ports);
    let id = |text: &str| tables.identity(&object(text)).unwrap_or_default();
    let protocol = graph::classes(one.protocol)[0].protocol();
    decide(id(from), id(to), protocol, one.low, &tables)
}

fn reason(policy: &PolicyState, from: &str, to: &str, ports: &str) -> Reason {
    verdict(policy, from, to, ports).reason
}

#[test]
fn a_contract_allows_its_flows_and_nothing_else() {
    let policy = voting_app();
    let (svc, db) = ("voting-svc@voting-app", "voting-db@voting-app");
    assert_eq!(reason(&policy, svc, db, "tcp/5432"), Reason::Contract);
    for (from, to, ports) in [
        (svc, db, "tcp/5433"),
        (svc, db, "udp/5432"),
        (svc, db, "icmp"),
        (db, svc, "tcp/5432"),
        (svc, svc, "tcp/80"),
        ("http-proxy@getaway-app", svc, "tcp/80"),
    ] {
        assert_eq!(reason(&policy, from, to, ports), Reason::NoContract, "{from} {to} {ports}");
    }
    assert_eq!(reason(&policy, "who@voting-app", db, "tcp/5432"), Reason::UnknownSource);
    assert_eq!(reason(&policy, svc, "who@voting-app", "tcp/5432"), Reason::UnknownDestination);
}

#[test]
fn the_rule_names_the_contract_that_allowed() {
    let policy = voting_app();
    let tables = compile(&policy, NOW_MS);
    let found = verdict(&policy, "worker@voting-app", "result-db@voting-app", "tcp/5432");
    let rule = tables.rule(found.rule).expect("a rule");
    assert_eq!(rule.origin, Origin::Contract(object("result-worker@voting-app")));
    assert_eq!(rule.text, "Contract result-worker@voting-app: client may open tcp/5432 to server");
    assert_eq!((tables.rule(0), tables.rule(u32::MAX)), (None, None));
}

#[test]
fn peers_reach_each_other_and_themselves() {
    let policy = fabric()
        .contract("mesh@d", "peer", &[("peer", &["udp/7946"])])
        .service("a@d", &["peer:mesh"])
        .service("b@d", &["peer:mesh"]);
    for (from, to) in [("a@d", "b@d"), ("b@d", "a@d"), ("a@d", "a@d")] {
        assert_eq!(reason(&policy, from, to, "udp/7946"), Reason::Contract);
    }
}

#[test]
fn a_service_of_another_domain_may_be_a_member() {
    let policy = fabric()
        .contract("db@d", "client-server", &[("server", &["tcp/5432"])])
        .service("db@d", &["server:db"])
        .service("db@e", &["client:db@d"]);
    assert_eq!(reason(&policy, "db@e", "db@d", "tcp/5432"), Reason::Contract);
    assert_eq!(reason(&policy, "db@d", "db@e", "tcp/5432"), Reason::NoContract);
}

#[test]
fn an_ended_contract_allows_nothing() {
    let mut policy = voting_app();
    end_contract(&mut policy, &object("voting-backend@voting-app"), NOW_MS + 1);
    let flow = ("voting-svc@voting-app", "voting-db@voting-app", "tcp/5432");
    assert!(verdict(&policy, flow.0, flow.1, flow.2).allow);
    end_contract(&mut policy, &object("voting-backend@voting-app"), NOW_MS);
    assert!(!verdict(&policy, flow.0, flow.1, flow.2).allow);
}

#[test]
fn audit_and_learn_pass_between_members_only() {
    for (mode, expected) in [(ContractMode::Audit, Reason::Audited), (ContractMode::Learn, Reason::Learned)] {
        let policy = fabric()
            .contract_in(mode, "c@d", "client-server", &[("server", &["tcp/1"])])
            .contract("strict@d", "client-server", &[("server", &["tcp/2"])])
            .service("a@d", &["client:c", "client:strict"])
            .service("b@d", &["server:c"])
            .service("s@d", &["server:strict"])
            .guardrail("no-ssh", Action::Deny, "*", "*", &["tcp/22"]);
        assert_eq!(reason(&policy, "a@d", "b@d", "tcp/1"), Reason::Contract);
        assert_eq!(reason(&policy, "a@d", "b@d", "tcp/9"), expected);
        assert_eq!(reason(&policy, "b@d", "a@d", "icmp"), expected);
        assert_eq!(reason(&policy, "a@d", "b@d", "tcp/22"), Reason::GuardrailDeny);
        assert_eq!(reason(&policy, "a@d", "s@d", "tcp/2"), Reason::Contract);
        assert_eq!(reason(&policy, "a@d", "s@d", "tcp/9"), Reason::NoContract, "{mode:?} widens no other");
        let stated = verdict(&policy, "a@d", "b@d", "tcp/1");
        assert_eq!(stated.mode, super::mode(mode), "the flow is recorded under its mode");
    }
}

#[test]
fn a_deny_guardrail_wins_over_an_allow_one_and_both_over_contracts() {
    let policy = voting_app()
        .guardrail("z-allow", Action::Allow, "*@getaway-app", "*@voting-app", &["tcp/80-90"])
        .guardrail("a-deny", Action::Deny, "*", "voting-db@voting-app", &["tcp/85"]);
    let proxy = "http-proxy@getaway-app";
    assert_eq!(reason(&policy, proxy, "voting-svc@voting-app", "tcp/85"), Reason::GuardrailAllow);
    assert_eq!(reason(&policy, proxy, "voting-db@voting-app", "tcp/85"), Reason::GuardrailDeny);
    assert_eq!(reason(&policy, proxy, "voting-db@voting-app", "tcp/86"), Reason::GuardrailAllow);
    assert_eq!(reason(&policy, proxy, "voting-db@voting-app", "udp/86"), Reason::NoContract);
}

#[test]
fn services_that_guardrails_do_not_tell_apart_share_a_group() {
    let mut policy = fabric().guardrail("g", Action::Deny, "*@a", "one@b", &[]);
    for i in 0..50 {
        policy = policy.service(&format!("s{i}@a"), &[]).service(&format!("s{i}@b"), &[]);
    }
    let tables = compile(&policy.service("one@b", &[]), NOW_MS);
    assert_eq!(tables.guardrails.len(), Class::ALL.len(), "one pair of groups");
}

#[test]
fn more_ranges_than_are_scanned_are_refused_and_said() {
    let ports: Vec<String> = (0..=MAX_RANGES).map(|i| format!("tcp/{}", 10 + 2 * i)).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let policy = fabric()
        .contract("c@d", "client-server", &[("server", &ports)])
        .service("a@d", &["client:c"])
        .service("b@d", &["server:c"]);
    assert_eq!(reason(&policy, "a@d", "b@d", ports[MAX_RANGES - 1]), Reason::Contract);
    assert_eq!(reason(&policy, "a@d", "b@d", ports[MAX_RANGES]), Reason::NoContract);
    assert_eq!(compile(&policy, NOW_MS).problems.len(), 1);

    let shut = voting_app().guardrail("many", Action::Deny, "*", "*", &ports).guardrail(
        "open",
        Action::Allow,
        "*",
        "*",
        &[],
    );
    let (svc, db) = ("voting-svc@voting-app", "voting-db@voting-app");
    assert_eq!(reason(&shut, svc, db, ports[MAX_RANGES]), Reason::GuardrailDeny);
    assert_eq!(reason(&shut, svc, db, "tcp/5432"), Reason::GuardrailDeny, "what does not fit is refused");
}

#[test]
fn guardrails_that_do_not_fit_close_everything() {
    let mut policy = voting_app().guardrail("all", Action::Deny, "*@getaway-app", "*@voting-app", &[]);
    for i in 0..400 {
        let service = format!("s{i}@d");
        policy = policy
            .service(&service, &[])
            .guardrail(&format!("from{i}"), Action::Deny, &service, "*", &[])
            .guardrail(&format!("to{i}"), Action::Deny, "*", &service, &[]);
    }
    let tables = compile(&policy, NOW_MS);
    assert!(tables.problems[0].contains("every flow is refused"), "{:?}", tables.problems);
    let flow = ("voting-svc@voting-app", "voting-db@voting-app", "tcp/5432");
    assert_eq!(reason(&policy, flow.0, flow.1, flow.2), Reason::UnknownSource);
}

/// What the rules mean, read one by one for one flow.
fn naive(policy: &PolicyState, from: &ServiceRef, to: &ServiceRef, class: Class, port: u16) -> Reason {
    let covers = |ports: &[PortRange]| {
        ports.iter().any(|p| graph::classes(p.protocol).contains(&class) && p.low <= port && port <= p.high)
    };
    let guardrail = |action| {
        policy.objects.values().any(|spec| match spec {
            Spec::Guardrail(g) => {
                g.action == action
                    && g.from.selects(from)
                    && g.to.selects(to)
                    && (g.ports.is_empty() || covers(&g.ports))
            }
            _ => false,
        })
    };
    if guardrail(Action::Deny) {
        return Reason::GuardrailDeny;
    }
    if guardrail(Action::Allow) {
        return Reason::GuardrailAllow;
    }
    let plays = |service: &ServiceRef, contract: &ContractRef, role: Option<&Name>| {
        let key = crate::object::ObjectKey {
            kind: Kind::Service,
            domain: Some(service.domain.clone()),
            name: service.name.to_string(),
        };
        graph::bindings(&policy.objects[&key])
            .iter()
            .any(|b| b.contract == *contract && role.is_none_or(|role| b.role == *role))
    };
    let holding: Vec<_> = graph::contracts(policy).filter(|(_, c)| graph::holds(c, NOW_MS)).collect();
    let stated = holding.iter().any(|(name, contract)| {
        let template = policy.template_of(name).expect("a template");
        template.flows.iter().any(|flow| {
            plays(from, name, Some(&flow.from))
                && plays(to, name, Some(&flow.to))
                && covers(graph::ports_of(contract, &flow.to))
        })
    });
    if stated {
        return Reason::Contract;
    }
    let passes = |mode| {
        holding.iter().any(|(name, c)| c.mode == mode && plays(from, name, None) && plays(to, name, None))
    };
    match (passes(ContractMode::Audit), passes(ContractMode::Learn)) {
        (true, _) => Reason::Audited,
        (_, true) => Reason::Learned,
        _ => Reason::NoContract,
    }
}

const SERVICES: [&str; 5] = ["a@d", "b@d", "c@d", "a@e", "b@e"];
const PORTS: [&str; 7] = ["tcp/1", "tcp/1-3", "tcp/2-4", "udp/2", "icmp", "tcp", "any"];
const SELECTORS: [&str; 5] = ["*", "*@d", "*@e", "a@d", "b@e"];

prop_compose! {
    /// A small policy in which contracts and guardrails overlap a lot.
    fn policies()(
        contracts in prop::collection::vec((0usize..3, 0usize..3, prop::sample::subsequence(&PORTS[..], 0..3)), 1..4),
        roles in prop::collection::vec((0usize..SERVICES.len(), 0usize..4, 0usize..2), 0..12),
        guardrails in prop::collection::vec(
            (any::<bool>(), 0usize..SELECTORS.len(), 0usize..SELECTORS.len(), prop::sample::subsequence(&PORTS[..], 0..2)),
            0..4
        ),
    ) -> PolicyState {
        let modes = [ContractMode::Enforce, ContractMode::Audit, ContractMode::Learn];
        let templates = [("client-server", ["client", "server"]), ("peer", ["peer", "peer"]),
            ("publish-subscribe", ["subscriber", "publisher"])];
        let mut policy = fabric();
        for (i, (mode, template, ports)) in contracts.iter().enumerate() {
            let (template, [_, accepting]) = templates[*template];
            policy = policy.contract_in(modes[*mode], &format!("c{i}@d"), template, &[(accepting, ports)]);
        }
        for (s, service) in SERVICES.iter().enumerate() {
            let bindings: Vec<String> = roles
                .iter()
                .filter(|(of, contract, _)| *of == s && *contract < contracts.len())
                .map(|(_, contract, side)| {
                    let role = templates[contracts[*contract].1].1[*side];
                    format!("{role}:c{contract}@d")
                })
                .collect();
            let bindings: Vec<&str> = bindings.iter().map(String::as_str).collect();
            policy = policy.service(service, &bindings);
        }
        for (i, (deny, from, to, ports)) in guardrails.iter().enumerate() {
            let action = if *deny { Action::Deny } else { Action::Allow };
            policy = policy.guardrail(&format!("g{i}"), action, SELECTORS[*from], SELECTORS[*to], ports);
        }
        policy
    }
}

proptest! {
    #[test]
    fn decide_on_the_tables_is_the_naive_reading(policy in policies()) {
        let tables = compile(&policy, NOW_MS);
        prop_assert_eq!(&tables, &compile(&policy, NOW_MS), "compiling is deterministic");
        for (from, source) in tables.services() {
            for (to, destination) in tables.services() {
                for class in Class::ALL {
                    let effective = tables.effective(source, destination, class);
                    let ports = if class.has_ports() { 0..6 } else { 0..1 };
                    for port in ports {
                        let found = decide(source, destination, class.protocol(), port, &tables);
                        prop_assert_eq!(found.reason, naive(&policy, from, to, class, port),
                            "{} to {} on {:?}/{}", from, to, class, port);
                        let overlaid = effective.iter().find(|r| r.low <= port && port <= r.high);
                        prop_assert_eq!(overlaid.is_some_and(|r| r.verdict().allow), found.allow);
                        prop_assert_eq!(found.rule != 0, found.reason != Reason::NoContract);
                    }
                }
            }
        }
    }

    #[test]
    fn removing_a_contract_allows_nothing_new(policy in policies()) {
        let before = compile(&policy, NOW_MS);
        for key in policy.objects.keys().filter(|key| key.kind == Kind::Contract) {
            let mut without = policy.clone();
            without.objects.remove(key);
            let after = compile(&without, NOW_MS);
            for (_, source) in before.services() {
                for (_, destination) in before.services() {
                    for port in 0..6 {
                        let allow = |t: &VerdictTables| decide(source, destination, 6, port, t).allow;
                        prop_assert!(allow(&before) || !allow(&after));
                    }
                }
            }
            let gone = Origin::Contract(ContractRef::new(name(&key.name), key.domain.clone().expect("a domain")));
            prop_assert!(after.rules.iter().all(|rule| rule.origin != gone));
        }
    }
}

#[test]
fn a_thousand_services_and_ten_thousand_edges() {
    let mut policy = fabric();
    for i in 0..1_000 {
        policy = policy.contract(&format!("c{i}@d"), "client-server", &[("server", &["tcp/80", "tcp/443"])]);
    }
    for i in 0..1_000 {
        let mut roles = vec![format!("server:c{i}")];
        roles.extend((1..=10).map(|k| format!("client:c{}", (i + k) % 1_000)));
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        policy = policy.service(&format!("s{i}@d"), &roles);
    }
    let tables = compile(&policy, NOW_MS);
    assert_eq!((tables.contracts.len(), tables.rules.len()), (10_000, 2_000));
    assert_eq!(tables.problems, Vec::<String>::new());
    let allows = |from: usize, to: usize| {
        let id = |i| tables.identity(&object(&format!("s{i}@d"))).expect("a service");
        decide(id(from), id(to), 6, 443, &tables).allow
    };
    assert!(allows(0, 1) && allows(999, 9) && !allows(0, 11) && !allows(1, 0));
}
