//! From new plans to new indexes, off the query path.

use std::sync::Arc;

use selvedge_fabric::plan::Plan;
use tokio::{sync::watch, task::JoinError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::index::ZoneIndex;

/// Builds an index for each plan whose zone differs from the last, and publishes it whole. A query sees
/// the old index or the new one, never a mixture; plans that come faster than indexes are built are
/// skipped but for the newest.
pub(crate) async fn run(
    mut plans: watch::Receiver<Arc<Plan>>,
    mut current: Arc<Plan>,
    publish: watch::Sender<Arc<ZoneIndex>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let changed = stop.run_until_cancelled(plans.changed()).await;
        if !matches!(changed, Some(Ok(()))) {
            // Stopped, or no more plans will come; then the last one stays in force.
            return;
        }
        let next = plans.borrow_and_update().clone();
        if next.zone == current.zone {
            continue;
        }
        match build(&tasks, next.clone()).await {
            Ok(index) => {
                publish.send_replace(Arc::new(index));
                current = next;
            }
            Err(error) => {
                tracing::error!(%error, "the zone of the new plan could not be indexed; the old one stays")
            }
        }
    }
}

/// Builds the index of a plan's zone on a thread for blocking work: a large zone takes milliseconds that
/// the query path does not have.
pub(crate) async fn build(tasks: &TaskTracker, plan: Arc<Plan>) -> Result<ZoneIndex, JoinError> {
    tasks.spawn_blocking(move || ZoneIndex::build(&plan.zone)).await
}
