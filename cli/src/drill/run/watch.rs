//! Looks from time to time at who leads and who has died.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use selvedge_node::api::types::QuorumReport;
use tokio_util::sync::CancellationToken;

use super::{
    notebook::Notebook,
    steps::{ask, status},
};
use crate::{
    drill::{
        ground::{Ground, Site},
        record::{Condition, What},
    },
    playground::state::{State, is_process},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Looks in a row without an answer after which a node of a real fabric counts as dead: its API may be slow, and
/// the way to it is not the fabric's.
const SILENT_LOOKS: u32 = 5;

/// What was seen of nodes of a real fabric.
type Pulses = BTreeMap<String, Pulse>;

#[derive(Debug, Default)]
struct Pulse {
    silent: u32,
    uptime_ms: u64,
}

/// Looks until `stop`.
pub(super) async fn watch(ground: Ground, book: Arc<Notebook>, stop: CancellationToken) {
    let look = async {
        let (mut pulses, mut is_blind) = (Pulses::new(), false);
        loop {
            match &ground.playground {
                Some(state) => {
                    let seen = deaths(state, &book);
                    if let Err(error) = &seen
                        && !is_blind
                    {
                        book.note(What::Note(format!("deaths are not seen: {error:#}")));
                    }
                    is_blind = seen.is_err();
                }
                None => silences(&ground.nodes, &book, &mut pulses).await,
            }
            leader(&ground.nodes, &book).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(look).await;
}

/// Nodes that should be alive, and are not.
fn deaths(first: &State, book: &Notebook) -> anyhow::Result<()> {
    // Which process a node has changes when it is started again.
    let state = State::load(&first.dir)?.context("the playground is gone")?;
    for node in &state.nodes {
        let config = state.dir.join(&node.name).join("node.toml");
        if book.is_alive(&node.name) && !is_process(node.pid, &config.to_string_lossy()) {
            died(&node.name, book);
        }
    }
    Ok(())
}

/// The same by what nodes say of themselves. Isolated ones answer here all the same.
async fn silences(nodes: &[Site], book: &Notebook, pulses: &mut Pulses) {
    let looks = nodes.iter().map(|node| async move { (node, status(node).await) });
    for (node, status) in futures::future::join_all(looks).await {
        let pulse = pulses.entry(node.name.clone()).or_default();
        let dead = match status {
            Some(status) => {
                let restarted = status.uptime_ms < pulse.uptime_ms;
                *pulse = Pulse { silent: 0, uptime_ms: status.uptime_ms };
                if book.condition(&node.name) == Some(Condition::Dead) {
                    book.note(What::Node { name: node.name.clone(), condition: Condition::Alive });
                }
                restarted
            }
            None => {
                pulse.silent += 1;
                pulse.silent == SILENT_LOOKS
            }
        };
        if dead {
            died(&node.name, book);
        }
    }
}

fn died(name: &str, book: &Notebook) {
    book.note(What::Death(name.to_owned()));
    book.note(What::Node { name: name.to_owned(), condition: Condition::Dead });
}

/// Who leads, by the newest term that any living processor knows.
pub(super) async fn leader(nodes: &[Site], book: &Notebook) {
    let alive = nodes.iter().filter(|node| node.is_processor() && book.is_alive(&node.name));
    let reports = futures::future::join_all(alive.map(|node| ask::<QuorumReport>(node, "/v1/quorum"))).await;
    let led = reports.into_iter().flatten().filter(|report| report.leader.is_some());
    let newest = led.max_by_key(|report| report.term);
    book.note(What::Leader(newest.and_then(|report| report.leader)));
}
