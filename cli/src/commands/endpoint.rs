//! `endpoint register|deregister|list`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use selvedge_fabric::{id::ServiceRef, object::Protocol};
use selvedge_node::api::types::{Check, CheckKind, Endpoint, EndpointPort, RegisterRequest, Registered};

use super::DONE;
use crate::{
    args::Global,
    client::{Ask, escape},
    failure::{Failure, Outcome},
    output::{
        Look, human,
        table::{Cell, Table},
    },
};

/// Endpoints: where services are served and used from.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Register an endpoint on the node that is asked
    Register(RegisterArgs),
    /// Deregister an endpoint of the node that is asked
    #[command(after_help = "Example:
  selvedge endpoint deregister voting-db-aws-1")]
    Deregister {
        /// Its id
        id: String,
    },
    /// All endpoints that this node knows
    #[command(after_help = "Examples:
  selvedge endpoint list --service voting-db@voting-app
  selvedge endpoint list -o json")]
    List {
        /// Only those of this service
        #[arg(long, value_name = "S")]
        service: Option<ServiceRef>,
        /// Only those on this node
        #[arg(long, value_name = "N")]
        node: Option<String>,
    },
}

/// Register an endpoint on the node that is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge endpoint register --service voting-db@voting-app --token-file db.token --port tcp/5432
  selvedge endpoint register --service web@shop --token-file web.token --port tcp/80=8080 \\
      --check http:8080/healthz --check-interval 1s
Checks: tcp[:PORT], http:[PORT]/PATH, cmd:PROGRAM ARGS…
On another node (--api), give the API token by SELVEDGE_TOKEN_FILE: --token-file names the service token here.")]
pub(crate) struct RegisterArgs {
    /// The service, name@domain
    #[arg(long, value_name = "S")]
    service: ServiceRef,
    /// File with a service token: it proves the service
    // The same id as the global option, which it hides.
    #[arg(long = "token-file", id = "token_file", value_name = "F", required = true)]
    token_file: PathBuf,
    /// Where it serves: the contract's port, and the port on which it really listens when that differs
    #[arg(long = "port", value_name = "tcp/CONTRACT[=LOCAL]")]
    ports: Vec<PortArg>,
    /// How its health is found out; may be repeated, all must pass
    #[arg(long = "check", value_name = "CHECK")]
    checks: Vec<CheckArg>,
    /// How often to check
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    check_interval: Option<Duration>,
    /// How long a check may take
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    check_timeout: Option<Duration>,
    /// Name of the endpoint; made by the node when absent
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// IPv4 address, of the node's block; chosen by the node when absent
    #[arg(long, value_name = "IP")]
    address: Option<std::net::Ipv4Addr>,
    /// Share of new connections among its equals, 0 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    weight: Option<u16>,
    /// It ends unless registered again within this time
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    lease: Option<Duration>,
}

pub(crate) async fn run(global: &Global, command: EndpointCommand) -> Outcome {
    match command {
        EndpointCommand::Register(args) => register(global, args).await,
        EndpointCommand::Deregister { id } => {
            global.client()?.send(&Ask::delete(format!("/v1/endpoints/{}", escape(&id)))).await?;
            DONE
        }
        EndpointCommand::List { service, node } => {
            let mut endpoints: Vec<Endpoint> = global.client()?.ask(Ask::get("/v1/endpoints")).await?;
            let service = service.map(|s| s.to_string());
            endpoints.retain(|e| service.as_ref().is_none_or(|s| e.service == *s));
            endpoints.retain(|e| node.as_ref().is_none_or(|n| e.node == *n));
            global.printer().show(&endpoints, |look| table(&endpoints, look))?;
            DONE
        }
    }
}

impl RegisterArgs {
    /// What they ask for, with the token read from its file.
    pub(super) fn request(self) -> Outcome<RegisterRequest> {
        let path = &self.token_file;
        let token = std::fs::read_to_string(path)
            .map_err(|e| Failure::usage(format!("token file {}: {e}", path.display())))?;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (interval_ms, timeout_ms) = (self.check_interval.map(ms), self.check_timeout.map(ms));
        Ok(RegisterRequest {
            service: self.service.to_string(),
            token: token.trim().to_owned(),
            ports: self.ports.into_iter().map(|p| p.0).collect(),
            id: self.id,
            address: self.address.map(|a| a.to_string()),
            weight: self.weight,
            checks: self.checks.into_iter().map(|c| Check { kind: c.0, interval_ms, timeout_ms }).collect(),
            lease_ms: self.lease.map(ms),
        })
    }
}

async fn register(global: &Global, args: RegisterArgs) -> Outcome {
    let request = args.request()?;
    // The file above is no API token.
    let api = Global { token_file: None, ..global.clone() };
    let registered: Registered = api.client()?.ask(Ask::post("/v1/endpoints").json(&request)?).await?;
    registered.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    global.printer().show(&registered, |look| table(std::slice::from_ref(&registered.endpoint), look))?;
    DONE
}

