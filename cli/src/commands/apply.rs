//! `apply` and `diff`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use selvedge_fabric::Revision;
use selvedge_node::api::{
    FILES_MEDIA_TYPE,
    types::{ApplyReply, Change, Manifest, ManifestFiles, Straggler, WaitReply},
};
use serde::Serialize;

use super::{DONE, check_failed};
use crate::{
    args::Global,
    client::{Ask, Client},
    failure::Outcome,
    output::{
        Look, diff, human, style,
        table::{Cell, Table},
        yaml,
    },
    progress, sources,
};

/// Create and replace objects from manifests, all or nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge apply -f configs/graphs/voting-app.yaml
  selvedge apply -f graphs/ -f extra.yaml --wait        wait until every node enforces it
  selvedge apply -f shop.yaml --wait=live --timeout 10s leave out nodes that are down
  cat shop.yaml | selvedge apply -f - --if-revision 42  refuse if somebody was faster")]
pub(crate) struct ApplyArgs {
    /// Manifests: a file, a directory, or - for standard input; may be repeated
    #[arg(short = 'f', long = "file", required = true, value_name = "F")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Tell what would change, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless this is the present revision
    #[arg(long, value_name = "R")]
    if_revision: Option<Revision>,
    /// A word on why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    message: String,
}

/// Options of commands that can wait until their revision is enforced.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Wait until every node enforces it, or every one that is not down
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    wait: Option<WaitFor>,
    /// How long to wait; then the stragglers are listed and the exit code is 5
    #[arg(long, default_value = "60s", value_name = "D", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Whom to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WaitFor {
    /// Every admitted node.
    All,
    /// Every one that is not down.
    Live,
}

/// What a command that changed intent shows.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    reply: &'a ApplyReply,
    #[serde(flatten)]
    wait: Option<Waited<'a>>,
}

#[derive(Debug, Serialize)]
struct Waited<'a> {
    enforced: bool,
    stragglers: &'a [Straggler],
}

pub(crate) async fn run(global: &Global, args: ApplyArgs) -> Outcome {
    let files = ManifestFiles { files: sources::read_all(&args.files)? };
    let client = global.client()?;
    let ask = Ask::post("/v1/apply")
        .maybe("if_revision", args.if_revision)
        .query("dry_run", args.dry_run)
        .query("message", &args.message)
        .json_as(FILES_MEDIA_TYPE, &files)?;
    let reply: ApplyReply = progress::during("waiting for the fabric to agree", client.ask(ask)).await?;
    finish(global, &client, &reply, &args.wait).await
}

/// Waits if asked to, and shows what was done.
pub(crate) async fn finish(global: &Global, client: &Client, reply: &ApplyReply, wait: &WaitArgs) -> Outcome {
    let waited = match wait.wait {
        Some(whom) if !reply.dry_run => Some(enforced(client, reply.revision, whom, wait.timeout).await?),
        _ => None,
    };
    let shown = Shown {
        reply,
        wait: waited.as_ref().map(|w| Waited { enforced: w.enforced, stragglers: &w.stragglers }),
    };
    global.printer().show(&shown, |look| table(reply, waited.as_ref(), look))?;
    if waited.is_some_and(|w| !w.enforced) { check_failed() } else { DONE }
}

async fn enforced(client: &Client, revision: Revision, whom: WaitFor, limit: Duration) -> Outcome<WaitReply> {
    let ask = Ask::get("/v1/wait")
        .query("revision", revision)
        .query("live", whom == WaitFor::Live)
        .query("timeout_ms", limit.as_millis())
        .patience(limit);
    progress::during("waiting until every node enforces it", client.ask(ask)).await
}

fn table(reply: &ApplyReply, waited: Option<&WaitReply>, look: Look) -> String {
    let mut changes = Table::new(look, &["ACTION", "KIND", "NAME"]);
    for change in &reply.changes {
        changes.row([Cell::word(&change.action), (&change.kind).into(), full_name(change).into()]);
    }
    let mut text = changes.or("nothing changed");
    let would = if reply.dry_run { "dry run, nothing was written; revision" } else { "revision" };
    text.push_str(&format!("{would} {}\n", reply.revision));
    if let Some(waited) = waited {
        text.push_str(&wait_text(waited, look));
    }
    text
}

