//! The reference applications as a whole: from the manifests that are shipped to verdicts.

use std::{collections::BTreeMap, fs, path::Path};

use selvedge_fabric::{
    manifest,
    object::PortRange,
    planner::{self, Local},
    query::{self, Assertion, FlowPattern, Outcome},
    view::View,
};

use crate::support::Fabric;

/// Who may open what to whom, as interfaces are documented: ten contracts.
const FLOWS: [(&str, &str, &str, &str); 10] = [
    ("http-proxy@voting-app", "voting-svc@voting-app", "tcp/80", "voting-frontend@voting-app"),
    ("voting-svc@voting-app", "voting-db@voting-app", "tcp/5432", "voting-backend@voting-app"),
    ("http-proxy@voting-app", "result-svc@voting-app", "tcp/80", "result-frontend@voting-app"),
    ("result-svc@voting-app", "result-db@voting-app", "tcp/5432", "result-backend@voting-app"),
    ("worker@voting-app", "voting-db@voting-app", "tcp/6379", "voting-worker@voting-app"),
    ("worker@voting-app", "result-db@voting-app", "tcp/5432", "result-worker@voting-app"),
    ("http-proxy@getaway-app", "getaway-svc@getaway-app", "tcp/80", "frontend@getaway-app"),
    ("getaway-svc@getaway-app", "news-gw@getaway-app", "tcp/8080", "news-api@getaway-app"),
    ("getaway-svc@getaway-app", "places-gw@getaway-app", "tcp/8080", "places-api@getaway-app"),
    ("getaway-svc@getaway-app", "weather-gw@getaway-app", "tcp/8080", "weather-api@getaway-app"),
];

fn reference() -> Fabric {
    let mut fabric = Fabric::new();
    for file in ["voting-app.yaml", "getaway-app.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/graphs").join(file);
        let text = fs::read_to_string(path).expect("a sample");
        fabric.set(manifest::parse(&text, Some(file)).expect("valid")).expect("applied");
    }
    fabric
}

#[test]
fn exactly_the_ten_contracts_are_reachable() {
    let fabric = reference();
    let rows = query::reach(&fabric.state, fabric.now_ms, None, None).expect("rows");
    let text = |row: &query::ReachRow| {
        let contract = row.contract.as_ref().expect("a contract").to_string();
        (row.from.to_string(), row.to.to_string(), row.port.clone(), contract)
    };
    let mut found: Vec<_> = rows.iter().map(text).collect();
    let owned = |(a, b, c, d): (&str, &str, &str, &str)| (a.into(), b.into(), c.into(), d.into());
    let mut expected: Vec<(String, String, String, String)> = FLOWS.into_iter().map(owned).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_pair_and_every_named_port_is_explained_alike() {
    let fabric = reference();
    let services: Vec<_> = fabric.state.identities.keys().collect();
    let mut allowed = BTreeMap::new();
    for from in &services {
        for to in &services {
            for port in ["tcp/80", "tcp/5432", "tcp/6379", "tcp/8080", "udp/80", "icmp"] {
                let ports: PortRange = port.parse().expect("a port");
                let found = query::explain(&fabric.state, fabric.now_ms, from, to, ports);
                if found.verdict == Outcome::Allow {
                    let contract = found.contract.expect("a contract").to_string();
                    allowed.insert((from.to_string(), to.to_string(), port), contract);
                }
            }
        }
    }
    assert_eq!(allowed.len(), FLOWS.len());
    for (from, to, port, contract) in FLOWS {
        assert_eq!(allowed[&(from.to_owned(), to.to_owned(), port)], contract);
    }
}

#[test]
fn the_two_applications_are_proven_apart() {
    let fabric = reference();
    let selector = |text: &str| text.parse().expect("a selector");
    let apart = |from: &str, to: &str| {
        Assertion::Deny(FlowPattern { from: selector(from), to: selector(to), port: None })
    };
    let both = [apart("*@getaway-app", "*@voting-app"), apart("*@voting-app", "*@getaway-app")];
    let results = query::assert(&fabric.state, fabric.now_ms, &both);
    assert!(results.iter().all(|r| r.holds && r.pairs == 6 * 5), "{results:#?}");
}

#[test]
fn a_plan_without_endpoints_has_the_names_and_who_may_ask_for_them() {
    let fabric = reference();
    let local = Local { me: Some("p1".parse().expect("a name")), ..Local::default() };
    let plan = planner::plan(&fabric.state, &View::default(), &local, fabric.now_ms);
    assert_eq!(plan.zone.contracts.len(), 10);
    assert!(plan.zone.contracts.values().all(Vec::is_empty));
    for (from, _, _, contract) in FLOWS {
        let from = from.parse().expect("a service");
        assert!(plan.zone.reach[&from].contains(&contract.parse().expect("a contract")), "{contract}");
    }
    assert_eq!(plan.zone.reach.values().map(|contracts| contracts.len()).sum::<usize>(), 10);
    assert_eq!((plan.revision, plan.hash), (fabric.state.revision, fabric.state.intent_hash()));
}
