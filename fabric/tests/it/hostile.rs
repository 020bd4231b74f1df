//! Bytes from outside: whatever they are, nothing panics, and what is taken is taken for what it is.

use selvedge_fabric::{
    command::{Apply, Command, Envelope, Role},
    key::{CommandId, FabricId, Hash, TokenId},
    manifest::{self, MAX_MANIFEST_BYTES},
    object::Object,
    policy::PolicyState,
    token::{ApiTokenText, JoinTokenText, Secret, ServiceTokenText},
};
use selvedge_fuzz::fuzz;

use crate::support::{Fabric, admit};

const SAMPLES: [&str; 3] = [
    include_str!("../../../configs/graphs/voting-app.yaml"),
    include_str!("../../../configs/graphs/getaway-app.yaml"),
    include_str!("../../../configs/graphs/every-kind.yaml"),
];

/// A fabric with every sample applied.
fn full_state() -> PolicyState {
    let mut fabric = Fabric::new();
    for sample in SAMPLES {
        fabric.yaml(sample).expect("applied");
    }
    fabric.state
}

#[test]
fn manifests() {
    let mut seeds: Vec<Vec<u8>> = SAMPLES.iter().map(|sample| sample.as_bytes().to_vec()).collect();
    let objects: Vec<Object> = full_state().objects().collect();
    seeds.push(manifest::to_json(&objects[..4]).into_bytes());
    seeds.push(manifest::to_yaml(&objects[..4]).into_bytes());
    seeds.push(b"{a: &a [x, *a], <<: *a, ? [b] : !c d, e: |\n  f\n}\n--- %YAML\n...\n".to_vec());
    fuzz("manifests", &seeds, |bytes| {
        let Ok(located) = manifest::parse_bytes(bytes, Some("f")) else { return };
        for text in [manifest::to_yaml(&located.objects), manifest::to_json(&located.objects)] {
            if text.len() <= MAX_MANIFEST_BYTES {
                assert_eq!(manifest::parse(&text, None).as_ref(), Ok(&located.objects), "{text}");
            }
        }
        // Judging them must not panic either, whatever they are.
        let mut fabric = Fabric::new();
        if let Err(selvedge_fabric::command::Refusal::Invalid(problems)) = fabric.set(located.objects.clone())
        {
            assert!(located.locate(problems).iter().all(|problem| problem.place.is_some()));
        }
    });
}

#[test]
fn snapshots() {
    let state = full_state();
    let mut next = Fabric::new();
    let command = next.envelope(Command::Rollback { to: 2, base: None });
    fuzz("snapshots", &[state.encode(), Fabric::new().state.encode()], |bytes| {
        let Ok(mut state) = PolicyState::decode(bytes) else { return };
        assert_eq!(PolicyState::decode(&state.encode()).as_ref(), Ok(&state));
        let _hash = state.intent_hash();
        let _refused_or_not = state.apply(&command);
        let apply =
            Command::Apply(Apply { delete: state.objects.keys().cloned().collect(), ..Apply::default() });
        let envelope =
            Envelope { id: CommandId([9; 16]), actor: String::new(), at_ms: u64::MAX, command: apply };
        let _refused_or_not = state.apply(&envelope);
    });
}

#[test]
fn commands() {
    let state = full_state();
    let set: Vec<Object> = state.objects().collect();
    let commands = [
        Command::Apply(Apply { set, ..Apply::default() }),
        Command::Admit(admit("w1", 3, Role::Workload)),
        Command::Rollback { to: 1, base: Some(4) },
    ];
    let json = commands.iter().map(|command| serde_json::to_vec(command).expect("JSON"));
    let binary = commands.iter().map(|command| postcard::to_allocvec(command).expect("postcard"));
    let seeds: Vec<Vec<u8>> = json.chain(binary).collect();
    fuzz("commands", &seeds, |bytes| {
        let json = serde_json::from_slice::<Command>(bytes).ok();
        let binary = postcard::from_bytes::<Command>(bytes).ok();
        for command in json.into_iter().chain(binary) {
            let mut state = state.clone();
            let envelope = Envelope { id: CommandId([9; 16]), actor: "x".to_owned(), at_ms: 0, command };
            let before = state.intent_hash();
            if state.apply(&envelope).is_err() {
                assert_eq!(state.intent_hash(), before);
            }
            assert_eq!(PolicyState::decode(&state.encode()).as_ref(), Ok(&state));
        }
    });
}

#[test]
fn tokens() {
    let secret = || Secret::new([5; 32]);
    let join = JoinTokenText {
        fabric: FabricId([7; 16]),
        fabric_name: crate::support::name("production"),
        ca_pin: Hash([3; 32]),
        seeds: vec!["seed.example.org:7401".parse().expect("a seed"), "[::1]:7401".parse().expect("a seed")],
        role: Role::Processor,
        zone: "aws/eu".parse().expect("a zone"),
        not_after_ms: 1_000,
        id: TokenId([3; 9]),
        secret: secret(),
    };
    let service = ServiceTokenText {
        fabric: FabricId([7; 16]),
        service: "web@app".parse().expect("a reference"),
        id: TokenId([3; 9]),
        seed: secret(),
        not_after_ms: 9,
    };
    let api = ApiTokenText { id: TokenId([3; 9]), secret: secret() };
    let texts = [join.expose(), service.expose(), api.expose()];
    let seeds: Vec<Vec<u8>> = texts.into_iter().map(|text| text.expect("a text").into_bytes()).collect();
    fuzz("tokens", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(token) = JoinTokenText::parse(text) {
            assert_eq!(token.expose().as_deref(), Ok(text.trim()));
        }
        if let Ok(token) = ServiceTokenText::parse(text) {
            assert_eq!(token.expose().as_deref(), Ok(text.trim()));
        }
        if let Ok(token) = ApiTokenText::parse(text) {
            assert_eq!(token.expose().as_deref(), Ok(text.trim()));
        }
    });
}
