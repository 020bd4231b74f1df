//! The JSON Schema of manifests, made from the types, so that editors complete and check them.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::API_VERSION;
use crate::drill::DrillSpec;
use crate::object::{
    ContractSpec, DomainRule, DomainSpec, ExternalSpec, GuardrailSpec, Kind, LinkSpec, ServiceSpec,
    TemplateSpec, ZoneSpec,
};

/// A DNS label, as [`Name`](crate::id::Name) takes it.
const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// One label, or two with a slash between, as [`ZoneName`](crate::id::ZoneName) takes it.
const ZONE_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$";

/// The schema (draft 2020-12) of one document of any kind.
#[must_use]
pub fn json_schema() -> Value {
    let documents: Vec<Value> = Kind::ALL.into_iter().map(document).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Selvedge manifest",
        "description": "One document of intent. The fabric checks more than a schema can say.",
        "oneOf": documents,
    })
}

/// The schema (draft 2020-12) of a drill.
#[must_use]
pub fn drill_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Selvedge drill",
        "description": "A rehearsal of a failure. `selvedge drill check` checks more than a schema can say.",
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": "Drill"},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "pattern": NAME_PATTERN}},
                "required": ["name"],
                "additionalProperties": false,
            },
            "spec": of::<DrillSpec>(),
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
    })
}

fn document(kind: Kind) -> Value {
    let spec = spec(kind);
    let pattern = if kind == Kind::Zone { ZONE_PATTERN } else { NAME_PATTERN };
    let mut metadata = Map::from_iter([("name".to_owned(), json!({"type": "string", "pattern": pattern}))]);
    let mut named = vec!["name"];
    if kind.domain_rule() != DomainRule::Forbidden {
        metadata.insert("domain".to_owned(), json!({"type": "string", "pattern": NAME_PATTERN}));
    }
    if kind.domain_rule() == DomainRule::Required {
        named.push("domain");
    }
    let mut required = vec!["apiVersion", "kind", "metadata"];
    // A spec whose fields all have defaults may be left out.
    if spec.get("required").is_some() {
        required.push("spec");
    }
    json!({
        "title": kind,
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": {
                "type": "object",
                "properties": metadata,
                "required": named,
                "additionalProperties": false,
            },
            "spec": spec,
        },
        "required": required,
        "additionalProperties": false,
    })
}

fn spec(kind: Kind) -> Value {
    match kind {
        Kind::Zone => of::<ZoneSpec>(),
        Kind::Link => of::<LinkSpec>(),
        Kind::Domain => of::<DomainSpec>(),
        Kind::Template => of::<TemplateSpec>(),
        Kind::Contract => of::<ContractSpec>(),
        Kind::Service => of::<ServiceSpec>(),
        Kind::Guardrail => of::<GuardrailSpec>(),
        Kind::External => of::<ExternalSpec>(),
    }
}

fn of<T: JsonSchema>() -> Value {
    // Inlined, so that each kind stands by itself and no reference leads out of it.
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
