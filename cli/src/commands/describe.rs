//! `describe`.

use clap::Args;
use selvedge_node::api::{key, types::Description};

use super::{DONE, ReadArgs, endpoint};
use crate::{
    args::Global,
    client::{Ask, escape},
    failure::Outcome,
    output::{
        Look,
        style::{Tone, paint},
        yaml,
    },
};

/// Show an object with what surrounds it.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge describe contract voting-backend@voting-app")]
pub(crate) struct DescribeArgs {
    /// The kind
    kind: String,
    /// The name, name@domain for kinds that live in a domain
    name: String,
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) async fn run(global: &Global, args: DescribeArgs) -> Outcome {
    let kind = key::parse_kind(&args.kind)?;
    key::parse(kind, &args.name)?;
    let ask = Ask::get(format!("/v1/describe/{kind}/{}", escape(&args.name)));
    let description: Description = global.client()?.ask(ask.linearizable(args.read.linearizable)).await?;
    global.printer().show(&description, |look| text(&description, look))?;
    DONE
}

fn text(description: &Description, look: Look) -> String {
    let heading = |words: &str| format!("\n{}\n", paint(words, Tone::Strong, look.colour));
    let mut text = yaml::manifests(std::slice::from_ref(&description.object)).unwrap_or_default();
    for (words, objects) in
        [("Refers to", &description.refers_to), ("Referred to by", &description.referred_by)]
    {
        if !objects.is_empty() {
            text.push_str(&heading(words));
            objects.iter().for_each(|object| text.push_str(&format!("  {object}\n")));
        }
    }
    if !description.endpoints.is_empty() {
        text.push_str(&heading("Endpoints"));
        text.push_str(&endpoint::table(&description.endpoints, look));
    }
    text.push_str(&heading("Last change"));
    text.push_str(&match &description.last_change {
        Some(change) => {
            format!(
                "  revision {} at {} by {}: {}\n",
                change.revision, change.time, change.actor, change.summary
            )
        }
        None => "  before the oldest revision of the history\n".to_owned(),
    });
    text.push_str(&format!("\nread at revision {}\n", description.revision));
    text
}
