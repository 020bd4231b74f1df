//! Drills on a real fabric, of nodes that other people rely on: nothing is broken before all nodes have been asked
//! whether they take part, and somebody has read what will happen and typed the fabric's name.
//!
//! * [`plan`]: what can be done there, to whom, for how long. Pure.
//! * [`leases`]: how it is done, and undone whatever becomes of this program.

pub(crate) mod leases;
mod plan;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_fabric::drill::{Drill, ProbeKind};
use selvedge_node::api::types::{Endpoint, Manifest, Member, QuorumReport, ResolveReply, Status};

use super::{
    ground::{Door, Ground, Site},
    judge::Judge,
    record::Record,
    run::select::Choice,
};
use crate::{
    args::{Global, Remote},
    client::{Ask, Client},
    failure::{Failure, Outcome},
    playground::{
        plain_table,
        state::{EndpointInfo, Use},
    },
};

/// How long a lease lasts, at the shortest; a renewal must have time to arrive.
pub(super) const MIN_LEASE: Duration = Duration::from_secs(1);
/// And at the longest.
pub(super) const MAX_LEASE: Duration = Duration::from_secs(600);

/// How long a fabric may take to be well before a drill is refused.
const WELL_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// A real fabric that is ready for a drill.
pub(super) struct Found {
    /// Its name, to be typed.
    pub(super) name: String,
    pub(super) ground: Ground,
    /// Who leads.
    leader: Option<String>,
}

/// Finds all nodes through those that the options name, and looks whether all is well.
///
/// # Errors
/// What is not, with the remedy.
pub(super) async fn find(global: &Global) -> Outcome<Found> {
    let Some(remote) = global.remote()? else {
        return Err(Failure::usage("a drill on a real fabric speaks with each of its nodes").remedy(
            "name some of them: --api https://… with --token-file (of `selvedge token admin`) and --ca-file",
        ));
    };
    let client = Client::remote(&remote.api, &remote.token_file, &remote.ca_file)?;
    let begun = Instant::now();
    let (status, members) = loop {
        let status: Status = client.ask(Ask::get("/v1/status")).await?;
        let members: Vec<Member> = client.ask(Ask::get("/v1/members")).await?;
        match all_well(&status, &members) {
            Ok(()) => break (status, members),
            // A node may be suspected for a moment, and nothing be the matter.
            Err(_) if begun.elapsed() < WELL_LIMIT => tokio::time::sleep(LOOK_PAUSE).await,
            Err(error) => {
                return Err(Failure::new(format!("{error:#}"))
                    .remedy("a drill begins with a fabric that is well: see selvedge status"));
            }
        }
    };
    let quorum: QuorumReport = client.ask(Ask::get("/v1/quorum")).await?;
    let nodes = members.iter().map(|member| site(member, &remote)).collect::<Outcome<Vec<_>>>()?;
    let endpoints: Vec<Endpoint> = client.ask(Ask::get("/v1/endpoints")).await?;
    let ground = Ground {
        nodes,
        endpoints: endpoints.into_iter().map(endpoint).collect(),
        uses: names(&client, &status.suffix).await?,
        suffix: status.suffix,
        has_packets: false,
        shown: format!("fabric {}, isolated by its nodes' own gates", status.fabric),
        playground: None,
    };
    Ok(Found { name: status.fabric, ground, leader: quorum.leader })
}

fn all_well(status: &Status, members: &[Member]) -> anyhow::Result<()> {
    ensure!(status.quorum, "the fabric has no quorum");
    let unwell = |m: &&Member| m.state != "alive" || m.quarantined;
    let unwell: Vec<_> =
        members.iter().filter(unwell).map(|m| format!("{} is {}", m.name, m.state)).collect();
    ensure!(unwell.is_empty(), "not all nodes are well: {}", unwell.join(", "));
    let drill = status.alarms.iter().find(|alarm| alarm.code == "drill");
    ensure!(drill.is_none(), "another drill runs: {}", drill.map(|a| a.message.as_str()).unwrap_or_default());
    Ok(())
}

/// Each node by itself: a drill must know which one answers.
fn site(member: &Member, remote: &Remote) -> Outcome<Site> {
    if member.api.is_empty() {
        return Err(Failure::new(format!("{} does not say where its API is reached", member.name))
            .remedy("set advertise.api in its configuration"));
    }
    let door = Door::Network {
        addresses: member.api.iter().map(|address| format!("https://{}@{address}", member.name)).collect(),
        token_file: remote.token_file.clone(),
        ca_file: remote.ca_file.clone(),
    };
    Ok(Site {
        name: member.name.clone(),
        zone: member.zone.clone(),
        role: member.role.clone(),
        client: door.client()?,
        door,
        dns: None,
    })
}

fn endpoint(found: Endpoint) -> EndpointInfo {
    EndpointInfo {
        id: found.id,
        service: found.service,
        node: found.node,
        addresses: found.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        ports: Vec::new(),
        network: None,
    }
}