fn wait_text(waited: &WaitReply, look: Look) -> String {
    if waited.enforced {
        return "enforced by every node\n".to_owned();
    }
    let mut rows = Table::new(look, &["NODE", "STATE", ">ENFORCES"]);
    for node in &waited.stragglers {
        rows.row([(&node.name).into(), Cell::word(&node.state), Cell::maybe(node.enforced_revision)]);
    }
    let count = human::count(waited.stragglers.len(), "node");
    format!("not enforced by {count} when the time was up:\n{}", rows.finish())
}

fn full_name(change: &Change) -> String {
    match &change.domain {
        Some(domain) => format!("{}@{domain}", change.name),
        None => change.name.clone(),
    }
}

/// Show what an apply would change.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge diff -f configs/graphs/voting-app.yaml")]
pub(crate) struct DiffArgs {
    /// Manifests: a file, a directory, or - for standard input; may be repeated
    #[arg(short = 'f', long = "file", required = true, value_name = "F")]
    files: Vec<PathBuf>,
}

pub(crate) async fn diff(global: &Global, args: DiffArgs) -> Outcome {
    let files = ManifestFiles { files: sources::read_all(&args.files)? };
    let ask = Ask::post("/v1/diff").json_as(FILES_MEDIA_TYPE, &files)?;
    let reply: ApplyReply = global.client()?.ask(ask).await?;
    global.printer().show(&reply, |look| differences(&reply.changes, look))?;
    DONE
}

fn differences(changes: &[Change], look: Look) -> String {
    let document = |m: &Option<Manifest>| yaml::manifests(m.as_slice()).unwrap_or_default();
    let mut text = String::new();
    for change in changes {
        let action = style::paint(&change.action, style::tone_of(&change.action), look.colour);
        text.push_str(&format!("{action} {} {}\n", change.kind, full_name(change)));
        text.push_str(&diff::unified(&document(&change.before), &document(&change.after), look.colour));
    }
    if changes.is_empty() { "no difference\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> ApplyReply {
        let change = |action: &str, kind: &str, name: &str, domain: Option<&str>| Change {
            action: action.into(),
            kind: kind.into(),
            name: name.into(),
            domain: domain.map(str::to_owned),
            before: None,
            after: None,
        };
        let changes = vec![
            change("created", "Domain", "shop", None),
            change("updated", "Contract", "api", Some("shop")),
        ];
        ApplyReply { revision: 7, changes, dry_run: false }
    }

    #[test]
    fn changes_read_as_a_list_with_the_revision() {
        let expected = "\
ACTION   KIND      NAME
created  Domain    shop
updated  Contract  api@shop
revision 7
";
        assert_eq!(table(&reply(), None, Look::PLAIN), expected);
    }

    #[test]
    fn stragglers_are_named() {
        let straggler = Straggler { name: "gcp-1".into(), state: "down".into(), enforced_revision: Some(6) };
        let waited = WaitReply { enforced: false, revision: 7, stragglers: vec![straggler] };
        let text = table(&reply(), Some(&waited), Look::PLAIN);
        assert!(
            text.ends_with("1 node when the time was up:\nNODE   STATE  ENFORCES\ngcp-1  down          6\n"),
            "{text}"
        );
    }

    #[test]
    fn json_has_the_reply_and_the_wait_side_by_side() {
        let reply = reply();
        let shown = Shown { reply: &reply, wait: Some(Waited { enforced: true, stragglers: &[] }) };
        let json = serde_json::to_value(&shown).expect("JSON");
        assert_eq!((&json["revision"], &json["enforced"]), (&7.into(), &true.into()));
        assert_eq!(json["changes"][0]["action"], "created");
    }
}
