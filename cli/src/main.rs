//! The `selvedge` program.

mod drill;
mod playground;
mod probe;

use std::process::ExitCode;

use clap::Parser;

/// A service interconnection fabric in which no machine is special.
#[derive(Parser)]
struct Selvedge {
    /// How to print: table or json
    #[arg(short, long, global = true, default_value = "table")]
    output: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Playground(playground::PlaygroundArgs),
    Drill(drill::DrillArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Selvedge { output, command } = Selvedge::parse();
    let json = output == "json";
    match command {
        Command::Playground(args) => playground::run(args, json).await,
        Command::Drill(args) => drill::run(args, json).await,
    }
}
