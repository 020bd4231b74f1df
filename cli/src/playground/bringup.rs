//! Brings a fabric up from nothing, the way a person would: found it, let the others join by seed list
//! and token, apply the graphs, register endpoints. Ready means that every node says so: all members
//! alive, and every contract name answering with all of its endpoints.

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hickory_proto::rr::RecordType;
use selvedge_fabric::id::ServiceRef;
use selvedge_node::api::types::{ApplyReply, Member, Status, TokenCreated};

use super::{
    catalog::{Catalog, Graph, ServiceNeed},
    driver::Selvedge,
    fabric::{Fabric, first_to_end},
    home::Home,
    layout::NodePlan,
    placement::Placed,
    ports::PortBlock,
    progress::Progress,
    serving::Served,
    state::NodeInfo,
};
use crate::probe::dns::{self, Wire};

/// Longest each step may take on a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is awaited.
const LOOK_PAUSE: Duration = Duration::from_millis(150);
/// How many tokens or endpoints are made at once: each mostly waits for its node.
const AT_ONCE: usize = 4;
/// Service tokens outlive any playground that somebody forgets over a holiday.
const SERVICE_TOKEN_TTL: &str = "720h";

/// What is to be brought up.
pub(crate) struct Blueprint {
    pub(crate) plans: Vec<NodePlan>,
    pub(crate) graphs: Vec<Graph>,
    pub(crate) catalog: Catalog,
    pub(crate) placed: Vec<Placed>,
}

/// What is to be known of a fabric that is up.
pub(crate) struct Up {
    pub(crate) suffix: String,
    pub(crate) nodes: Vec<NodeInfo>,
}

/// Brings everything up in `fabric`. Whatever was started is in there also when this fails.
pub(crate) async fn bring_up(
    blueprint: &Blueprint,
    fabric: &mut Fabric,
    selvedge: &Selvedge,
    home: &Home,
    ports: &PortBlock,
    progress: &Progress,
) -> anyhow::Result<Up> {
    let suffix = start_nodes(blueprint, fabric, selvedge, home, progress).await?;
    let nodes = fabric.infos();
    let served = async {
        all_alive(selvedge, &nodes, progress).await?;
        apply_graphs(&blueprint.graphs, selvedge, &nodes, home).await?;
        progress.done(&format!("{} contracts applied", blueprint.catalog.contracts.len()));
        progress.doing("registering endpoints");
        let tokens = service_tokens(&blueprint.catalog, selvedge, &nodes, home).await?;
        let served = register(&blueprint.placed, &tokens, fabric, ports, home).await?;
        progress.done(&format!("{} endpoints registered", blueprint.placed.len()));
        progress.doing("waiting until every node names every endpoint");
        all_named(blueprint, &nodes, &suffix).await?;
        anyhow::Ok(served)
    };
    let served = tokio::select! {
        served = served => served?,
        died = first_to_end(fabric.watches()) => return Err(died),
    };
    fabric.keep(served);
    progress.done("every name answers on every node");
    Ok(Up { suffix, nodes })
}

/// Starts all nodes and returns the fabric's DNS suffix.
async fn start_nodes(
    blueprint: &Blueprint,
    fabric: &mut Fabric,
    selvedge: &Selvedge,
    home: &Home,
    progress: &Progress,
) -> anyhow::Result<String> {
    let (first, others) = blueprint.plans.split_first().context("a playground without nodes")?;
    progress.doing(&format!("founding the fabric on {}", first.name()));
    fabric.found(first, home).await?;
    let ready = tokio::select! {
        status = first_ready(selvedge, &first.socket) => status?,
        died = first_to_end(fabric.watches()) => return Err(died),
    };
    progress.done(&format!("{} founded the fabric {}", first.name(), ready.fabric));
    for plan in others {
        progress.doing(&format!("starting {}", plan.name()));
        let watches = fabric.watches();
        tokio::select! {
            joined = fabric.join(plan, home) => joined?,
            died = first_to_end(watches) => return Err(died),
        }
    }
    Ok(ready.suffix)
}

async fn first_ready(selvedge: &Selvedge, socket: &Path) -> anyhow::Result<Status> {
    eventually("the first node is not ready", || async {
        let status: Status = selvedge.ask(socket, &["status"]).await?;
        ensure!(status.ready, "its status says that it is not ready: {:?}", status.alarms);
        Ok(status)
    })
    .await
}

/// Waits until every node sees every node alive.
async fn all_alive(selvedge: &Selvedge, nodes: &[NodeInfo], progress: &Progress) -> anyhow::Result<()> {
    progress.doing("waiting until every node sees every other");
    for node in nodes {
        eventually(&format!("node {} does not see all others alive", node.name), || async {
            let members: Vec<Member> = selvedge.ask(&node.socket, &["members"]).await?;
            let missing = not_alive(nodes, &members);
            ensure!(missing.is_empty(), "not alive there: {}", missing.join(", "));
            Ok(())
        })
        .await?;
    }
    progress.done(&format!("{} nodes see each other", nodes.len()));
    Ok(())
}

