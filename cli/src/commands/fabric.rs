//! `fabric init`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use selvedge_fabric::id::{Name, NodeName, ZoneName};
use selvedge_node::{InitOptions, InitReport, init};
use serde::Serialize;

use super::DONE;
use crate::{
    args::Global,
    failure::{Failure, Outcome},
};

/// Make a fabric.
#[derive(Debug, Subcommand)]
pub(crate) enum FabricCommand {
    /// Make a fabric: its certificate authority and its first processor
    Init(InitArgs),
}

/// Make a fabric: its certificate authority and its first processor.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge fabric init --name prod --node aws-1 --zone aws --data-dir /var/lib/selvedge
  selvedge node run --data-dir /var/lib/selvedge
Move the recovery key file offline afterwards: whoever has it owns the fabric.")]
pub(crate) struct InitArgs {
    /// The fabric's name
    #[arg(long, value_name = "F")]
    name: Name,
    /// The first processor's name
    #[arg(long, value_name = "N")]
    node: NodeName,
    /// Where it is, cloud or cloud/region
    #[arg(long, value_name = "Z")]
    zone: ZoneName,
    /// Its data directory
    #[arg(long, default_value = "/var/lib/selvedge", value_name = "D")]
    data_dir: PathBuf,
    /// DNS suffix
    #[arg(long, default_value = "fabric.internal", value_name = "S")]
    suffix: String,
    /// IPv4 pool of the overlay; 127.64.0.0/10 where everything is on one machine
    #[arg(long, default_value = "100.64.0.0/10", value_name = "A/LEN")]
    ipv4_pool: String,
    /// Length of each node's block of the pool
    #[arg(long, default_value_t = 24, value_name = "LEN")]
    ipv4_block_len: u8,
    /// Lifetime of node certificates; renewed long before
    #[arg(long, default_value = "7d", value_name = "D", value_parser = humantime::parse_duration)]
    certificate_lifetime: Duration,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Shown {
    fabric: String,
    fabric_id: String,
    node: String,
    ca_fingerprint: String,
    ca_file: PathBuf,
    recovery_key_file: PathBuf,
    config_file: PathBuf,
}

pub(crate) fn run(global: &Global, command: FabricCommand) -> Outcome {
    let FabricCommand::Init(args) = command;
    let options = InitOptions {
        fabric: args.name,
        node: args.node,
        zone: args.zone,
        data_dir: args.data_dir,
        suffix: args.suffix,
        ipv4_pool: args.ipv4_pool,
        ipv4_block_len: args.ipv4_block_len,
        certificate_lifetime: args.certificate_lifetime,
    };
    let report = init(&options).map_err(|e| Failure::new(e.to_string()))?;
    let shown = Shown::from(report);
    global.printer().show(&shown, |_| text(&shown))?;
    DONE
}

impl From<InitReport> for Shown {
    fn from(report: InitReport) -> Self {
        Self {
            fabric: report.fabric.to_string(),
            fabric_id: report.fabric_id.to_string(),
            node: report.node.to_string(),
            ca_fingerprint: report.ca_fingerprint.to_string(),
            ca_file: report.ca_file,
            recovery_key_file: report.recovery_key_file,
            config_file: report.config_file,
        }
    }
}

fn text(shown: &Shown) -> String {
    let Shown { fabric, node, ca_fingerprint, .. } = shown;
    let (ca, key, config) =
        (shown.ca_file.display(), shown.recovery_key_file.display(), shown.config_file.display());
    format!(
        "fabric        {fabric}\nfirst node    {node}\nCA            {ca}\nfingerprint   {ca_fingerprint}\n\
         recovery key  {key}: move it offline now\nstart it      selvedge node run --config {config}\n"
    )
}
