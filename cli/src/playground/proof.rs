//! What `--check` asks of real packets: what a contract allows passes, by name and over both families, and
//! nothing else does. Everything is asked from inside, as the programs of the workloads would.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hickory_proto::rr::RecordType;
use tokio::{net::TcpStream, time::timeout};

use super::{
    catalog::{Catalog, ContractNeed},
    endpoint::Card,
    networks::Workload,
    serving::Served,
};
use crate::probe::{
    dns::{self, Wire},
    http,
};

/// Long enough for a connection that may be made, on a busy machine, and short enough to wait for all that
/// may not.
const SILENCE: Duration = Duration::from_secs(1);
/// Contracts, and sources of what must not pass, that are tried at once.
const AT_ONCE: usize = 8;

/// Every contract from each of its clients on a living node: the name gives addresses of both families,
/// and a server of the contract answers at each.
pub(crate) async fn allowed(catalog: &Catalog, served: &[Served], suffix: &str) -> anyhow::Result<String> {
    let mut tries = Vec::new();
    for need in &catalog.contracts {
        for client in served.iter().filter(|s| plays(&s.info.service, &need.clients)) {
            tries.push(meet(need, client, suffix));
        }
    }
    let (clients, met) = (tries.len(), stream::iter(tries).buffer_unordered(AT_ONCE));
    let addresses: Vec<usize> = met.try_collect().await?;
    Ok(format!("{clients} clients, {} addresses", addresses.iter().sum::<usize>()))
}

/// Follows the name of one contract from one client.
async fn meet(need: &ContractNeed, client: &Served, suffix: &str) -> anyhow::Result<usize> {
    let workload = client.workload.as_ref().context("it has no network of its own")?;
    let name = format!("{}.{}.{suffix}", need.contract.name, need.contract.domain);
    let (resolver, ports) = (workload.resolver()?, need.ports.clone());
    let asked = name.clone();
    let met = workload.within(async move {
        let mut cards = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let answer = dns::ask(resolver, &asked, kind, Wire::Udp).await?;
            let addresses = dns::addresses_of(&answer);
            ensure!(!addresses.is_empty(), "no {kind} record");
            for address in addresses {
                for port in &ports {
                    cards.push(http::get::<Card>(SocketAddr::new(address, *port), "/").await?);
                }
            }
        }
        Ok(cards)
    });
    let cards = met.await.with_context(|| format!("{name} from {}", client.info.id))?;
    match cards.iter().find(|card| !plays(&card.service, &need.servers)) {
        Some(card) => bail!("{name} led {} to {}, which does not serve it", client.info.id, card.service),
        None => Ok(cards.len()),
    }
}

/// One endpoint of each service tries every port of one endpoint of every other, and gets through only
/// where a contract says so.
pub(crate) async fn refused(catalog: &Catalog, served: &[Served]) -> anyhow::Result<String> {
    let mut seen = BTreeSet::new();
    let one_each: Vec<&Served> = served.iter().filter(|s| seen.insert(&s.info.service)).collect();
    let tries = one_each.iter().map(|source| {
        let targets: Vec<_> = one_each
            .iter()
            .filter(|target| target.info.id != source.info.id)
            .flat_map(|target| target.ports.iter().map(move |port| (*target, *port)))
            .filter(|(target, port)| !is_allowed(catalog, source, target, *port))
            .flat_map(|(target, port)| target.info.addresses.iter().map(move |a| SocketAddr::new(*a, port)))
            .collect();
        knock(source, targets)
    });
    let tried: Vec<usize> = stream::iter(tries).buffer_unordered(AT_ONCE).try_collect().await?;
    let tried = tried.iter().sum::<usize>();
    ensure!(tried > 0, "there is nothing that is not allowed");
    Ok(format!("{tried} connections that no contract allows"))
}

/// None of `targets` must answer `source`.
async fn knock(source: &Served, targets: Vec<SocketAddr>) -> anyhow::Result<usize> {
    let workload: &Workload = source.workload.as_ref().context("it has no network of its own")?;
    let (tried, who) = (targets.len(), source.info.id.clone());
    let knocked = workload.within(async move {
        let connections = targets.iter().map(|target| async move {
            // A refusal would have come from the other end just as well.
            let answered = match timeout(SILENCE, TcpStream::connect(target)).await {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
                Err(_) => false,
            };
            answered.then_some(*target)
        });
        Ok(futures::future::join_all(connections).await.into_iter().flatten().next())
    });
    match knocked.await? {
        Some(target) => bail!("{who} got through to {target}, which no contract allows"),
        None => Ok(tried),
    }
}

fn is_allowed(catalog: &Catalog, source: &Served, target: &Served, port: u16) -> bool {
    catalog.contracts.iter().any(|need| {
        // In some patterns those who serve also call each other; what may pass among them is not asked here.
        (plays(&source.info.service, &need.clients) || plays(&source.info.service, &need.servers))
            && plays(&target.info.service, &need.servers)
            && need.ports.contains(&port)
    })
}

fn plays(service: &str, players: &BTreeSet<selvedge_fabric::id::ServiceRef>) -> bool {
    players.iter().any(|player| player.to_string() == service)
}
