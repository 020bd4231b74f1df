//! The `selvedge` program.
//!
//! * [`args`]: what people type. [`commands`]: what each command does, one small file each.
//! * [`client`]: HTTP to a node, over the local socket or TLS, with failover.
//! * [`output`]: tables, JSON, YAML. Data goes to stdout, everything else to stderr.
//! * [`failure`]: what went wrong, where, what to do, and the exit code.
//! * [`doctor`]: checks of the host.
//! * [`playground`], [`drill`]: a whole fabric on this machine, and what it survives.

mod args;
mod client;
mod commands;
mod doctor;
mod drill;
mod failure;
mod output;
mod playground;
mod probe;
mod progress;
mod sources;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::new(format!("cannot start: {error}")).report(),
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A blocking read of stdin must not keep the program alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
