//! Bytes from outside: whatever they are, nothing panics, and what is taken is taken for what it is.
//!
//! Each target gets mutations of valid inputs, which reach deeper than noise does, and noise. By default
//! a few hundred cases each; `SELVEDGE_FUZZ_SECONDS` sets how long each target runs instead.

use std::time::{Duration, Instant};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use selvedge_fabric::{
    command::{Apply, Command, Envelope, Role},
    key::{CommandId, FabricId, Hash, TokenId},
    manifest::{self, MAX_MANIFEST_BYTES},
    object::Object,
    policy::PolicyState,
    token::{ApiTokenText, JoinTokenText, Secret, ServiceTokenText},
};

use crate::support::{Fabric, admit};

const SAMPLES: [&str; 3] = [
    include_str!("../../../configs/graphs/voting-app.yaml"),
    include_str!("../../../configs/graphs/getaway-app.yaml"),
    include_str!("../../../configs/graphs/every-kind.yaml"),
];

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
    Truncate(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // What has a meaning in YAML, JSON or base64 breaks more than any byte does.
    let telling = proptest::sample::select(b":-[]{},&*!|>'\"#%@`\n\t \\0~?A_/".to_vec());
    let byte = || prop_oneof![2 => telling.clone(), 1 => any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), vec(byte(), 1..6)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (any::<Index>(), any::<Index>(), 1..400_usize).prop_map(|(from, to, n)| Mutation::Copy(from, to, n)),
        any::<Index>().prop_map(Mutation::Truncate),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let at = |index: &Index, bytes: &Vec<u8>| index.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(index, byte) => {
            let at = at(index, bytes);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Mutation::Insert(index, new) => {
            let at = at(index, bytes);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Remove(index, count) => {
            let at = at(index, bytes);
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Mutation::Copy(from, to, count) => {
            let (from, to) = (at(from, bytes), at(to, bytes));
            let part = bytes[from..(from + count).min(bytes.len())].to_vec();
            bytes.splice(to..to, part);
        }
        Mutation::Truncate(index) => bytes.truncate(at(index, bytes)),
    }
}

/// Runs `target` on mutated seeds and on noise.
pub(crate) fn fuzz(seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let mutated = (proptest::sample::select(seeds.to_vec()), vec(mutation(), 0..8)).prop_map(
        |(mut bytes, mutations)| {
            mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
            bytes
        },
    );
    let inputs = prop_oneof![8 => mutated, 1 => vec(any::<u8>(), 0..300)];
    let seconds = std::env::var("SELVEDGE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let config =
        Config { cases: 300, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new(config);
    loop {
        let run = runner.run(&inputs, |bytes| {
            target(&bytes);
            Ok(())
        });
        if let Err(failure) = run {
            panic!("{failure}");
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            return;
        }
    }
}

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
    fuzz(&seeds, |bytes| {
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
    fuzz(&[state.encode(), Fabric::new().state.encode()], |bytes| {
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
    fuzz(&seeds, |bytes| {
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
    fuzz(&seeds, |bytes| {
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
