use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::{
    command::Role,
    id::{Name, ZoneName},
};

fn join() -> JoinTokenText {
    JoinTokenText {
        fabric: FabricId([7; 16]),
        fabric_name: Name::new("production").expect("a name"),
        ca_pin: Hash([0xAB; 32]),
        seeds: vec![
            "seed-a.eu-central.example.org:7401".parse().expect("a seed"),
            "[2001:db8::1]:7401".parse().expect("a seed"),
            Seed::Address(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 7401))),
        ],
        role: Role::Processor,
        zone: "aws/eu-central-1".parse::<ZoneName>().expect("a zone"),
        not_after_ms: 1_000,
        id: TokenId([3; 9]),
        secret: Secret::new([0x5A; 32]),
    }
}

#[test]
fn tokens_survive_the_way_through_text() {
    let token = join();
    let text = token.expose().expect("a text");
    assert!(text.starts_with("selvedge-join-"));
    assert!(text.len() <= 512, "{} characters", text.len());
    assert_eq!(JoinTokenText::parse(&format!("  {text}\n")), Ok(token));

    let api = ApiTokenText { id: TokenId([1; 9]), secret: Secret::new([2; 32]) };
    assert_eq!(ApiTokenText::parse(&api.expose().expect("a text")), Ok(api));

    let service = ServiceTokenText {
        fabric: FabricId([7; 16]),
        service: "voting-svc@voting-app".parse().expect("a reference"),
        id: TokenId([1; 9]),
        seed: Secret::new([2; 32]),
        not_after_ms: 5,
    };
    assert_eq!(ServiceTokenText::parse(&service.expose().expect("a text")), Ok(service));
}

#[test]
fn every_truncation_and_every_slip_is_named() {
    let text = join().expose().expect("a text");
    for end in "selvedge-join-".len()..text.len() {
        let error = JoinTokenText::parse(&text[..end]).expect_err("truncated");
        assert!(matches!(error, TokenError::Damaged { .. }), "{end}: {error}");
    }
    for at in "selvedge-join-".len()..text.len() {
        let mut slip = text.clone();
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        slip.replace_range(at..=at, other);
        assert!(JoinTokenText::parse(&slip).is_err(), "{at}");
    }
    let broken = format!("{}\n{}", &text[..40], &text[40..]);
    let error = JoinTokenText::parse(&broken).expect_err("broken over two lines");
    assert!(error.to_string().contains("line break"), "{error}");
}

#[test]
fn a_token_in_the_wrong_place_is_named() {
    let text = join().expose().expect("a text");
    let error = ServiceTokenText::parse(&text).expect_err("wrong kind");
    assert_eq!(error.to_string(), "this is a join token, but a service token is needed here");
    let error = ApiTokenText::parse("hunter2").expect_err("no token");
    assert_eq!(error.to_string(), "this is no token: an API token starts with selvedge-api-");
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn an_expired_token_says_when() {
    let token = join();
    assert_eq!(token.check(999), Ok(()));
    let error = token.check(1_000).expect_err("expired");
    assert!(error.to_string().contains("1970-01-01T00:00:01Z"), "{error}");
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?} {:#?}", join(), join());
    assert!(!shown.contains("90"), "0x5A appears: {shown}");
    assert!(shown.contains("Secret(…)"));
    assert!(serde_json::to_string(&join()).is_err(), "nor does JSON");
}

#[test]
fn seeds_are_addresses_or_host_names() {
    for good in ["192.0.2.1:7401", "[2001:db8::1]:7401", "a.example:1", "localhost:65535"] {
        assert_eq!(good.parse::<Seed>().map(|s| s.to_string()).as_deref(), Ok(good));
    }
    for bad in
        ["", ":7401", "10.0.0.300:7401", "a.example", "a.example:0", "a b:1", "a:b:1", "a.example:99999"]
    {
        assert!(bad.parse::<Seed>().is_err(), "{bad}");
    }
}
