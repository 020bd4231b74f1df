//! Values as YAML. Whatever YAML might take for something else is quoted as JSON quotes it, which YAML
//! understands; so nothing is ever ambiguous.

use selvedge_fabric::manifest;
use selvedge_node::api::types::Manifest;
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// Words that some version of YAML takes for a boolean, null or number.
const RESERVED: [&str; 11] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"];

/// One document.
pub(crate) fn one<T: Serialize>(value: &T) -> Outcome<String> {
    let value =
        serde_json::to_value(value).map_err(|e| Failure::new(format!("cannot show this as YAML: {e}")))?;
    let mut text = String::new();
    match &value {
        Value::Object(fields) if !fields.is_empty() => map(&mut text, &value, 0),
        Value::Array(items) if !items.is_empty() => list(&mut text, items, 0),
        scalar => text.push_str(&format!("{}\n", inline(scalar))),
    }
    Ok(text)
}

/// Manifests as people write them, ready to be applied again.
pub(crate) fn manifests(manifests: &[Manifest]) -> Outcome<String> {
    let json = serde_json::to_string(manifests)
        .map_err(|e| Failure::new(format!("cannot show this as YAML: {e}")))?;
    match manifest::parse(&json, None) {
        Ok(objects) => Ok(manifest::to_yaml(&objects)),
        // A newer node may know kinds and fields that this program does not.
        Err(_) => {
            let documents = manifests.iter().map(one).collect::<Outcome<Vec<_>>>()?;
            Ok(documents.join("---\n"))
        }
    }
}

fn map(text: &mut String, value: &Value, indent: usize) {
    for (i, (name, value)) in value.as_object().into_iter().flatten().enumerate() {
        // The first field of a list's item stands behind its dash.
        if i > 0 || !text.ends_with("- ") {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&format!("{}:", string(name)));
        below(text, value, indent);
    }
}

fn list(text: &mut String, items: &[Value], indent: usize) {
    for item in items {
        text.push_str(&format!("{}- ", " ".repeat(indent)));
        match item {
            Value::Object(fields) if !fields.is_empty() => map(text, item, indent + 2),
            other => text.push_str(&format!("{}\n", inline(other))),
        }
    }
}

/// A field's value: behind the colon, or below it.
fn below(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            map(text, value, indent + 2);
        }
        Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_array()) => {
            text.push('\n');
            list(text, items, indent);
        }
        other => text.push_str(&format!(" {}\n", inline(other))),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        // JSON is YAML; only an empty or deeply nested map gets here.
        other => other.to_string(),
    }
}

fn string(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./@+-".contains(c))
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::types::Metadata;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_read_well() {
        let value = json!({
            "name": "aws-1", "voter": true, "rtt_ms": null, "addresses": ["127.0.0.1:80", "tcp/80"],
            "empty": [], "ports": [{"protocol": "tcp", "local": 80}], "deep": {"a": {"b": "yes"}},
        });
        let expected = "\
addresses: [\"127.0.0.1:80\", tcp/80]
deep:
  a:
    b: \"yes\"
empty: []
name: aws-1
ports:
- local: 80
  protocol: tcp
rtt_ms: null
voter: true
";
        assert_eq!(one(&value).expect("YAML"), expected);
        assert_eq!(one(&json!([{"a": 1, "b": 2}])).expect("YAML"), "- a: 1\n  b: 2\n");
        assert_eq!(one(&json!([])).expect("YAML"), "[]\n");
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        for text in
            ["", "No", "1e3", "0x1", "2026-01-01", "a: b", "# x", "- y", " z", "*", "a\nb", "ä", "~", ".inf"]
        {
            assert!(string(text).starts_with('"'), "{text}");
        }
        for text in ["aws/east", "voting-svc@voting-app", "/run/x.sock", "enforce"] {
            assert_eq!(string(text), text);
        }
    }

    #[test]
    fn manifests_can_be_applied_again() {
        let domain = Manifest {
            api_version: "selvedge/v1".into(),
            kind: "Domain".into(),
            metadata: Metadata { name: "shop".into(), domain: None },
            spec: json!({"description": "yes: it's"}),
        };
        let mut other = domain.clone();
        other.metadata.name = "fair".into();
        let text = manifests(&[domain, other]).expect("YAML");
        let objects = manifest::parse(&text, None).expect("manifests");
        assert_eq!(objects.len(), 2);
        assert_eq!(manifest::to_value(&objects[0])["spec"]["description"], "yes: it's");
    }
}
