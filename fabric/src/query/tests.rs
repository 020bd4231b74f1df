//! Answers on small fabrics.

use super::*;
use crate::{
    object::{Mode, PortRange},
    testing::*,
};

fn explain_text(policy: &PolicyState, from: &str, to: &str, ports: &str) -> Explanation {
    explain(policy, NOW_MS, &object(from), &object(to), port(ports))
}

fn findings(explanation: &Explanation) -> Vec<&str> {
    explanation.alternatives.iter().map(|a| a.finding.as_str()).collect()
}

#[test]
fn an_allowed_flow_names_its_contract() {
    let policy = voting_app();
    let found = explain_text(&policy, "voting-svc@voting-app", "voting-db@voting-app", "tcp/5432");
    assert_eq!(found.verdict, Outcome::Allow);
    assert_eq!(found.contract, Some(object("voting-backend@voting-app")));
    assert_eq!((found.reason.as_str(), found.revision), ("contract", policy.revision));
    assert_eq!(found.hops.iter().map(|h| h.place).collect::<Vec<_>>(), [Place::Source, Place::Destination]);
    assert_eq!(
        found.summary(),
        "voting-svc@voting-app may open tcp/5432 to voting-db@voting-app: Contract voting-backend@voting-app: \
         client may open tcp/5432 to server"
    );
}

#[test]
fn the_namesake_of_another_domain_is_somebody_else() {
    let found = explain_text(&voting_app(), "http-proxy@getaway-app", "voting-svc@voting-app", "tcp/80");
    assert_eq!((found.verdict, found.reason.as_str()), (Outcome::Deny, "no-contract"));
    assert_eq!(
        findings(&found),
        [
            "voting-svc@voting-app accepts tcp/80 in Contract voting-frontend@voting-app, in which \
         http-proxy@getaway-app is not client",
            "http-proxy@voting-app may open tcp/80 to voting-svc@voting-app: a namesake, and another service",
        ]
    );
    let remedy = found.alternatives[0].remedy.as_deref();
    let add = "add client:voting-frontend@voting-app to spec.roles of Service http-proxy@getaway-app";
    assert_eq!(remedy, Some(add));
}

#[test]
fn a_wrong_port_is_a_near_miss() {
    let found = explain_text(&voting_app(), "voting-svc@voting-app", "voting-db@voting-app", "tcp/5433");
    assert_eq!(
        findings(&found),
        ["voting-svc@voting-app plays client:voting-backend@voting-app and voting-db@voting-app plays \
         server:voting-backend@voting-app, but the contract names tcp/5432, not tcp/5433"]
    );
}

#[test]
fn a_range_is_allowed_only_as_a_whole() {
    let policy = fabric()
        .contract("c@d", "client-server", &[("server", &["tcp/10-20", "tcp/21-30"])])
        .service("a@d", &["client:c"])
        .service("b@d", &["server:c"]);
    assert_eq!(explain_text(&policy, "a@d", "b@d", "tcp/10-30").verdict, Outcome::Allow);
    assert_eq!(explain_text(&policy, "a@d", "b@d", "tcp/10-31").verdict, Outcome::Deny);
    assert_eq!(explain_text(&policy, "a@d", "b@d", "tcp/9-30").verdict, Outcome::Deny);
    assert_eq!(explain_text(&policy, "a@d", "b@d", "any").verdict, Outcome::Deny);
}

#[test]
fn the_other_way_round_and_an_ended_contract_are_said() {
    let mut policy = voting_app();
    let back = explain_text(&policy, "voting-db@voting-app", "voting-svc@voting-app", "tcp/5432");
    assert!(findings(&back)[0].ends_with("the flow goes the other way"), "{back:?}");
    end_contract(&mut policy, &object("voting-backend@voting-app"), NOW_MS);
    let ended = explain_text(&policy, "voting-svc@voting-app", "voting-db@voting-app", "tcp/5432");
    assert!(findings(&ended)[0].contains("the contract ended at 2027-01-15T08:00:00"), "{ended:?}");
}

#[test]
fn strangers_are_told_whom_they_may_have_meant() {
    let found = explain_text(&voting_app(), "voting-scv@voting-app", "voting-db@voting-app", "tcp/5432");
    assert_eq!((found.verdict, found.reason.as_str()), (Outcome::Deny, "unknown-source"));
    assert_eq!(found.alternatives[0].remedy.as_deref(), Some("did you mean voting-svc@voting-app?"));
}

#[test]
fn a_guardrail_is_named_and_its_contract_too() {
    let policy = voting_app().guardrail("shut", Action::Deny, "*", "*@voting-app", &["tcp/5432"]);
    let found = explain_text(&policy, "voting-svc@voting-app", "voting-db@voting-app", "tcp/5432");
    assert_eq!((found.guardrail.as_deref(), found.reason.as_str()), (Some("shut"), "guardrail-deny"));
    assert_eq!(
        findings(&found),
        ["Contract voting-backend@voting-app states this flow, and no contract overrides a guardrail"]
    );
}

fn rows(policy: &PolicyState, from: Option<&str>, to: Option<&str>) -> Vec<String> {
    let selector = |text: Option<&str>| text.map(|t| t.parse::<Selector>().expect("a selector"));
    let found = reach(policy, NOW_MS, selector(from).as_ref(), selector(to).as_ref()).expect("an answer");
    found.iter().map(|r| format!("{} {} {} {}", r.from.name, r.to.name, r.port, r.reason)).collect()
}

