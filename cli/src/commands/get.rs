//! `get`: objects, with the columns that matter for their kind.

use clap::Args;
use selvedge_fabric::object::Kind;
use selvedge_node::api::{key, types::Manifest};
use serde_json::Value;

use super::{DONE, ReadArgs};
use crate::{
    args::Global,
    client::{Ask, escape},
    failure::Outcome,
    output::{
        Look,
        table::{Cell, Table},
    },
};

/// List objects, or show one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge get contracts --domain voting-app
  selvedge get service voting-svc@voting-app -o yaml    a manifest that can be applied again
  selvedge get all
Kinds: zone, link, domain, template, contract, service, guardrail, external")]
pub(crate) struct GetArgs {
    /// The kind, singular or plural, or all
    kind: String,
    /// The name, name@domain for kinds that live in a domain
    name: Option<String>,
    /// Only what lives in this domain
    #[arg(long, value_name = "D", conflicts_with = "name")]
    domain: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) async fn run(global: &Global, args: GetArgs) -> Outcome {
    let kind = match args.kind.as_str() {
        "all" => None,
        text => Some(key::parse_kind(text)?),
    };
    let (client, printer) = (global.client()?, global.printer());
    if let (Some(kind), Some(name)) = (kind, &args.name) {
        key::parse(kind, name)?;
        let ask = Ask::get(format!("/v1/objects/{kind}/{}", escape(name)));
        let object: Manifest = client.ask(ask.linearizable(args.read.linearizable)).await?;
        let one = std::slice::from_ref(&object);
        printer.show_manifests(&object, one, |look| table(Some(kind), one, look))?;
        return DONE;
    }
    let ask = Ask::get("/v1/objects").maybe("kind", kind).maybe("domain", args.domain.as_ref());
    let objects: Vec<Manifest> = client.ask(ask.linearizable(args.read.linearizable)).await?;
    printer.show_manifests(&objects, &objects, |look| table(kind, &objects, look))?;
    DONE
}

/// Columns of a kind: header and where the text is in the spec. The last is shown in wide tables alone.
fn columns(kind: Option<Kind>) -> &'static [(&'static str, &'static str)] {
    match kind {
        None => &[],
        Some(Kind::Zone) => &[("REFUSES TRANSIT", "/refuseTransit")],
        Some(Kind::Link) => &[("NODES", "/nodes"), ("COST", "/cost"), ("ENABLED", "/enabled")],
        Some(Kind::Domain) => &[("ADMINS", "/admins"), ("MAX POLICY AGE", "/maxPolicyAge")],
        Some(Kind::Template) => &[("ROLES", "/roles"), ("FLOWS", "/flows")],
        Some(Kind::Contract) => {
            &[("TEMPLATE", "/template"), ("PORTS", "/roles"), ("MODE", "/mode"), ("ENDS", "/expiresAt")]
        }
        Some(Kind::Service) => &[("ROLES", "/roles")],
        Some(Kind::Guardrail) => {
            &[("ACTION", "/action"), ("FROM", "/from"), ("TO", "/to"), ("PORTS", "/ports")]
        }
        Some(Kind::External) => &[("ADDRESSES", "/addresses"), ("ROLES", "/roles")],
    }
}

fn table(kind: Option<Kind>, objects: &[Manifest], look: Look) -> String {
    let in_domain = objects.iter().any(|o| o.metadata.domain.is_some());
    let specific = columns(kind);
    let mut headers = Vec::new();
    headers.extend(kind.is_none().then_some("KIND"));
    headers.push("NAME");
    headers.extend(in_domain.then_some("DOMAIN"));
    headers.extend(specific.iter().map(|(header, _)| *header));
    // Links have no description.
    headers.extend((kind.is_none() || look.wide).then_some("DESCRIPTION"));
    let mut rows = Table::new(look, &headers);
    for object in objects {
        let mut row: Vec<Cell> = Vec::new();
        row.extend(kind.is_none().then(|| object.kind.as_str().into()));
        row.push(object.metadata.name.as_str().into());
        row.extend(in_domain.then(|| Cell::maybe(object.metadata.domain.as_ref())));
        for (_, pointer) in specific {
            row.push(Cell::word(object.spec.pointer(pointer).map(short).unwrap_or_default()));
        }
        row.push(object.spec.pointer("/description").map(short).unwrap_or_default().into());
        rows.row(row);
    }
    rows.or(&format!("no {}", kind.map_or("object".to_owned(), |k| k.to_string().to_lowercase())))
}

/// A value of a spec in a few words.
fn short(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Object(fields) => match (fields.get("from"), fields.get("to")) {
            (Some(from), Some(to)) => format!("{}→{}", short(from), short(to)),
            _ => fields.iter().map(|(name, v)| role(name, v)).collect::<Vec<_>>().join(" "),
        },
    }
}

/// A role of a contract with its ports.
fn role(name: &str, value: &Value) -> String {
    let ports = value.get("ports").map(short).unwrap_or_default();
    if ports.is_empty() { name.to_owned() } else { format!("{name}:{ports}") }
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::types::Metadata;
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, domain: Option<&str>, spec: Value) -> Manifest {
        Manifest {
            api_version: "selvedge/v1".into(),
            kind: kind.into(),
            metadata: Metadata { name: name.into(), domain: domain.map(str::to_owned) },
            spec,
        }
    }

    #[test]
    fn contracts_show_ports_and_mode() {
        let spec = json!({"description": "votes", "template": "client-server", "mode": "enforce",
            "roles": {"server": {"ports": ["tcp/5432", "udp/53"]}}});
        let objects = [object("Contract", "voting-backend", Some("voting-app"), spec)];
        let expected = "\
NAME            DOMAIN      TEMPLATE       PORTS                   MODE     ENDS
voting-backend  voting-app  client-server  server:tcp/5432,udp/53  enforce  -
";
        assert_eq!(table(Some(Kind::Contract), &objects, Look::PLAIN), expected);
        let wide = table(Some(Kind::Contract), &objects, Look { wide: true, colour: false });
        assert!(wide.lines().nth(1).is_some_and(|l| l.ends_with("votes")), "{wide}");
    }

    #[test]
    fn other_kinds_show_what_matters() {
        let rail = json!({"action": "deny", "from": "*@a", "to": "b@c", "ports": []});
        let text = table(Some(Kind::Guardrail), &[object("Guardrail", "g", None, rail)], Look::PLAIN);
        assert_eq!(text, "NAME  ACTION  FROM  TO   PORTS\ng     deny    *@a   b@c  -\n");
        let template = json!({"roles": ["a", "b"], "flows": [{"from": "a", "to": "b"}]});
        let text = table(Some(Kind::Template), &[object("Template", "t", None, template)], Look::PLAIN);
        assert_eq!(text, "NAME  ROLES  FLOWS\nt     a,b    a→b\n");
        assert_eq!(table(Some(Kind::Zone), &[], Look::PLAIN), "no zone\n");
    }

    #[test]
    fn all_kinds_together_are_told_apart() {
        let objects = [
            object("Domain", "shop", None, json!({"description": "A shop"})),
            object("Service", "web", Some("shop"), json!({"roles": []})),
        ];
        let text = table(None, &objects, Look::PLAIN);
        assert_eq!(
            text,
            "KIND     NAME  DOMAIN  DESCRIPTION\nDomain   shop  -       A shop\nService  web   shop    -\n"
        );
    }
}
