//! What people get to read when a manifest is wrong, and that a written one reads back.

use selvedge_fabric::manifest::{self, MAX_MANIFEST_BYTES};

use crate::support::Fabric;

/// The problems of a text, one a line.
fn problems(text: &str) -> String {
    match manifest::parse(text, Some("f.yaml")) {
        Ok(objects) => panic!("{} objects where problems were expected", objects.len()),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let text = "\
apiVersion: selvedge/v2
kind: Contract
metadata: {name: Voting, domain: app, label: x}
spec:
  template: client-server
  template: peer
  roles: {server: {prots: [tcp/80]}}
  mode: enforced
  path: {maxHops: 99}
  ttl: 2 hours
---
kind: Servise
metadata: {name: 80}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: web}
spec: {roles: [server-frontend, \"server:10.0.0.1\"], description: [a]}
";
    let expected = "\
f.yaml:1:13: Contract: apiVersion: \"selvedge/v2\" is not known (write selvedge/v1)
f.yaml:3:18: Contract: metadata.name: \"Voting\" may hold only a-z, 0-9 and '-', and must start and end with a letter or digit
f.yaml:3:39: Contract: metadata.label: is no field here (known: name, domain)
f.yaml:6:3: the key \"template\" is there twice, first in line 5 (keep one of the two)
f.yaml:7:20: Contract: spec.roles.server.prots: is no field here (did you mean ports?)
f.yaml:8:9: Contract: spec.mode: \"enforced\" is not one of enforce, audit, learn (did you mean enforce?)
f.yaml:9:19: Contract: spec.path.maxHops: must be a whole number from 1 to 32, found the number 99
f.yaml:10:8: Contract: spec.ttl: \"2 hours\" is no duration; write one such as 2h, 30m, 1h30m or 250ms
f.yaml:12:1: apiVersion: is required
f.yaml:12:7: kind: \"Servise\" is not one of Zone, Link, Domain, Template, Contract, Service, Guardrail, External (did you mean Service?)
f.yaml:13:18: metadata.name: must be text, found the number 80 (put it in quotes: \"80\")
f.yaml:17:11: Service: metadata.domain: is required: a Service lives in a domain
f.yaml:18:16: Service web: spec.roles[0]: \"server-frontend\" must have the form role:contract
f.yaml:18:33: Service web: spec.roles[1]: \"10.0.0.1\" must have the form name@domain (addresses appear only in an External; declare one and name it here)
f.yaml:18:66: Service web: spec.description: must be text, found a list";
    let found = problems(text);
    assert_eq!(found, expected, "\n{found}");
}

#[test]
fn a_broken_document_does_not_hide_the_next() {
    let found =
        problems("kind: [unclosed\n---\nkind: Nothing\n---\na: \"b\n--- \nkind: Zone\nmetadata: {}\n");
    for needle in [
        "f.yaml:2:",
        "\"Nothing\" is not one of",
        "f.yaml:5:4: not valid YAML",
        "f.yaml:8:11: Zone: metadata.name: is required",
    ] {
        assert!(found.contains(needle), "{needle}\n{found}");
    }
}

#[test]
fn what_only_the_fabric_finds_is_shown_at_its_place_too() {
    let mut fabric = Fabric::new();
    let text = "\
apiVersion: selvedge/v1
kind: Domain
metadata: {name: node}
---
apiVersion: selvedge/v1
kind: Contract
metadata: {name: front, domain: app}
spec:
  template: client-sever
  roles: {}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: web, domain: app}
spec: {roles: [server:front, server:frnt]}
";
    let found = fabric.yaml(text).expect_err("refused");
    for needle in [
        "-:3:12: Domain node: metadata.name: the domain name \"node\" is reserved",
        "-:7:25: Contract front@app: metadata.domain: there is no Domain app",
        "-:9:3: Contract front@app: spec.template: there is no template client-sever in the domain app (did you mean client-server?)",
        "-:15:30: Service web@app: spec.roles[1]: there is no Contract frnt@app (did you mean Contract front@app?)",
    ] {
        assert!(found.contains(needle), "{needle}\n{found}");
    }
}

#[test]
fn bounds_hold() {
    assert!(problems(&"[".repeat(40)).contains("nested more than 32 deep"));
    assert!(problems(&"[".repeat(100_000)).contains("recursion limit exceeded"));
    assert!(problems(&"- ".repeat(100_000)).contains("nested more than 32 deep"));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let row = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{row}]\n"));
    }
    assert!(problems(&bomb).contains("more than 250000 values"));
    assert!(problems(&" ".repeat(MAX_MANIFEST_BYTES + 1)).contains("split it into several files"));
    assert!(problems("a: &a [*a]").contains("not complete"));
    let found = manifest::parse_bytes(b"kind: Zone\nname: \xff", None).expect_err("not UTF-8");
    assert_eq!(found[0].to_string(), "-:2:7: not UTF-8 (save the file as UTF-8 text)");
}

#[test]
fn json_is_read_as_well() {
    let text = "[\n\t{\"apiVersion\": \"selvedge\\/v1\", \"kind\": \"Zone\", \"metadata\": {\"name\": \"aws\"},\
                \n\t\"spec\": {\"description\": \"\\u00fc \\ud83d\\ude00\"}}\n]\n";
    let objects = manifest::parse(text, None).unwrap_or_else(|p| panic!("{p:#?}"));
    assert_eq!(objects[0].spec.description(), "ü 😀");
    assert_eq!(manifest::parse("", None), Ok(Vec::new()));
    assert_eq!(manifest::parse("# nothing\n---\n", None), Ok(Vec::new()));
}

#[test]
fn what_is_written_reads_well() {
    let mut fabric = Fabric::new();
    fabric.yaml(include_str!("../../../configs/graphs/every-kind.yaml")).expect("applied");
    let objects: Vec<_> = fabric.state.objects().collect();
    let yaml = manifest::to_yaml(&objects);
    assert_eq!(manifest::parse(&yaml, None).as_ref(), Ok(&objects), "{yaml}");
    let json = manifest::to_json(&objects);
    assert_eq!(manifest::parse(&json, None).as_ref(), Ok(&objects), "{json}");
    let contract = "\
apiVersion: selvedge/v1
kind: Contract
metadata: {name: orders, domain: shop}
spec:
  description: The page sends orders.
  template: client-server
  roles:
    server: {ports: [tcp/443, tcp/8000-8100]}
  mode: enforce
  path:
    via: [aws]
    avoid: [azr, gcp/us-east1]
    maxHops: 4
";
    assert!(yaml.contains(contract), "{yaml}");
}

#[test]
fn the_schema_covers_every_kind() {
    let schema = manifest::json_schema();
    let kinds = schema["oneOf"].as_array().expect("kinds");
    assert_eq!(kinds.len(), 8);
    for kind in kinds {
        assert_eq!(kind["properties"]["spec"]["additionalProperties"], false, "{kind:#}");
    }
    assert_eq!(kinds[4]["required"], serde_json::json!(["apiVersion", "kind", "metadata", "spec"]));
    assert!(!schema.to_string().contains("$ref"), "every kind stands by itself");
}

#[test]
fn the_published_schema_is_the_one_of_the_types() {
    let published = include_str!("../../../configs/schema/selvedge-v1.json");
    let published: serde_json::Value = serde_json::from_str(published).expect("JSON");
    let generated = manifest::json_schema();
    assert!(published == generated, "put this into configs/schema/selvedge-v1.json:\n{generated:#}");
}