#[test]
fn reach_lists_what_the_contracts_state() {
    let policy = voting_app();
    assert_eq!(rows(&policy, None, None).len(), 7);
    assert_eq!(
        rows(&policy, Some("worker@voting-app"), None),
        ["worker result-db tcp/5432 contract", "worker voting-db tcp/6379 contract",]
    );
    assert_eq!(rows(&policy, Some("*@getaway-app"), Some("*@voting-app")), Vec::<String>::new());
    let wrong = reach(&policy, NOW_MS, Some(&"*@votin-app".parse().expect("a selector")), None);
    assert_eq!(
        wrong.expect_err("no such domain").to_string(),
        "*@votin-app selects no service: did you mean voting-app?"
    );
}

#[test]
fn any_is_one_row_until_a_guardrail_takes_a_part() {
    let policy = fabric()
        .contract("c@d", "client-server", &[("server", &["any"])])
        .service("a@d", &["client:c"])
        .service("b@d", &["server:c"]);
    assert_eq!(rows(&policy, None, None), ["a b any contract"]);
    let cut = policy.guardrail("no-ssh", Action::Deny, "*", "*", &["tcp/22"]);
    assert_eq!(
        rows(&cut, None, None),
        [
            "a b icmp contract",
            "a b other contract",
            "a b tcp/0-21 contract",
            "a b tcp/23-65535 contract",
            "a b udp contract",
        ]
    );
}

#[test]
fn guardrails_and_modes_show_in_reach() {
    let policy = fabric()
        .contract_in(Mode::Learn, "c@d", "client-server", &[("server", &["tcp/1"])])
        .service("a@d", &["client:c"])
        .service("b@d", &["server:c"])
        .service("x@e", &[])
        .guardrail("see", Action::Allow, "x@e", "b@d", &["udp/53"]);
    assert_eq!(rows(&policy, Some("x@e"), None), ["x b udp/53 guardrail-allow"]);
    assert_eq!(rows(&policy, Some("b@d"), Some("a@d")), ["b a any learned"]);
}

fn pattern(from: &str, to: &str, ports: Option<&str>) -> FlowPattern {
    FlowPattern {
        from: from.parse().expect("a selector"),
        to: to.parse().expect("a selector"),
        port: ports.map(port),
    }
}

fn judge_one(policy: &PolicyState, assertion: Assertion) -> AssertionResult {
    assert(policy, NOW_MS, &[assertion]).remove(0)
}

#[test]
fn isolation_is_proven_or_refuted_with_an_example() {
    let policy = voting_app();
    let apart = judge_one(&policy, Assertion::Deny(pattern("*@getaway-app", "*@voting-app", None)));
    assert!(apart.holds && apart.error.is_none(), "{apart:?}");
    assert_eq!(apart.pairs, 2 * 6);
    let leak =
        judge_one(&policy, Assertion::Deny(pattern("*", "voting-db@voting-app", Some("tcp/5000-6000"))));
    assert!(!leak.holds);
    assert_eq!(
        leak.counter_examples[0].to_string(),
        "voting-svc@voting-app may open tcp/5432 to voting-db@voting-app (Contract \
         voting-backend@voting-app: client may open tcp/5432 to server)"
    );
}

#[test]
fn reachability_is_proven_for_every_pair_and_port() {
    let policy = voting_app();
    let svc_to_db = |ports| {
        let flow = pattern("voting-svc@voting-app", "voting-db@voting-app", Some(ports));
        judge_one(&policy, Assertion::Allow(flow))
    };
    assert!(svc_to_db("tcp/5432").holds);
    let more = svc_to_db("tcp/5432-5433");
    assert_eq!(
        more.counter_examples[0].to_string(),
        "voting-svc@voting-app may not open tcp/5433 to voting-db@voting-app"
    );
    let all = judge_one(&policy, Assertion::Allow(pattern("*@voting-app", "*@voting-app", None)));
    assert_eq!((all.pairs, all.contradictions), (6 * 5, 6 * 5));
    assert_eq!(all.counter_examples.len(), MAX_COUNTER_EXAMPLES);
}

#[test]
fn an_assertion_on_nothing_proves_nothing() {
    let typo = judge_one(&voting_app(), Assertion::Deny(pattern("*@getaway-ap", "*@voting-app", None)));
    assert!(!typo.holds);
    assert_eq!(typo.error.as_deref(), Some("*@getaway-ap selects no service: did you mean getaway-app?"));
}

#[test]
fn assertions_have_the_form_that_people_write() {
    let text = r#"[{"deny": {"from": "*@a", "to": "*@b"}},
                   {"allow": {"from": "x@a", "to": "y@a", "port": "tcp/80"}}]"#;
    let parsed: Vec<Assertion> = serde_json::from_str(text).expect("assertions");
    let again: Vec<Assertion> =
        serde_json::from_str(&serde_json::to_string(&parsed).expect("json")).expect("json");
    assert_eq!(parsed, again);
    let shown: Vec<_> = parsed.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["deny *@a to *@b on any", "allow x@a to y@a on tcp/80"]);
}

#[test]
fn first_refused_ports_are_exact() {
    let policy = fabric()
        .contract("c@d", "client-server", &[("server", &["tcp/1-65535", "icmp"])])
        .service("a@d", &["client:c"])
        .service("b@d", &["server:c"]);
    let whole = PortRange { protocol: crate::object::Protocol::Tcp, low: 1, high: u16::MAX };
    let found = explain(&policy, NOW_MS, &object("a@d"), &object("b@d"), whole);
    assert_eq!(found.verdict, Outcome::Allow);
    assert_eq!(explain_text(&policy, "a@d", "b@d", "icmp").verdict, Outcome::Allow);
    assert_eq!(explain_text(&policy, "a@d", "b@d", "tcp").verdict, Outcome::Deny, "port 0 is not stated");
}
