//! Leases on nodes of a real fabric: taken before anything is broken, renewed as long as the drill runs, released
//! when it ends. When this program is gone, however it went, nobody renews them, and the nodes heal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use selvedge_node::api::{
    exit,
    types::{CutDirection, IsolationCut, IsolationReport, IsolationRequest},
};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    client::{Ask, Client},
    drill::ground::Site,
    failure::{Failure, Outcome},
    playground::control::Request,
};

/// A lease is renewed this often in its length: two renewals may be lost.
const RENEWALS: u32 = 3;
/// How long a node may take to release its lease; after that it ends by itself.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);

/// The nodes that a drill holds.
#[derive(Debug)]
pub(crate) struct Leases {
    held: Vec<Arc<Held>>,
    /// Nodes that are cut off from everybody.
    lost: BTreeSet<String>,
    /// Clouds of which the first is not heard by the second.
    cuts: BTreeSet<(String, String)>,
    trouble: watch::Receiver<Option<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A node that the drill holds.
#[derive(Debug)]
struct Held {
    node: String,
    cloud: String,
    client: Client,
    drill: String,
    holder: String,
    lease: Duration,
    /// What is cut. Locked while the node is told, so that a renewal never brings back older cuts.
    cuts: Mutex<Vec<IsolationCut>>,
}

impl Leases {
    /// Takes a lease on each of these nodes, with no cuts yet, or on none.
    ///
    /// # Errors
    /// Which nodes cannot be had, and why.
    pub(crate) async fn take(drill: &str, lease: Duration, nodes: &[&Site]) -> anyhow::Result<Self> {
        let holder = format!("{:016x}", rand::random::<u64>());
        let held = |site: &&Site| {
            Arc::new(Held {
                node: site.name.clone(),
                cloud: site.cloud().to_owned(),
                client: site.client.clone(),
                drill: drill.to_owned(),
                holder: holder.clone(),
                lease,
                cuts: Mutex::default(),
            })
        };
        let (said, trouble) = watch::channel(None);
        let leases = Self {
            held: nodes.iter().map(held).collect(),
            lost: BTreeSet::new(),
            cuts: BTreeSet::new(),
            trouble,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        if let Err(error) = leases.tell_all().await {
            leases.close().await;
            return Err(error.context("nothing was isolated"));
        }
        for held in &leases.held {
            let renewing = Arc::clone(held).renew(said.clone());
            leases.tasks.spawn(leases.stop.clone().run_until_cancelled_owned(renewing));
        }
        Ok(leases)
    }

    /// Has something done, as far as leases can.
    pub(crate) async fn obey(&mut self, requests: &[Request]) -> anyhow::Result<()> {
        for request in requests {
            match request {
                Request::Hello => {}
                Request::Kill { node } => {
                    ensure!(
                        self.held.iter().any(|held| held.node == *node),
                        "{node} is not held by this drill"
                    );
                    self.lost.insert(node.clone());
                }
                Request::Start { node, .. } => drop(self.lost.remove(node)),
                Request::Cut { from, to } => drop(self.cuts.insert((from.clone(), to.clone()))),
                Request::MendNetwork => self.cuts.clear(),
                Request::Restart { .. }
                | Request::Pause { .. }
                | Request::Resume { .. }
                | Request::Slow { .. }
                | Request::Leave => bail!("a real fabric does not do this"),
            }
        }
        self.tell_all().await
    }

    /// Tells every node what is cut now, all of them also when some fail.
    async fn tell_all(&self) -> anyhow::Result<()> {
        let told = self.held.iter().map(|held| async {
            let wanted = wanted(&held.node, &held.cloud, &self.lost, &self.cuts);
            held.set(wanted).await.map_err(|failure| format!("{}: {failure}", held.node))
        });
        let told = futures::future::join_all(told).await;
        let failures: Vec<_> = told.into_iter().filter_map(Result::err).collect();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        Ok(())
    }

    /// Returns as soon as a node is not held any more, with what happened; never when all goes well.
    pub(crate) fn trouble(&self) -> impl Future<Output = String> + use<> {
        let mut trouble = self.trouble.clone();
        async move {
            match trouble.wait_for(Option::is_some).await {
                Ok(said) => said.clone().unwrap_or_default(),
                // Nobody renews any more, because the drill is over.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Releases every node. Returns those that could not be told, and heal by themselves.
    pub(crate) async fn close(self) -> Vec<String> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let released = self.held.iter().map(|held| async {
            let ask = Ask::delete("/v1/isolation").query("holder", &held.holder);
            let released = timeout(RELEASE_LIMIT, held.client.ask::<IsolationReport>(ask)).await;
            matches!(released, Ok(Ok(_))).then_some(()).ok_or_else(|| held.node.clone())
        });
        futures::future::join_all(released).await.into_iter().filter_map(Result::err).collect()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Held {
    /// Says what is cut from now on.
    async fn set(&self, wanted: Vec<IsolationCut>) -> Outcome<()> {
        let mut cuts = self.cuts.lock().await;
        *cuts = wanted;
        self.tell(&cuts).await
    }

    async fn tell(&self, cuts: &[IsolationCut]) -> Outcome<()> {
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let request = IsolationRequest {
            drill: self.drill.clone(),
            holder: self.holder.clone(),
            lease_ms: Some(lease_ms),
            cuts: cuts.to_vec(),
        };
        let ask = Ask::put("/v1/isolation").json(&request)?;
        match timeout(self.lease, self.client.ask::<IsolationReport>(ask)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Failure::unreachable(format!("no answer within {:?}", self.lease))),
        }
    }

    /// Renews for ever. A node that refuses, or whose lease has run out for want of an answer, is trouble.
    async fn renew(self: Arc<Self>, trouble: watch::Sender<Option<String>>) {
        let mut renewed = Instant::now();
        loop {
            sleep(self.lease / RENEWALS).await;
            let asked = Instant::now();
            let cuts = self.cuts.lock().await;
            match self.tell(&cuts).await {
                Ok(()) => renewed = asked,
                Err(failure) if is_silence(&failure) && renewed.elapsed() < self.lease => {}
                Err(failure) => {
                    let said = format!("{} is no longer held by this drill: {failure}", self.node);
                    trouble.send_if_modified(|before| {
                        let first = before.is_none();
                        before.get_or_insert(said);
                        first
                    });
                }
            }
        }
    }
}

fn is_silence(failure: &Failure) -> bool {
    [exit::UNREACHABLE, exit::OUTCOME_UNKNOWN].contains(&failure.code)
}

/// What a node has to cut. Both ends of a cut do it, so that one of them is enough. Pure.
fn wanted(
    node: &str,
    cloud: &str,
    lost: &BTreeSet<String>,
    cuts: &BTreeSet<(String, String)>,
) -> Vec<IsolationCut> {
    if lost.contains(node) {
        return vec![IsolationCut { whom: "all".to_owned(), direction: CutDirection::Both }];
    }
    let mut wanted: BTreeMap<&str, CutDirection> = BTreeMap::new();
    for (from, to) in cuts {
        let (other, direction) = match (from == cloud, to == cloud) {
            (true, false) => (to, CutDirection::To),
            (false, true) => (from, CutDirection::From),
            _ => continue,
        };
        wanted
            .entry(other)
            .and_modify(|before| {
                if *before != direction {
                    *before = CutDirection::Both;
                }
            })
            .or_insert(direction);
    }
    let cut = |(other, direction)| IsolationCut { whom: format!("cloud/{other}"), direction };
    wanted.into_iter().map(cut).collect()
}

/// Whether these nodes let drills have them, all of them.
///
/// # Errors
/// Those that do not, and the remedy.
pub(super) async fn all_allow(nodes: &[&Site]) -> anyhow::Result<()> {
    let looks = nodes.iter().map(|site| async {
        let report: Outcome<IsolationReport> = site.client.ask(Ask::get("/v1/isolation")).await;
        (site.name.clone(), report)
    });
    let (mut closed, mut taken) = (Vec::new(), Vec::new());
    for (node, report) in futures::future::join_all(looks).await {
        let report = report.map_err(|failure| anyhow::anyhow!("{node}: {failure}"));
        let report = report.context("nothing was isolated")?;
        match report.lease {
            _ if !report.allowed => closed.push(node),
            Some(lease) => {
                taken.push(format!("{node} (drill {} of {}, until {})", lease.drill, lease.by, lease.until))
            }
            None => {}
        }
    }
    ensure!(
        closed.is_empty(),
        "{} take part in no drills, and nothing was isolated; where drills are wanted, say [drills] allow = true \
         in the node's configuration and restart it",
        closed.join(", ")
    );
    ensure!(taken.is_empty(), "another drill runs, and nothing was isolated: {}", taken.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &str, cloud: &str, lost: &[&str], cuts: &[(&str, &str)]) -> String {
        let lost = lost.iter().map(|name| (*name).to_owned()).collect();
        let cuts = cuts.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let cuts = wanted(node, cloud, &lost, &cuts);
        let cuts: Vec<_> = cuts.iter().map(|cut| format!("{} {:?}", cut.whom, cut.direction)).collect();
        cuts.join(", ")
    }

    #[test]
    fn both_ends_of_a_cut_do_it() {
        let one_way = [("a", "b"), ("a", "c")];
        assert_eq!(shown("a1", "a", &[], &one_way), "cloud/b To, cloud/c To");
        assert_eq!(shown("b1", "b", &[], &one_way), "cloud/a From");
        assert_eq!(shown("d1", "d", &[], &one_way), "");
        let both = [("a", "b"), ("b", "a")];
        assert_eq!(shown("a1", "a", &[], &both), "cloud/b Both");
        assert_eq!(shown("b1", "b", &[], &both), "cloud/a Both");
    }

    #[test]
    fn who_is_lost_hears_nobody() {
        assert_eq!(shown("a1", "a", &["a1"], &[("a", "b")]), "all Both");
        assert_eq!(shown("a2", "a", &["a1"], &[("a", "b")]), "cloud/b To");
    }
}
