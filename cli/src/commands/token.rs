//! `token join|service|admin|list|revoke`.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use selvedge_fabric::{
    command::Rights,
    id::{NodeName, ServiceRef, ZoneName},
};
use selvedge_node::api::types::{ApplyReply, TokenCreated, TokenItem, TokenRequest};

use super::DONE;
use crate::{
    args::Global,
    client::{Ask, escape},
    failure::{Failure, Outcome},
    output::{
        Look,
        style::Tone,
        table::{Cell, Table},
    },
    progress,
};

/// Join tokens, service tokens, API tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token that admits nodes
    #[command(after_help = "Example:
  selvedge token join --role processor --zone aws --ttl 1h --save join.token")]
    Join {
        /// What the node will do
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Where it will be, cloud or cloud/region
        #[arg(long, value_name = "Z")]
        zone: ZoneName,
        /// How many nodes it admits
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// Seed addresses to write into it, host:port; the living processors when absent
        #[arg(long, value_delimiter = ',', value_name = "A,…")]
        seeds: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Make a token that proves that an endpoint is of a service
    #[command(after_help = "Example:
  selvedge token service --service voting-db@voting-app --zone aws --ttl 30d --save db.token")]
    Service {
        /// The service, name@domain
        #[arg(long, value_name = "S")]
        service: ServiceRef,
        /// Nodes on which it may be used; anywhere when neither --node nor --zone is given
        #[arg(long = "node", value_name = "N")]
        nodes: Vec<NodeName>,
        /// Zones or clouds in which it may be used
        #[arg(long = "zone", value_name = "Z")]
        zones: Vec<ZoneName>,
        #[command(flatten)]
        common: Common,
    },
    /// Make a token for the API
    #[command(after_help = "Examples:
  selvedge token admin --name ops --save ops.token
  selvedge token admin --name vera --rights domain    for the domains that list vera as admin")]
    Admin {
        /// Who it stands for; domains list such names as admins
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "admin")]
        rights: RightsArg,
        #[command(flatten)]
        common: Common,
    },
    /// List tokens, without their secrets
    #[command(after_help = "Example:
  selvedge token list")]
    List,
    /// End a token; what it admitted stays
    #[command(after_help = "Example:
  selvedge token revoke AAECAwQFBgcI")]
    Revoke {
        /// Its id
        id: String,
    },
}

/// Options of every new token.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How long it lasts
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Write the token into this new file (mode 0600) and do not show it
    #[arg(long, value_name = "F")]
    save: Option<PathBuf>,
}

/// What a node will do.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum RoleArg {
    /// Raft replica, gossip, transit, API, DNS.
    Processor,
    /// Agent for workloads.
    Workload,
}

/// What an API token may do.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum RightsArg {
    /// Everything.
    Admin,
    /// Change the domains that name it, read everything.
    Domain,
    /// Read everything.
    Read,
}

pub(crate) async fn run(global: &Global, command: TokenCommand) -> Outcome {
    let ttl_ms = |c: &Common| c.ttl.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
    let text = |list: &[ZoneName]| list.iter().map(ToString::to_string).collect();
    let (request, common) = match command {
        TokenCommand::Join { role, zone, uses, seeds, common } => {
            let role = match role {
                RoleArg::Processor => "processor",
                RoleArg::Workload => "workload",
            };
            let (role, zone, ttl_ms) = (role.to_owned(), zone.to_string(), ttl_ms(&common));
            (TokenRequest::Join { role, zone, uses: Some(uses), ttl_ms, seeds }, common)
        }
        TokenCommand::Service { service, nodes, zones, common } => {
            let nodes = nodes.iter().map(ToString::to_string).collect();
            let (service, zones, ttl_ms) = (service.to_string(), text(&zones), ttl_ms(&common));
            (TokenRequest::Service { service, nodes, zones, ttl_ms }, common)
        }
        TokenCommand::Admin { name, rights, common } => {
            let rights = match rights {
                RightsArg::Admin => Rights::Admin,
                RightsArg::Domain => Rights::Domain,
                RightsArg::Read => Rights::Read,
            };
            (TokenRequest::Api { name, rights, ttl_ms: ttl_ms(&common) }, common)
        }
        TokenCommand::List => return list(global).await,
        TokenCommand::Revoke { id } => return revoke(global, &id).await,
    };
    create(global, &request, common.save.as_deref()).await
}

async fn create(global: &Global, request: &TokenRequest, save: Option<&Path>) -> Outcome {
    // The file is made first: a token that cannot be kept should not be made.
    let file = save.map(new_secret_file).transpose()?;
    let asking = ask_for(global, request);
    let asked = progress::during("waiting for the fabric to agree", asking).await;
    let mut created = asked.inspect_err(|_| {
        // It is empty, and ours.
        save.map(std::fs::remove_file);
    })?;
    if let (Some(mut file), Some(path)) = (file, save) {
        writeln!(file, "{}", created.token).and_then(|()| file.sync_all()).map_err(|e| {
            Failure::new(format!(
                "token {} was made, and cannot be written to {}: {e}",
                created.id,
                path.display()
            ))
            .remedy(format!("selvedge token revoke {}", created.id))
        })?;
        created.token = format!("in {}", path.display());
    }
    global.printer().show(&created, |_| shown_once(&created, save.is_some()))?;
    DONE
}

async fn ask_for(global: &Global, request: &TokenRequest) -> Outcome<TokenCreated> {
    global.client()?.ask(Ask::post("/v1/tokens").json(request)?).await
}

fn new_secret_file(path: &Path) -> Outcome<std::fs::File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| {
        Failure::new(format!("cannot make {}: {e}", path.display())).remedy("choose another --save file")
    })
}

fn shown_once(created: &TokenCreated, saved: bool) -> String {
    let TokenCreated { id, token, kind, expires, .. } = created;
    let note = if saved { "" } else { "shown this once: keep it secret, keep it safe\n" };
    format!("{kind} token {id}, until {expires}\n{token}\n{note}")
}

async fn list(global: &Global) -> Outcome {
    let tokens: Vec<TokenItem> = global.client()?.ask(Ask::get("/v1/tokens")).await?;
    global.printer().show(&tokens, |look| table(&tokens, look))?;
    DONE
}

async fn revoke(global: &Global, id: &str) -> Outcome {
    let reply: ApplyReply = global.client()?.ask(Ask::delete(format!("/v1/tokens/{}", escape(id)))).await?;
    global.printer().show(&reply, |_| format!("revoked {id}, revision {}\n", reply.revision))?;
    DONE
}

fn table(tokens: &[TokenItem], look: Look) -> String {
    let mut rows = Table::new(look, &["ID", "KIND", "FOR", ">USES LEFT", "SCOPE", "UNTIL"]);
    for token in tokens {
        let until = if token.expired { Tone::Bad } else { Tone::Plain };
        rows.row([
            token.id.as_str().into(),
            token.kind.as_str().into(),
            token.subject.as_str().into(),
            Cell::maybe(token.uses_left),
            token.scope.join(",").into(),
            Cell::toned(&token.expires, until),
        ]);
    }
    rows.or("no token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_without_secrets() {
        let item = TokenItem {
            id: "abc".into(),
            kind: "join".into(),
            subject: "processor in aws".into(),
            expires: "2026-01-01T00:00:00Z".into(),
            expired: false,
            uses_left: Some(1),
            scope: Vec::new(),
        };
        let expected = "\
ID   KIND  FOR               USES LEFT  SCOPE  UNTIL
abc  join  processor in aws          1  -      2026-01-01T00:00:00Z
";
        assert_eq!(table(&[item], Look::PLAIN), expected);
    }
}
