//! `node run|revoke|drain|undrain|remove`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use selvedge_fabric::id::NodeName;
use selvedge_node::api::types::{ApplyReply, NodeState, NodeStateRequest};

use super::{
    apply::{WaitArgs, finish},
    emergency,
    node_run::{self, RunArgs},
};
use crate::{args::Global, client::Ask, failure::Outcome, progress};

/// Run a node, or take one out.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run a node in the foreground until SIGINT or SIGTERM
    Run(Box<RunArgs>),
    /// Take a node out at once and everywhere: for one that is not to be trusted
    #[command(
        after_help = "Without a quorum, the recovery key that `fabric init` made revokes a node. It is read \
here and never\nsent; what it signed goes from node to node, and becomes policy by itself when there is a \
quorum again.

Examples:
  selvedge node revoke aws-2 --wait=live
  selvedge node revoke aws-2 --recovery-key /media/safe/recovery-demo.key"
    )]
    Revoke(RevokeArgs),
    /// Take a node out gently: its endpoints are answered last, it votes no more
    #[command(after_help = "Example:
  selvedge node drain aws-2")]
    Drain(NodeArgs),
    /// End a drain
    #[command(after_help = "Example:
  selvedge node undrain aws-2")]
    Undrain(NodeArgs),
    /// Take a node out for good; its key is never admitted again
    #[command(after_help = "Example:
  selvedge node remove aws-2")]
    Remove(NodeArgs),
}

/// Which node to revoke, and on whose word.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Revoke without a quorum: the file with the recovery key, mode 0600
    #[arg(long, value_name = "FILE", conflicts_with = "wait")]
    recovery_key: Option<PathBuf>,
}

/// Which node, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Its name
    name: NodeName,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn run(global: &Global, command: NodeCommand) -> Outcome {
    let (args, state) = match command {
        NodeCommand::Run(args) => return node_run::run(global, *args).await,
        NodeCommand::Revoke(RevokeArgs { node, recovery_key: Some(file) }) => {
            return emergency::revoke(global, &node.name, &file).await;
        }
        NodeCommand::Revoke(args) => (args.node, Some(NodeState::Revoked)),
        NodeCommand::Drain(args) => (args, Some(NodeState::Draining)),
        NodeCommand::Undrain(args) => (args, Some(NodeState::Active)),
        NodeCommand::Remove(args) => (args, None),
    };
    let ask = match state {
        Some(state) => {
            Ask::put(format!("/v1/nodes/{}/state", args.name)).json(&NodeStateRequest { state })?
        }
        None => Ask::delete(format!("/v1/nodes/{}", args.name)),
    };
    let client = global.client()?;
    let reply: ApplyReply = progress::during("waiting for the fabric to agree", client.ask(ask)).await?;
    finish(global, &client, &reply, &args.wait).await
}