/// Endpoints as a table.
pub(super) fn table(endpoints: &[Endpoint], look: Look) -> String {
    const NARROW: [&str; 6] = ["ID", "SERVICE", "NODE", "HEALTH", "ADDRESSES", "PORTS"];
    const MORE: [&str; 5] = ["ZONE", "NODE STATE", ">WEIGHT", ">HEARD", "PROOF UNTIL"];
    let mut rows = if look.wide {
        Table::new(look, &[&NARROW[..], &MORE[..]].concat())
    } else {
        Table::new(look, &NARROW)
    };
    for endpoint in endpoints {
        rows.row([
            endpoint.id.as_str().into(),
            endpoint.service.as_str().into(),
            endpoint.node.as_str().into(),
            Cell::word(&endpoint.health),
            endpoint.addresses.join(",").into(),
            endpoint.ports.iter().map(port).collect::<Vec<_>>().join(",").into(),
            endpoint.zone.as_str().into(),
            Cell::word(&endpoint.node_state),
            endpoint.weight.to_string().into(),
            Cell::maybe(endpoint.heard_ms_ago.map(human::span)),
            Cell::maybe(endpoint.expires.as_ref()),
        ]);
    }
    rows.or("no endpoint")
}

fn port(port: &EndpointPort) -> String {
    let EndpointPort { protocol, contract, local } = port;
    if contract == local {
        format!("{protocol}/{contract}")
    } else {
        format!("{protocol}/{contract}={local}")
    }
}

/// `tcp/80` or `tcp/80=8080`.
#[derive(Debug, Clone)]
struct PortArg(EndpointPort);

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a port; write tcp/80, or tcp/80=8080 when it listens on 8080");
        let (protocol, ports) = text.split_once('/').ok_or_else(bad)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(bad()),
        };
        let (contract, local) = ports.split_once('=').unwrap_or((ports, ports));
        let number = |p: &str| p.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(bad);
        let (contract, local) = (number(contract)?, number(local)?);
        Ok(Self(EndpointPort { protocol: protocol.to_string(), contract, local }))
    }
}

/// `tcp`, `tcp:8080`, `http:8080/healthz`, `http:/healthz`, `cmd:pg_isready -q`.
#[derive(Debug, Clone)]
struct CheckArg(CheckKind);

impl FromStr for CheckArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is not a check; write tcp, tcp:8080, http:8080/healthz or cmd:PROGRAM");
        let number = |p: &str| match p {
            "" => Ok(None),
            p => p.parse::<u16>().ok().filter(|p| *p != 0).map(Some).ok_or_else(bad),
        };
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let kind = match kind {
            "tcp" => CheckKind::Tcp { port: number(rest)? },
            "http" => {
                let (port, path) = rest.split_once('/').ok_or_else(bad)?;
                CheckKind::Http { port: number(port)?, path: format!("/{path}") }
            }
            "cmd" if !rest.trim().is_empty() => {
                CheckKind::Command { command: rest.split_whitespace().map(str::to_owned).collect() }
            }
            _ => return Err(bad()),
        };
        Ok(Self(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_checks_are_read() {
        let port_of = |t: &str| t.parse::<PortArg>().map(|p| port(&p.0)).ok();
        assert_eq!(port_of("tcp/80"), Some("tcp/80".into()));
        assert_eq!(port_of("udp/53=5353"), Some("udp/53=5353".into()));
        for bad in ["80", "tcp", "tcp/0", "tcp/80=", "icmp/1", "tcp/99999", "tcp/80=0"] {
            assert_eq!(port_of(bad), None, "{bad}");
        }
        let check = |t: &str| t.parse::<CheckArg>().map(|c| c.0).ok();
        assert_eq!(check("tcp"), Some(CheckKind::Tcp { port: None }));
        assert_eq!(check("tcp:80"), Some(CheckKind::Tcp { port: Some(80) }));
        let path = || "/healthz?x=1".to_owned();
        assert_eq!(check("http:80/healthz?x=1"), Some(CheckKind::Http { port: Some(80), path: path() }));
        assert_eq!(check("http:/healthz?x=1"), Some(CheckKind::Http { port: None, path: path() }));
        let command = vec!["pg_isready".to_owned(), "-q".to_owned()];
        assert_eq!(check("cmd:pg_isready -q"), Some(CheckKind::Command { command }));
        for bad in ["", "icmp", "http:80", "tcp:x", "cmd:", "cmd: "] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    #[test]
    fn endpoints_show_where_they_really_listen() {
        let endpoint = Endpoint {
            id: "web-1".into(),
            service: "web@shop".into(),
            node: "aws-1".into(),
            addresses: vec!["127.64.0.2".into()],
            ports: vec![EndpointPort { protocol: "tcp".into(), contract: 80, local: 8080 }],
            health: "passing".into(),
            ..Endpoint::default()
        };
        let expected = "\
ID     SERVICE   NODE   HEALTH   ADDRESSES   PORTS
web-1  web@shop  aws-1  passing  127.64.0.2  tcp/80=8080
";
        assert_eq!(table(&[endpoint], Look::PLAIN), expected);
    }
}
