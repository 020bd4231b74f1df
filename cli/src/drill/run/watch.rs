//! Looks from time to time at who leads and who has died.

use std::{sync::Arc, time::Duration};

use selvedge_node::api::types::QuorumReport;
use tokio_util::sync::CancellationToken;

use super::{notebook::Notebook, steps::ask};
use crate::{
    drill::record::{Condition, What},
    playground::state::{NodeInfo, State, is_process},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks until `stop`.
pub(super) async fn watch(state: State, book: Arc<Notebook>, stop: CancellationToken) {
    let look = async {
        loop {
            deaths(&state, &book);
            leader(&state.nodes, &book).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(look).await;
}

/// Nodes that should be alive, and are not.
fn deaths(first: &State, book: &Notebook) {
    // Which process a node has changes when it is started again.
    let Ok(Some(state)) = State::load(&first.dir) else { return };
    for node in &state.nodes {
        let config = state.dir.join(&node.name).join("node.toml");
        if book.is_alive(&node.name) && !is_process(node.pid, &config.to_string_lossy()) {
            book.note(What::Death(node.name.clone()));
            book.note(What::Node { name: node.name.clone(), condition: Condition::Dead });
        }
    }
}

/// Who leads, by the newest term that any living processor knows.
pub(super) async fn leader(nodes: &[NodeInfo], book: &Notebook) {
    let alive = nodes.iter().filter(|node| node.is_processor() && book.is_alive(&node.name));
    let reports = futures::future::join_all(alive.map(|node| ask::<QuorumReport>(node, "/v1/quorum"))).await;
    let led = reports.into_iter().flatten().filter(|report| report.leader.is_some());
    let newest = led.max_by_key(|report| report.term);
    book.note(What::Leader(newest.and_then(|report| report.leader)));
}
