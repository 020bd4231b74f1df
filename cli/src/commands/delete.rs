//! `delete`.

use std::path::PathBuf;

use clap::Args;
use selvedge_fabric::{Revision, manifest, object::ObjectKey};
use selvedge_node::api::{
    ManifestProblem, key,
    types::{ApplyReply, DeleteRequest, ObjectName},
};

use super::apply::{WaitArgs, finish};
use crate::{
    args::Global,
    client::Ask,
    failure::{Failure, Outcome, problem_line},
    progress, sources,
};

/// Delete objects, all or nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge delete contract voting-worker@voting-app
  selvedge delete service a@shop b@shop --wait
  selvedge delete -f configs/graphs/getaway-app.yaml    everything that these manifests name")]
pub(crate) struct DeleteArgs {
    /// The kind
    #[arg(required_unless_present = "files", requires = "names")]
    kind: Option<String>,
    /// Names, name@domain for kinds that live in a domain
    names: Vec<String>,
    /// What these manifests name
    #[arg(short = 'f', long = "file", value_name = "F", conflicts_with_all = ["kind", "names"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Tell what would be deleted, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless this is the present revision
    #[arg(long, value_name = "R")]
    if_revision: Option<Revision>,
    /// A word on why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    message: String,
}

pub(crate) async fn run(global: &Global, args: DeleteArgs) -> Outcome {
    let keys = match &args.kind {
        Some(kind) => {
            let kind = key::parse_kind(kind)?;
            args.names.iter().map(|name| key::parse(kind, name)).collect::<Result<Vec<_>, _>>()?
        }
        None => keys_of(&args.files)?,
    };
    let request = DeleteRequest {
        objects: keys.iter().map(object_name).collect(),
        if_revision: args.if_revision,
        dry_run: args.dry_run,
        message: args.message,
    };
    let client = global.client()?;
    let ask = Ask::post("/v1/delete").json(&request)?;
    let reply: ApplyReply = progress::during("waiting for the fabric to agree", client.ask(ask)).await?;
    finish(global, &client, &reply, &args.wait).await
}

fn keys_of(files: &[PathBuf]) -> Outcome<Vec<ObjectKey>> {
    let (mut keys, mut problems) = (Vec::new(), Vec::new());
    for file in sources::read_all(files)? {
        match manifest::parse(&file.text, Some(&file.name)) {
            Ok(objects) => keys.extend(objects.into_iter().map(|o| o.key)),
            Err(more) => problems.extend(more.into_iter().map(|p| problem_line(&ManifestProblem::from(p)))),
        }
    }
    if problems.is_empty() {
        Ok(keys)
    } else {
        Err(Failure::new("the manifests have problems").problems(problems))
    }
}

fn object_name(key: &ObjectKey) -> ObjectName {
    let name = match &key.domain {
        Some(domain) => format!("{}@{domain}", key.name),
        None => key.name.clone(),
    };
    ObjectName { kind: key.kind.to_string(), name }
}