/// The contracts whose names are there.
async fn names(client: &Client, suffix: &str) -> Outcome<Vec<Use>> {
    let contracts: Vec<Manifest> = client.ask(Ask::get("/v1/objects").query("kind", "contract")).await?;
    let mut names = Vec::new();
    for contract in contracts {
        let domain = contract.metadata.domain.unwrap_or_default();
        let name = format!("{}.{domain}", contract.metadata.name);
        let ask = Ask::get("/v1/resolve").query("name", format!("{name}.{suffix}")).query("type", "A");
        let answer: ResolveReply = client.ask(ask).await?;
        if answer.rcode == "NOERROR" {
            names.push(Use { contract: name, clients: Vec::new(), servers: Vec::new(), ports: Vec::new() });
        }
    }
    Ok(names)
}

/// What is left to do before a drill may begin: a drill that fits, and nodes that take part.
pub(super) struct Prepared {
    /// Without what cannot be asked there.
    pub(super) drill: Drill,
    /// The nodes to be held.
    pub(super) held: Vec<Site>,
    /// What will be done, for whoever has to say yes.
    plan: String,
}

/// Looks whether a drill can be done on this fabric, and asks the nodes.
///
/// # Errors
/// What is in the way. Nothing has been broken.
pub(super) async fn prepare(
    drill: &Drill,
    found: &mut Found,
    clouds: &[String],
    lease: Duration,
) -> anyhow::Result<Prepared> {
    let (drill, left) = plan::fitted(drill, !found.ground.uses.is_empty())?;
    let choice = Choice { nodes: &found.ground.nodes, clouds, leader: found.leader.as_deref() };
    let needed = plan::needed(&drill.spec, &choice)?;
    let planned = plan::planned(&drill.spec, &choice)?;
    let held: Vec<_> =
        found.ground.nodes.iter().filter(|site| needed.contains(&site.name)).cloned().collect();
    ensure!(
        held.len() < found.ground.nodes.len()
            || planned.iter().all(|p| p.from != "everybody" || p.nodes.len() < held.len()),
        "this drill leaves nobody to watch"
    );
    leases::all_allow(&held.iter().collect::<Vec<_>>()).await?;
    if drill.spec.probes.iter().any(|probe| probe.kind == ProbeKind::Write) {
        ensure!(
            !found.has_probe_domain().await?,
            "domain drill-probe, which the probes write, is there already; delete it"
        );
    }
    let plan = described(&drill, &planned, &left, held.len(), lease);
    if !left.is_empty() {
        found.ground.shown.push_str(&format!("; not asked there: {}", left.join(", ")));
    }
    Ok(Prepared { drill, held, plan })
}

fn described(
    drill: &Drill,
    planned: &[plan::Planned],
    left: &[String],
    held: usize,
    lease: Duration,
) -> String {
    let mut table = plain_table(&["NODES", "KEPT FROM", "FOR", "TIMES"]);
    for one in planned {
        table.add_row([one.nodes.join(", "), one.from.clone(), one.how_long.clone(), one.times.to_string()]);
    }
    let lease = humantime::format_duration(lease);
    let mut text = format!(
        "{}: {}\n\n{table}\n\nNobody else is touched. The drill holds {held} nodes by leases of {lease}; should it \
         die, they are whole {lease} later.\n",
        drill.name,
        drill.spec.description.trim()
    );
    if drill.spec.probes.iter().any(|probe| probe.kind == ProbeKind::Write) {
        text.push_str("Its probes write the domain drill-probe, which is deleted at the end.\n");
    }
    if !left.is_empty() {
        let left = left.join(", ");
        text.push_str(&format!("Not asked on a real fabric, with their bounds: {left}.\n"));
    }
    let nothing = Record::empty();
    let bounds = Judge::new(&drill.spec, &nothing).bounds();
    let bounds: Vec<_> = bounds.iter().map(|judged| format!("{} {}", judged.bound, judged.allowed)).collect();
    text.push_str(&format!("Bounds: {}.\n", bounds.join("; ")));
    text
}

impl Found {
    async fn has_probe_domain(&self) -> anyhow::Result<bool> {
        let first =
            self.ground.nodes.iter().find(|site| site.is_processor()).context("there is no processor")?;
        let ask = Ask::get("/v1/objects").query("kind", "domain");
        let domains: Vec<Manifest> =
            first.client.ask(ask).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        Ok(domains.iter().any(|domain| domain.metadata.name == super::probe_write::PROBE_DOMAIN))
    }
}

impl Prepared {
    /// Says what will be done, and has the name of the fabric typed, unless `yes`.
    ///
    /// # Errors
    /// When there is nobody to ask.
    pub(super) fn confirmed(&self, fabric: &str, yes: bool) -> Outcome<bool> {
        let cannot = |error: io::Error| Failure::new(format!("cannot ask: {error}"));
        let mut err = io::stderr();
        writeln!(err, "{}", self.plan).map_err(cannot)?;
        if yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            let what = format!("this is fabric {fabric}, and there is no terminal to ask on");
            return Err(Failure::new(what).remedy("say --yes"));
        }
        write!(err, "To go on, type the name of the fabric ({fabric}): ")
            .and_then(|()| err.flush())
            .map_err(cannot)?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(cannot)?;
        Ok(answer.trim() == fabric)
    }
}
