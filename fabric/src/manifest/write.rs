//! From objects to text that reads back as the same objects.

use serde_json::{Map, Value, json};

use super::{API_VERSION, scalar};
use crate::{
    id::Name,
    object::{Object, RoleBinding, Spec},
};

/// Fields in the order in which people expect them; others follow by name.
const FIELD_ORDER: [&str; 25] = [
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "domain",
    "description",
    "action",
    "template",
    "nodes",
    "from",
    "to",
    "roles",
    "flows",
    "ports",
    "addresses",
    "mode",
    "path",
    "via",
    "avoid",
    "maxHops",
    "cost",
    "enabled",
    "ttl",
    "expiresAt",
];
/// A list or map of scalars that fits a line of this many characters is written in one line.
const LINE_CHARS: usize = 88;

/// The objects as YAML, one document each.
#[must_use]
pub fn to_yaml(objects: &[Object]) -> String {
    let mut text = String::new();
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            text.push_str("---\n");
        }
        block(&mut text, &to_value(object), 0);
    }
    text
}

/// The objects as a JSON list of documents.
#[must_use]
pub fn to_json(objects: &[Object]) -> String {
    format!("{:#}\n", Value::Array(objects.iter().map(to_value).collect()))
}

/// One object as a document.
#[must_use]
pub fn to_value(object: &Object) -> Value {
    let mut metadata = Map::from_iter([("name".to_owned(), json!(object.key.name))]);
    if let Some(domain) = &object.key.domain {
        metadata.insert("domain".to_owned(), json!(domain));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": object.key.kind,
        "metadata": metadata,
        "spec": spec_value(object),
    })
}

fn spec_value(object: &Object) -> Value {
    // Plain data without maps of odd keys: has no way to fail.
    let value = |spec: Result<Value, serde_json::Error>| spec.unwrap_or_default();
    let mut value = match &object.spec {
        Spec::Zone(spec) => value(serde_json::to_value(spec)),
        Spec::Link(spec) => value(serde_json::to_value(spec)),
        Spec::Domain(spec) => value(serde_json::to_value(spec)),
        Spec::Template(spec) => value(serde_json::to_value(spec)),
        Spec::Contract(spec) => value(serde_json::to_value(spec)),
        Spec::Service(spec) => value(serde_json::to_value(spec)),
        Spec::Guardrail(spec) => value(serde_json::to_value(spec)),
        Spec::External(spec) => value(serde_json::to_value(spec)),
    };
    let Value::Object(fields) = &mut value else { return value };
    if let Spec::Service(crate::object::ServiceSpec { roles, .. })
    | Spec::External(crate::object::ExternalSpec { roles, .. }) = &object.spec
    {
        let short = roles.iter().map(|binding| json!(short(binding, object.key.domain.as_ref())));
        fields.insert("roles".to_owned(), short.collect());
    }
    drop_defaults(fields, &object.spec);
    value
}

/// A binding as people write it: without the domain when that is the object's own.
fn short(binding: &RoleBinding, home: Option<&Name>) -> String {
    if home == Some(&binding.contract.domain) {
        format!("{}:{}", binding.role, binding.contract.name)
    } else {
        binding.to_string()
    }
}

