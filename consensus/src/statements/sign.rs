//! The voter's part: sign what was applied.

use std::{sync::Arc, time::Duration};

use selvedge_fabric::{
    key::Signer,
    statement::{Claim, Statement},
};
use tokio::sync::mpsc;

use super::book::{Agreed, Stated};
use crate::core::Core;

/// Pause after each published state: hashing a policy is work, and a busy replica publishes often.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// Runs until the replica stops. Starts with the state from disk: what was signed before is signed again.
pub(crate) async fn run(core: Arc<Core>, signer: Arc<dyn Signer>, mut checkpoints: mpsc::Receiver<Agreed>) {
    let mut agreed = core.statements.agreed.clone();
    agreed.mark_changed();
    loop {
        let (state, checkpoint) = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            Some(state) = checkpoints.recv() => (state, true),
            changed = agreed.changed() => match changed {
                Ok(()) => (agreed.borrow_and_update().clone(), false),
                Err(_) => return,
            },
        };
        sign(&core, &signer, state, checkpoint).await;
        if !checkpoint {
            core.stop.run_until_cancelled(tokio::time::sleep(MIN_INTERVAL)).await;
        }
    }
}

async fn sign(core: &Core, signer: &Arc<dyn Signer>, state: Agreed, checkpoint: bool) {
    let (policy, Some(set)) = (Arc::clone(&state.policy), state.voters.present().cloned()) else { return };
    let (signing, voters) = (Arc::clone(signer), set.clone());
    let work = tokio::task::spawn_blocking(move || {
        let claim = Claim::of(&policy, &voters)?;
        let votes = voters.voters.contains(&signing.public_key());
        Some((claim, votes.then(|| Statement::sign(claim, &*signing))))
    });
    // A task that was cut short means that the process ends.
    let Ok(Some((claim, statement))) = work.await else { return };
    let new_links = {
        let mut book = core.statements.book();
        book.note(Stated { claim, policy: state.policy, set }, checkpoint);
        if let Some(statement) = statement {
            book.keep(statement);
        }
        book.sign_links(&state.voters, &claim.fabric, &**signer)
    };
    if new_links {
        core.store_links();
    }
    core.statements.signed.send_if_modified(|at| {
        let newer = claim.revision > *at;
        *at = claim.revision.max(*at);
        newer
    });
    core.statements.wake.notify_one();
}
