//! Snapshots outlive versions.

use selvedge_fabric::policy::{DecodeError, PolicyState, SNAPSHOT_FORMAT};

use crate::support::Fabric;

fn state() -> PolicyState {
    let mut fabric = Fabric::new();
    fabric.yaml(include_str!("../../../configs/graphs/every-kind.yaml")).expect("applied");
    fabric.state
}

/// Adds a field to every map, as a newer version might.
fn add_fields(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(add_fields);
            // What serde tags by its only key is an enum, and maps by name hold no fields.
            if fields.contains_key("description") || fields.contains_key("revision") {
                fields.insert("fromTheFuture".to_owned(), serde_json::json!({"a": 1}));
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(add_fields),
        _ => {}
    }
}

#[test]
fn fields_of_a_newer_version_are_skipped() {
    let state = state();
    let mut value = serde_json::from_slice(&state.encode()).expect("JSON");
    add_fields(&mut value);
    let text = value.to_string();
    assert!(text.matches("fromTheFuture").count() > 10);
    assert_eq!(PolicyState::decode(text.as_bytes()), Ok(state));
}

#[test]
fn fields_that_an_older_version_lacked_get_their_default() {
    let text = format!("{{\"format\": {SNAPSHOT_FORMAT}, \"state\": {{\"revision\": 7}}}}");
    let state = PolicyState::decode(text.as_bytes()).expect("a snapshot");
    assert_eq!((state.revision, state.objects.len()), (7, 0));
}

#[test]
fn a_newer_format_and_damage_are_told_apart() {
    let newer = PolicyState::decode(b"{\"format\": 99, \"state\": [\"something else\"]}");
    assert_eq!(newer, Err(DecodeError::Format { found: 99 }));
    let whole = state().encode();
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert!(matches!(PolicyState::decode(&whole[..end]), Err(DecodeError::Malformed(_))), "{end}");
    }
}