/// Leaves out what says nothing: null, empty text, empty lists. Fields that a manifest must have stay.
fn drop_defaults(fields: &mut Map<String, Value>, spec: &Spec) {
    let required: &[&str] = match spec {
        Spec::Template(_) => &["roles", "flows"],
        Spec::Contract(_) => &["roles"],
        Spec::External(_) => &["addresses"],
        _ => &[],
    };
    if let Some(Value::Object(path)) = fields.get_mut("path") {
        path.retain(|_, value| !is_empty(value));
    }
    fields.retain(|field, value| required.contains(&field.as_str()) || !is_empty(value));
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Writes a map at the start of a line.
fn block(text: &mut String, value: &Value, indent: usize) {
    let Value::Object(fields) = value else { return };
    for (field, value) in in_order(fields) {
        text.push_str(&" ".repeat(indent));
        text.push_str(&scalar_text(field));
        text.push(':');
        nested(text, value, indent);
    }
}

/// Writes what follows a key, to the end of the line or in lines of its own.
fn nested(text: &mut String, value: &Value, indent: usize) {
    if let Some(flow) = flow(value).filter(|flow| indent + flow.len() <= LINE_CHARS) {
        text.push(' ');
        text.push_str(&flow);
        text.push('\n');
        return;
    }
    match value {
        Value::Array(items) => {
            text.push('\n');
            for item in items {
                text.push_str(&" ".repeat(indent + 2));
                text.push_str("- ");
                text.push_str(&flow_at_any_length(item));
                text.push('\n');
            }
        }
        Value::Object(_) => {
            text.push('\n');
            block(text, value, indent + 2);
        }
        scalar => {
            text.push(' ');
            text.push_str(&flow_at_any_length(scalar));
            text.push('\n');
        }
    }
}

/// The value in one line, if it is one that reads well so: `spec` and maps of maps do not.
fn flow(value: &Value) -> Option<String> {
    let scalar = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
    let simple = match value {
        Value::Array(items) => items.iter().all(scalar),
        Value::Object(fields) if fields.contains_key("name") || fields.len() <= 1 => {
            fields
                .values()
                .all(|value| scalar(value) || value.as_array().is_some_and(|a| a.iter().all(scalar)))
                && !fields.contains_key("description")
        }
        Value::Object(fields) => fields.is_empty(),
        _ => true,
    };
    simple.then(|| flow_at_any_length(value))
}

fn flow_at_any_length(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(flow_at_any_length).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("{}: {}", scalar_text(key), flow_at_any_length(value))
            };
            let entries: Vec<_> = in_order(fields).into_iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::String(text) => scalar_text(text),
        other => other.to_string(),
    }
}

fn in_order(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = fields.iter().collect();
    let rank = |field: &str| FIELD_ORDER.iter().position(|known| *known == field).unwrap_or(usize::MAX);
    entries.sort_by_key(|(field, _)| (rank(field), (*field).clone()));
    entries
}

/// Text as a plain scalar when every reader takes it as that text, in double quotes otherwise.
fn scalar_text(text: &str) -> String {
    let plain_char = |c: char| c.is_ascii_alphanumeric() || " _-./@:+()'".contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let ambiguous = text.contains(": ") || text.ends_with([':', ' ']) || looks_like_yaml_1_1(text);
    if starts_well
        && !ambiguous
        && text.chars().all(plain_char)
        && scalar::classify(text) == scalar::Plain::Text
    {
        return text.to_owned();
    }
    quoted(text)
}

/// Words and times that YAML 1.1 readers do not take as text.
fn looks_like_yaml_1_1(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let word = matches!(lower.as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    let starts_with_digit = text.starts_with(|c: char| c.is_ascii_digit());
    word || (starts_with_digit && text.chars().all(|c| c.is_ascii_digit() || "-:.+_eETZxo".contains(c)))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            // Not printable in YAML, or taken as line breaks by some reader.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unmistakable_text_is_plain() {
        for plain in
            ["voting-svc", "tcp/80", "server:voting-frontend", "The page on which people vote.", "a@b"]
        {
            assert_eq!(scalar_text(plain), plain);
        }
        for text in [
            "",
            "80",
            "1e5",
            "true",
            "no",
            "a: b",
            "a #b",
            "*",
            "*@x",
            "- a",
            "a,b",
            "[a",
            "2026-12-24T18:00:00Z",
            "ends:",
            "ä",
        ] {
            assert_eq!(scalar_text(text), format!("\"{text}\""));
        }
        assert_eq!(scalar_text("a\"\\\n\u{7f}"), "\"a\\\"\\\\\\n\\u007f\"");
    }
}
