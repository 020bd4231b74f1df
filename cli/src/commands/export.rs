//! `export`.

use clap::Args;
use selvedge_node::api::types::Manifest;

use super::{DONE, ReadArgs};
use crate::{
    args::Global,
    client::Ask,
    failure::{Failure, Outcome},
    output::{self, Format},
};

/// All objects as manifests that can be applied again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge export > intent.yaml
  selvedge export -o json | jq length")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) async fn run(global: &Global, args: ExportArgs) -> Outcome {
    let client = global.client()?;
    if global.output == Some(Format::Json) {
        let ask = Ask::get("/v1/objects").linearizable(args.read.linearizable);
        let objects: Vec<Manifest> = client.ask(ask).await?;
        global.printer().show(&objects, |_| String::new())?;
        return DONE;
    }
    let answer = client.send(&Ask::get("/v1/export").linearizable(args.read.linearizable)).await?;
    let text = std::str::from_utf8(&answer.body)
        .map_err(|_| Failure::new("the export is no UTF-8 text").at(&answer.from))?;
    output::write(text)?;
    DONE
}
