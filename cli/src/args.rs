//! What people type.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::{
    client::Client,
    commands::Command,
    failure::{Failure, Outcome},
    output::{Format, Printer},
};

/// Where a node serves unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/selvedge/api.sock";

/// A peer-to-peer service interconnection fabric: identities instead of addresses, no machine special
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  selvedge playground                        a whole fabric on this machine
  selvedge apply -f voting-app.yaml --wait   change the intent, wait until it is enforced
  selvedge status                            health at a glance
  selvedge explain --from voting-svc@voting-app --to voting-db@voting-app --port tcp/5432

Exit codes: 0 done, 1 refused or not found, 2 usage, 3 no node reachable, 4 no quorum,
5 verdict deny, check failed or --wait timed out, 6 outcome unknown")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How nodes are reached on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) api: Vec<String>,
    pub(crate) token_file: PathBuf,
    pub(crate) ca_file: PathBuf,
}

/// Options of every command. The environment is read by hand, so that a flag wins over the variable of
/// another: `--socket` over `SELVEDGE_API`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// How to show data
    #[arg(short, long, global = true, value_enum, help_heading = "Global options")]
    pub(crate) output: Option<Format>,
    /// Local socket of the node [env: SELVEDGE_SOCKET] [default: /run/selvedge/api.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub(crate) socket: Option<PathBuf>,
    /// API addresses of processors, https://host:port, tried in turn; https://NODE@host:port for that
    /// node and no other [env: SELVEDGE_API]
    #[arg(
        long,
        global = true,
        value_name = "URL,…",
        value_delimiter = ',',
        conflicts_with = "socket",
        help_heading = "Global options"
    )]
    pub(crate) api: Vec<String>,
    /// File with an API token, for --api [env: SELVEDGE_TOKEN_FILE]
    #[arg(long, global = true, value_name = "F", help_heading = "Global options")]
    pub(crate) token_file: Option<PathBuf>,
    /// The fabric's root certificate, PEM or DER, for --api [env: SELVEDGE_CA_FILE]
    #[arg(long, global = true, value_name = "F", help_heading = "Global options")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Global {
    /// Shows data as asked.
    pub(crate) fn printer(&self) -> Printer {
        Printer::new(self.output.unwrap_or(Format::Table))
    }

    /// A client for the node that the options and the environment name.
    pub(crate) fn client(&self) -> Outcome<Client> {
        self.client_with(environment)
    }

    /// The nodes on the network that the options and the environment name; none when they name the local one.
    pub(crate) fn remote(&self) -> Outcome<Option<Remote>> {
        self.remote_with(environment)
    }

    fn client_with(&self, env: impl Fn(&str) -> Option<String>) -> Outcome<Client> {
        if let Some(remote) = self.remote_with(&env)? {
            return Client::remote(&remote.api, &remote.token_file, &remote.ca_file);
        }
        let socket = self.socket.clone().or_else(|| env("SELVEDGE_SOCKET").map(PathBuf::from));
        Ok(Client::local(&socket.unwrap_or_else(|| DEFAULT_SOCKET.into())))
    }

    fn remote_with(&self, env: impl Fn(&str) -> Option<String>) -> Outcome<Option<Remote>> {
        let path = |name| env(name).map(PathBuf::from);
        let mut api = self.api.clone();
        if api.is_empty() && self.socket.is_none() {
            api = env("SELVEDGE_API").map(|v| v.split(',').map(str::to_owned).collect()).unwrap_or_default();
        }
        if api.is_empty() {
            return Ok(None);
        }
        let need = |file: Option<PathBuf>, flag: &str| {
            file.ok_or_else(|| {
                Failure::usage(format!("--api needs {flag}"))
                    .remedy("an API token comes from `selvedge token admin`, the root certificate from `selvedge fabric init`")
            })
        };
        let token_file =
            need(self.token_file.clone().or_else(|| path("SELVEDGE_TOKEN_FILE")), "--token-file")?;
        let ca_file = need(self.ca_file.clone().or_else(|| path("SELVEDGE_CA_FILE")), "--ca-file")?;
        Ok(Some(Remote { api, token_file, ca_file }))
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        /// A group may show the examples of its commands.
        fn walk(command: &clap::Command, path: &str, shown_above: bool) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = shown_above || help.contains(path.trim());
            for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
                walk(sub, &path, shown && !path.trim().eq("selvedge"));
            }
            assert!(command.has_subcommands() || shown, "{path} has no example");
        }
        walk(&Cli::command(), "", false);
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let env = |name: &str| (name == "SELVEDGE_API").then(|| "https://a".to_owned());
        let socket = Global { socket: Some("/s".into()), ..Global::default() };
        assert!(socket.client_with(env).is_ok());
        let remote = Global::default().client_with(env).expect_err("no token");
        assert_eq!(remote.code, 2);
        assert!(remote.to_string().contains("--token-file"), "{remote}");
    }

    #[test]
    fn what_acceptance_scripts_type_is_understood() {
        let lines = [
            "--socket /s apply -f a.yaml -f b --wait=live --timeout 10s --dry-run --if-revision 3 -o json",
            "apply -f - --wait",
            "delete contract api@shop",
            "delete -f shop.yaml",
            "get contracts -o yaml",
            "get zone aws/east",
            "describe service a@shop",
            "diff -f a.yaml",
            "history --limit 3",
            "rollback 7",
            "fabric init --name f --node n --zone z --data-dir /d --ipv4-pool 127.64.0.0/10 -o json",
            "node run --config c.toml",
            "node run --data-dir /d --seeds a:7401,b:7401 --join-token t --zone aws --role processor",
            "node revoke aws-1",
            "node drain aws-1",
            "node remove aws-1",
            "token join --role processor --zone aws --uses 1 --ttl 1h",
            "token service --service a@shop --ttl 30d",
            "token admin --name vera --rights domain",
            "token list",
            "token revoke AAAAAAAAAAAA",
            "members",
            "links",
            "routes -o wide",
            "status",
            "quorum status",
            "quorum recover --recovery-key k --survivors aws-1,aws-2 --yes",
            "quorum lost -o json",
            "quorum transfer azr-1",
            "snapshot save f --passphrase-file w",
            "snapshot restore f --recovery-key k --replace",
            "endpoint register --service a@shop --token-file t --port tcp/80=8080 --check http:8080/healthz",
            "endpoint deregister e1",
            "endpoint list -o json",
            "attach --service a@shop --token-file t --netns /run/netns/a --port tcp/80",
            "attach --service a@shop --token-file t --pid 4711",
            "attach --service a@shop --token-file t --interface tap0",
            "run --service a@shop --token-file t --port tcp/80 --check tcp -- ./web --port 80 -o x",
            "detach a-1",
            "observe --from a@shop --verdict deny --follow",
            "attachments -o json",
            "resolve api.shop SRV --as a@shop",
            "explain --from a@b --to c@d --port tcp/5432",
            "reach --from a@b",
            "assert -f proofs.yaml",
            "export",
            "doctor",
            "drill list -o json",
            "drill show cloud-loss",
            "drill check a.yaml b.yaml",
            "drill run cloud-loss --cloud aws --yes -o json",
            "drill run ./mine.yaml --fresh --rootless --slack 6 --report reports",
            "drill stop",
            "drill run partition --fabric --yes --lease 10s --api https://a --token-file t --ca-file c",
            "drill run upgrade --dir d --binary b --leave",
            "completions bash",
            "man",
            "cga generate --sec 1 --key-type rsa",
            "--api https://a,https://b --token-file t --ca-file c status",
        ];
        for line in lines {
            let words = std::iter::once("selvedge").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "attach --service a@shop --token-file t",
            "run --service a@shop --token-file t",
            "run --service a@shop --token-file t ./web",
            "apply",
            "explain --from a@b",
            "frobnicate",
            "drill run",
            "drill run a --rootless",
            "drill run a --slack 0",
            "drill run a --fabric --fresh",
            "drill run a --fabric --leave",
            "drill run a --lease 10s",
            "drill run a --fabric --lease 10ms",
            "get",
            "--api https://a --socket /s status",
            "snapshot save f",
            "snapshot save f --passphrase-file w --recovery-key k",
        ] {
            let words = std::iter::once("selvedge").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
