//! `resolve`.

use clap::Args;
use selvedge_fabric::id::ServiceRef;
use selvedge_node::api::types::{Answer, ResolveReply};

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::{Failure, Outcome},
    output::{Look, table::Table},
};

/// What the DNS answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge resolve voting-backend.voting-app
  selvedge resolve voting-backend.voting-app SRV --as voting-svc@voting-app
  selvedge resolve 5.1.64.127.in-addr.arpa PTR")]
pub(crate) struct ResolveArgs {
    /// The name; the suffix may be left out
    name: String,
    /// The record type: A, AAAA, SRV, TXT, PTR, SOA, NS, ANY
    #[arg(value_name = "TYPE", default_value = "A")]
    kind: String,
    /// See only what this service may reach
    #[arg(long = "as", value_name = "SERVICE")]
    asker: Option<ServiceRef>,
}

pub(crate) async fn run(global: &Global, args: ResolveArgs) -> Outcome {
    let ask = Ask::get("/v1/resolve")
        .query("name", &args.name)
        .query("type", args.kind.to_ascii_uppercase())
        .maybe("as", args.asker);
    let reply: ResolveReply = global.client()?.ask(ask).await?;
    global.printer().show(&reply, |look| table(&reply, look))?;
    match reply.rcode.as_str() {
        "NOERROR" => DONE,
        rcode => Err(Failure::new(format!("{} {}: {rcode}", reply.name, reply.kind))),
    }
}

fn table(reply: &ResolveReply, look: Look) -> String {
    let mut rows = Table::new(look, &["NAME", ">TTL", "TYPE", "DATA"]);
    let records: Vec<&Answer> = match look.wide {
        true => reply.answers.iter().chain(&reply.additional).collect(),
        false => reply.answers.iter().collect(),
    };
    for record in records {
        rows.row([
            record.name.as_str().into(),
            record.ttl.to_string().into(),
            record.kind.as_str().into(),
            record.data.as_str().into(),
        ]);
    }
    rows.or(&format!("no {} record", reply.kind))
}
