//! The giver's part: gather the signatures of a majority, and those that link the sets of voters.
//!
//! Links are gathered as soon as voters change, whether anybody asks or not: their makers may be gone
//! when somebody does. Statements over policies are gathered while there is demand.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use selvedge_fabric::{
    Revision,
    event::Severity,
    id::NodeName,
    key::PublicKey,
    statement::{Bundle, Statement, Succession},
};

use super::{Proven, book::Taken};
use crate::{
    core::Core,
    wire::{Answer, Ask},
};

/// How often to look without being woken.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a round that was not enough, at first; it doubles up to [`INTERVAL`].
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// Time for one replica to answer; it may wait a moment itself.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often to look whether signatures of successions are missing.
const LINKS_INTERVAL: Duration = Duration::from_millis(250);
/// Longest pause between asking for them in vain: their makers may be gone for good.
const MAX_LINKS_PAUSE: Duration = Duration::from_secs(16);

/// Gathers statements over policies until the replica stops.
pub(crate) async fn run(core: Arc<Core>) {
    let work = async {
        loop {
            tokio::select! {
                () = core.statements.wake.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let mut pause = FIRST_PAUSE;
            prove(&core).await;
            while let Some((wanted, voters)) = missing_statements(&core) {
                let ask = Ask::Statements { wanted, links_after: u64::MAX };
                gather(&core, &ask, &voters).await;
                if missing_statements(&core).is_some() {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(INTERVAL);
                }
            }
        }
    };
    core.stop.run_until_cancelled(work).await;
}

/// Gathers the signatures of successions until the replica stops.
pub(crate) async fn run_links(core: Arc<Core>) {
    let work = async {
        let mut pause = LINKS_INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let history = Arc::clone(&core.statements.agreed.borrow().voters);
            let missing = core.statements.book().unsigned(&history);
            let Some((first, signers)) = missing else {
                pause = LINKS_INTERVAL;
                continue;
            };
            let ask = Ask::Statements { wanted: Vec::new(), links_after: first.saturating_sub(1) };
            gather(&core, &ask, &signers).await;
            pause = (pause * 2).min(MAX_LINKS_PAUSE);
        }
    };
    core.stop.run_until_cancelled(work).await;
}

/// The revisions to ask about and whom; `None` when the newest policy is proven, or nobody wants it.
fn missing_statements(core: &Core) -> Option<(Vec<Revision>, BTreeSet<PublicKey>)> {
    let book = core.statements.book();
    let latest = book.latest()?;
    let proven = core.statements.proven.borrow().as_ref().is_some_and(|p| p.claim == latest.claim);
    (!proven && core.statements.is_demanded()).then(|| (book.wanted(), latest.set.voters.clone()))
}

/// Asks all at once and takes what they answer. Does not wait for the slow and the dead when the others
/// are a majority.
async fn gather(core: &Core, ask: &Ask, of: &BTreeSet<PublicKey>) {
    let policy = core.policy.borrow().clone();
    let others = policy.nodes.iter().filter(|(name, a)| of.contains(&a.key) && **name != core.me);
    let mut answers: FuturesUnordered<_> = others
        .map(|(name, _)| {
            let ask = ask.clone();
            async move { (name, core.link.call(None, name, ask, Some(ASK_TIMEOUT)).await) }
        })
        .collect();
    while let Some((name, answer)) = answers.next().await {
        match answer {
            Ok(Answer::Statements { statements, links }) => take(core, name, &statements, &links),
            Ok(_) => tracing::debug!(%name, "answered something else than was asked"),
            Err(error) => tracing::debug!(%name, %error, "no statements"),
        }
        if prove(core).await && missing_statements(core).is_none() {
            return;
        }
    }
}

fn take(core: &Core, from: &NodeName, statements: &[Statement], links: &[Succession]) {
    let agreed = core.statements.agreed.borrow().clone();
    let Some(fabric) = agreed.policy.params.as_ref().map(|p| p.id) else { return };
    let mut news = false;
    {
        let mut book = core.statements.book();
        for statement in statements {
            if book.take(statement) == Taken::Diverged {
                let revision = statement.claim.revision;
                let message =
                    format!("{from} signed another policy than this node has at revision {revision}");
                core.events.emit(Severity::Security, "policy-diverged", from.as_str(), message);
            }
        }
        for link in links {
            news |= book.take_link(&agreed.voters, &fabric, link);
        }
    }
    if news {
        core.store_links();
    }
}

/// Publishes the newest policy that a majority signed. Returns whether there is a new one.
async fn prove(core: &Core) -> bool {
    let (stated, signatures) = {
        let book = core.statements.book();
        let Some((stated, signatures)) = book.agreed_by_majority() else { return false };
        let old = core.statements.proven.borrow();
        let claim = &stated.claim;
        let old_is_newer =
            |p: &Arc<Proven>| p.claim.voters == claim.voters && p.claim.revision > claim.revision;
        if old.as_ref().is_some_and(|p| p.claim == *claim || old_is_newer(p)) {
            return false;
        }
        (stated.clone(), signatures.clone())
    };
    let policy = Arc::clone(&stated.policy);
    let Ok(policy) = tokio::task::spawn_blocking(move || Bundle::policy_bytes(&policy)).await else {
        return false;
    };
    let proven = Proven { claim: stated.claim, signatures, sequence: stated.set.sequence, policy };
    core.statements.proven.send_replace(Some(Arc::new(proven)));
    true
}
