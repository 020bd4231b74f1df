//! What each command does.

mod apply;
mod attach;
mod cga;
mod delete;
mod describe;
mod doctor;
mod emergency;
mod endpoint;
mod events;
mod explain;
mod export;
mod fabric;
mod get;
mod history;
mod links;
mod members;
mod meta;
mod node;
mod node_run;
mod observe;
mod quorum;
mod reach;
mod recover;
mod resolve;
mod routes;
mod run;
mod snapshot;
mod status;
mod token;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{
    args::Cli,
    drill::{self, DrillArgs},
    failure::{Failure, Outcome},
    output::Format,
    playground::{self, PlaygroundArgs},
};

/// The commands, in the order of the help: set up, look, intend, ask, help.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole fabric on this machine
    Playground(PlaygroundArgs),
    /// Rehearse failures on a running playground
    Drill(DrillArgs),
    /// Make a fabric
    #[command(subcommand)]
    Fabric(fabric::FabricCommand),
    /// Run a node, or take one out
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Join tokens, service tokens, API tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Health of the fabric and this node, at a glance
    Status(status::StatusArgs),
    /// Membership as this node sees it
    Members(members::MembersArgs),
    /// Links of the overlay of this node
    Links(links::LinksArgs),
    /// Ways over the overlay from this node to all others
    Routes(routes::RoutesArgs),
    /// Leader, voters, and what their placement survives
    #[command(subcommand)]
    Quorum(quorum::QuorumCommand),
    /// The whole intent in one encrypted file
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// What happened on this node: refusals above all
    Events(events::EventsArgs),
    /// Create and replace objects from manifests, all or nothing
    Apply(apply::ApplyArgs),
    /// Show what an apply would change
    Diff(apply::DiffArgs),
    /// Delete objects, all or nothing
    Delete(delete::DeleteArgs),
    /// List objects, or show one
    Get(get::GetArgs),
    /// Show an object with what surrounds it
    Describe(describe::DescribeArgs),
    /// All objects as manifests that can be applied again
    Export(export::ExportArgs),
    /// What changed, when, and by whom
    History(history::HistoryArgs),
    /// Make the objects what they were at a revision
    Rollback(history::RollbackArgs),
    /// Endpoints: where services are served and used from
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Attach a workload: its every packet is decided by its service
    Attach(attach::AttachArgs),
    /// Run a command under the identity of a service
    Run(run::RunArgs),
    /// Detach a workload
    Detach(attach::DetachArgs),
    /// What is attached to this node
    Attachments(attach::AttachmentsArgs),
    /// Flows that this node opened, refused and cut
    Observe(observe::ObserveArgs),
    /// What the DNS answers
    Resolve(resolve::ResolveArgs),
    /// The verdict for a flow, and why
    Explain(explain::ExplainArgs),
    /// Who can reach what
    Reach(reach::ReachArgs),
    /// Prove isolation: check assertions on who reaches whom
    Assert(reach::AssertArgs),
    /// Check this host, with a remedy for each finding
    Doctor(doctor::DoctorArgs),
    /// Cryptographically generated addresses (RFC 3972)
    #[command(subcommand)]
    Cga(cga::CgaCommand),
    /// Completions for a shell
    Completions(meta::CompletionsArgs),
    /// The manual page
    Man(meta::ManArgs),
}

/// Does what was asked.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let global = &cli.global;
    let json = global.output == Some(Format::Json);
    let failed = |e: anyhow::Error| Failure::new(format!("{e:#}"));
    match cli.command {
        Command::Playground(args) => playground::run(args, json).await.map_err(failed),
        Command::Drill(args) => drill::run(global, args).await,
        Command::Fabric(command) => fabric::run(global, command),
        Command::Node(command) => node::run(global, command).await,
        Command::Token(command) => token::run(global, command).await,
        Command::Status(args) => status::run(global, args).await,
        Command::Members(args) => members::run(global, args).await,
        Command::Links(args) => links::run(global, args).await,
        Command::Routes(args) => routes::run(global, args).await,
        Command::Quorum(command) => quorum::run(global, command).await,
        Command::Snapshot(command) => snapshot::run(global, command).await,
        Command::Events(args) => events::run(global, args).await,
        Command::Apply(args) => apply::run(global, args).await,
        Command::Diff(args) => apply::diff(global, args).await,
        Command::Delete(args) => delete::run(global, args).await,
        Command::Get(args) => get::run(global, args).await,
        Command::Describe(args) => describe::run(global, args).await,
        Command::Export(args) => export::run(global, args).await,
        Command::History(args) => history::run(global, args).await,
        Command::Rollback(args) => history::rollback(global, args).await,
        Command::Endpoint(command) => endpoint::run(global, command).await,
        Command::Attach(args) => attach::attach(global, args).await,
        Command::Run(args) => run::run(global, args).await,
        Command::Detach(args) => attach::detach(global, args).await,
        Command::Attachments(args) => attach::list(global, args).await,
        Command::Observe(args) => observe::run(global, args).await,
        Command::Resolve(args) => resolve::run(global, args).await,
        Command::Explain(args) => explain::run(global, args).await,
        Command::Reach(args) => reach::run(global, args).await,
        Command::Assert(args) => reach::check(global, args).await,
        Command::Doctor(args) => doctor::run(global, args),
        Command::Cga(command) => cga::run(global, command),
        Command::Completions(args) => meta::completions(args),
        Command::Man(args) => meta::man(args),
    }
}

/// Done.
pub(crate) const DONE: Outcome = Ok(ExitCode::SUCCESS);

/// Verdict deny, check failed, or `--wait` timed out.
pub(crate) fn check_failed() -> Outcome {
    Ok(ExitCode::from(selvedge_node::api::exit::CHECK_FAILED))
}

/// Options of commands that read the intent.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ReadArgs {
    /// Be at least as new as every acknowledged write; needs a quorum
    #[arg(long)]
    pub(crate) linearizable: bool,
}
