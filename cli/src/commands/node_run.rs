//! `node run`: the daemon in the foreground.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use selvedge_fabric::{
    command::Role,
    id::{NodeName, ZoneName},
};
use selvedge_node::NodeConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;

use super::{DONE, token::RoleArg};
use crate::{
    args::Global,
    failure::{Failure, Outcome},
};

/// What is logged unless `SELVEDGE_LOG` says otherwise. Of openraft only what is fatal: it has a dozen lines a
/// second for a peer that is away, of which an event tells once.
const DEFAULT_LOG: &str = "info,openraft=error,openraft::replication=off,libp2p=warn,quinn_proto=error";

/// Run a node in the foreground until SIGINT or SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge node run --config /etc/selvedge/node.toml
  selvedge node run --data-dir /var/lib/selvedge                a node that has joined before
  selvedge node run --data-dir D --seeds a:7401,b:7401 --join-token-file join.token \\
      --zone gcp --role processor                               a node that joins
The log goes to stderr; SELVEDGE_LOG sets what is logged, for instance debug or info,selvedge_node=trace.")]
pub(crate) struct RunArgs {
    /// Configuration file; the options below override it
    #[arg(long, value_name = "C")]
    config: Option<PathBuf>,
    /// Name of the node; the host name when absent
    #[arg(long, value_name = "N")]
    name: Option<NodeName>,
    /// Where keys, log and last known facts are kept
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// Nodes to join through, host:port; those of the join token when absent
    #[arg(long, value_delimiter = ',', value_name = "A,…")]
    seeds: Vec<String>,
    /// The join token itself; other users can see it in the process list, prefer a file
    #[arg(long, value_name = "T", conflicts_with = "join_token_file")]
    join_token: Option<String>,
    /// File with the join token
    #[arg(long, value_name = "F")]
    join_token_file: Option<PathBuf>,
    /// Where the node is, cloud or cloud/region
    #[arg(long, value_name = "Z")]
    zone: Option<ZoneName>,
    /// What the node does
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// UDP: join, Raft, probes, links
    #[arg(long, value_name = "A:P")]
    listen_fabric: Option<SocketAddr>,
    /// UDP: gossip
    #[arg(long, value_name = "A:P")]
    listen_gossip: Option<SocketAddr>,
    /// TCP with TLS: API
    #[arg(long, value_name = "A:P")]
    listen_api: Option<SocketAddr>,
    /// UDP and TCP: DNS; loopback and overlay addresses only
    #[arg(long, value_delimiter = ',', value_name = "A:P,…")]
    listen_dns: Vec<SocketAddr>,
    /// TCP: workload API; loopback only
    #[arg(long, value_name = "A:P")]
    listen_workload_api: Option<SocketAddr>,
    /// This machine was renamed or its disk moved, and the old one will never run again: keep the identity
    #[arg(long)]
    accept_new_host: bool,
    /// Form of the log
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

pub(crate) async fn run(global: &Global, args: RunArgs) -> Outcome {
    start_log(args.log_format)?;
    let config = configuration(global, args)?;
    let stop = CancellationToken::new();
    let signals = TaskTracker::new();
    signals.spawn(on_signal(stop.clone())?);
    let outcome = selvedge_node::run(config, stop.clone()).await;
    stop.cancel();
    signals.close();
    signals.wait().await;
    outcome.map_err(|e| Failure::new(chain(e.chain().map(ToString::to_string))))?;
    DONE
}

/// An error and its causes, without those that the one before has told already.
fn chain(causes: impl Iterator<Item = String>) -> String {
    causes.fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}

/// The file's configuration, or the default one, with the options over it.
fn configuration(global: &Global, args: RunArgs) -> Outcome<NodeConfig> {
    let file = args.config.clone();
    let mut config = match &file {
        Some(path) => NodeConfig::load(path).map_err(|e| Failure::new(e.to_string().trim_end()))?,
        None => NodeConfig::default(),
    };
    let role = args.role.map(|role| match role {
        RoleArg::Processor => Role::Processor,
        RoleArg::Workload => Role::Workload,
    });
    replace(&mut config.data_dir, args.data_dir);
    if let Some(token) = &args.join_token {
        config.join_token_file = Some(keep_token(&config.data_dir, token)?);
    }
    config.accept_new_host = args.accept_new_host;
    config.name = args.name.or(config.name);
    config.zone = args.zone.or(config.zone);
    config.role = role.or(config.role);
    config.join_token_file = args.join_token_file.or(config.join_token_file);
    replace(&mut config.listen.fabric, args.listen_fabric);
    replace(&mut config.listen.gossip, args.listen_gossip);
    replace(&mut config.listen.api, args.listen_api);
    replace(&mut config.listen.workload_api, args.listen_workload_api);
    replace(&mut config.listen.socket, global.socket.clone());
    replace(&mut config.seeds, Some(args.seeds).filter(|s| !s.is_empty()));
    replace(&mut config.listen.dns, Some(args.listen_dns).filter(|a| !a.is_empty()));
    // The daemon checks it too, but does not know the file.
    config.check().map_err(|e| {
        let failure = Failure::new(e.to_string());
        file.iter().fold(failure, |failure, path| failure.at(path.display().to_string()))
    })?;
    Ok(config)
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The daemon reads join tokens from files alone, so that they need not stay in its arguments.
fn keep_token(data_dir: &Path, token: &str) -> Outcome<PathBuf> {
    use std::{
        fs::{DirBuilder, OpenOptions},
        io::Write as _,
        os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    };
    let path = data_dir.join("join.token");
    let written = DirBuilder::new().recursive(true).mode(0o700).create(data_dir).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", token.trim())
    });
    written.map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
    Ok(path)
}

fn on_signal(stop: CancellationToken) -> Outcome<impl Future<Output = ()>> {
    let cannot = |e: std::io::Error| Failure::new(format!("cannot watch for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("interrupted; stopping"),
            _ = terminate.recv() => tracing::info!("asked to stop"),
            () = stop.cancelled() => {}
        }
        stop.cancel();
    })
}

fn start_log(format: LogFormat) -> Outcome<()> {
    let wanted = std::env::var("SELVEDGE_LOG").unwrap_or_else(|_| DEFAULT_LOG.to_owned());
    let filter =
        EnvFilter::try_new(&wanted).map_err(|e| Failure::usage(format!("SELVEDGE_LOG={wanted:?}: {e}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would complain on stderr of a stderr that cannot be written, and panic over that: a full disk
    // must cost log lines, not the task that wrote them.
    let log = log.log_internal_errors(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(crate::output::style::stderr_has_colour()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| Failure::new(format!("cannot start the log: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let told = |causes: &[&str]| chain(causes.iter().map(ToString::to_string));
        assert_eq!(
            told(&["fabric port", "cannot bind: in use", "in use"]),
            "fabric port: cannot bind: in use"
        );
        assert_eq!(told(&["alone"]), "alone");
    }
}