/// The nodes that `members` does not list as alive.
pub(crate) fn not_alive(nodes: &[NodeInfo], members: &[Member]) -> Vec<String> {
    let alive = |name: &str| members.iter().any(|m| m.name == name && m.state == "alive");
    nodes.iter().map(|n| n.name.clone()).filter(|name| !alive(name)).collect()
}

async fn apply_graphs(
    graphs: &[Graph],
    selvedge: &Selvedge,
    nodes: &[NodeInfo],
    home: &Home,
) -> anyhow::Result<()> {
    let first = nodes.first().context("a playground without nodes")?;
    for (index, graph) in graphs.iter().enumerate() {
        let file = home.write_intent(&format!("graph-{index}.yaml"), &graph.text)?;
        let args = ["apply", "-f", &file.to_string_lossy()];
        let applied: anyhow::Result<ApplyReply> = selvedge.ask(&first.socket, &args).await;
        applied.with_context(|| format!("graph {}", graph.name))?;
    }
    Ok(())
}

/// Makes a token for each service, and waits until every node knows them all. Returns the files.
async fn service_tokens(
    catalog: &Catalog,
    selvedge: &Selvedge,
    nodes: &[NodeInfo],
    home: &Home,
) -> anyhow::Result<BTreeMap<ServiceRef, String>> {
    let first = nodes.first().context("a playground without nodes")?;
    let make = |need: &ServiceNeed| {
        let service = need.service.clone();
        async move {
            let text = service.to_string();
            let args = ["token", "service", "--service", &text, "--ttl", SERVICE_TOKEN_TTL];
            let created: TokenCreated = selvedge.ask(&first.socket, &args).await?;
            let file = home.write_intent(&format!("{service}.token"), &created.token)?;
            anyhow::Ok((service, file.to_string_lossy().into_owned()))
        }
    };
    let files = stream::iter(catalog.services.iter().map(make)).buffered(AT_ONCE).try_collect().await?;
    let newest: Status = selvedge.ask(&first.socket, &["status"]).await?;
    for node in nodes {
        eventually(&format!("node {} does not follow the policy", node.name), || async {
            let status: Status = selvedge.ask(&node.socket, &["status"]).await?;
            let (has, wants) = (status.revision, newest.revision);
            ensure!(has >= wants, "it is at revision {has}, not {wants}");
            Ok(())
        })
        .await?;
    }
    Ok(files)
}

async fn register(
    placed: &[Placed],
    tokens: &BTreeMap<ServiceRef, String>,
    fabric: &Fabric,
    ports: &PortBlock,
    home: &Home,
) -> anyhow::Result<Vec<Served>> {
    let mut free = (0..).map(|index| ports.endpoint_port(index));
    let register = placed.iter().map(|endpoint| {
        let local: Vec<_> = free.by_ref().take(endpoint.ports.len()).collect();
        async move {
            let token = tokens.get(&endpoint.service).context("a service without a token")?;
            fabric.serve(endpoint, &local, token, home).await
        }
    });
    stream::iter(register).buffered(AT_ONCE).try_collect().await
}

/// Waits until every contract name answers, on every node, with as many endpoints as serve it.
async fn all_named(blueprint: &Blueprint, nodes: &[NodeInfo], suffix: &str) -> anyhow::Result<()> {
    for contract in &blueprint.catalog.contracts {
        let name = format!("{}.{}.{suffix}", contract.contract.name, contract.contract.domain);
        let wanted = blueprint.placed.iter().filter(|p| contract.servers.contains(&p.service)).count();
        for node in nodes {
            eventually(&format!("node {} does not name all endpoints", node.name), || async {
                let answer = dns::ask(node.dns, &name, RecordType::A, Wire::Udp).await?;
                let found = dns::addresses(&answer).len();
                ensure!(found >= wanted, "{name} has {found} addresses, not {wanted}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

/// Tries until it succeeds; after [`STEP_LIMIT`] it fails with `what` and the last failure.
async fn eventually<T, F>(what: &str, attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    within(STEP_LIMIT, what, attempt).await
}

async fn within<T, F>(limit: Duration, what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(last) if Instant::now() >= deadline => bail!("{what} after {limit:?}: {last:#}"),
            Err(_) => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_comes_fails_with_the_last_reason() {
        let mut tries = 0;
        let outcome: anyhow::Result<()> = within(Duration::ZERO, "no luck", || {
            tries += 1;
            std::future::ready(Err(anyhow::anyhow!("try {tries}")))
        })
        .await;
        let text = outcome.expect_err("it never succeeds").to_string();
        assert_eq!(text, "no luck after 0ns: try 1");
    }

    #[tokio::test]
    async fn what_comes_late_is_waited_for() {
        let mut tries = 0;
        let outcome = eventually("no luck", || {
            tries += 1;
            std::future::ready(if tries < 3 { Err(anyhow::anyhow!("not yet")) } else { Ok(tries) })
        })
        .await;
        assert_eq!(outcome.expect("in the end"), 3);
    }
}
