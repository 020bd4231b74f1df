//! From what was seen to figures and verdicts. Pure.
//!
//! A node that the drill itself keeps from answering is excused: what was asked of it meanwhile neither
//! counts as a failure nor as a gap. Everything else counts.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::drill::{Bound, DrillSpec, Probe};
use serde::Serialize;

use super::record::{Attempt, Condition, Record, Stretch, What};

/// A bound, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Judged {
    /// What is bounded.
    pub(crate) bound: String,
    /// What was seen.
    pub(crate) measured: String,
    /// What is good.
    pub(crate) allowed: String,
    pub(crate) passed: bool,
    /// What else is to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// A time without success, and who had none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    #[serde(flatten)]
    pub(crate) stretch: Stretch,
    pub(crate) subject: String,
}

/// What one probe saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Seen {
    pub(crate) attempts: usize,
    pub(crate) failures: usize,
    /// Asked of nodes that could not answer because of the drill.
    pub(crate) excused: usize,
    pub(crate) median_ms: Option<u64>,
    pub(crate) slowest_ms: Option<u64>,
    pub(crate) longest_gap: Option<Gap>,
    /// The slowest to forget a dead node, in milliseconds after its death, with who it was.
    pub(crate) clean: Option<(u64, String)>,
}

/// Looks into a record.
pub(crate) struct Judge<'a> {
    spec: &'a DrillSpec,
    record: &'a Record,
    /// When each node was alive.
    alive: BTreeMap<&'a str, Vec<Stretch>>,
    disturbances: Vec<u64>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(spec: &'a DrillSpec, record: &'a Record) -> Self {
        let alive = |node: &'a str| {
            let all = record.conditions(node).into_iter();
            let alive = all.filter(|(_, condition)| *condition == Condition::Alive);
            (node, alive.map(|(stretch, _)| stretch).collect())
        };
        let alive = record.nodes.iter().map(|node| alive(&node.name)).collect();
        Self { spec, record, alive, disturbances: record.disturbances() }
    }

    /// Every bound, in the order of the drill.
    pub(crate) fn bounds(&self) -> Vec<Judged> {
        self.spec.bounds.iter().map(|bound| self.judge(bound)).collect()
    }

    fn judge(&self, bound: &Bound) -> Judged {
        let seen = bound.probe().and_then(|name| self.spec.probes.iter().position(|p| p.name == *name));
        let seen = seen.map(|probe| self.seen(probe));
        match bound {
            Bound::LongestGap(time) => {
                let gap = seen.and_then(|seen| seen.longest_gap);
                let (measured, detail) = match &gap {
                    Some(gap) => (
                        seconds(gap.stretch.length_ms()),
                        Some(format!("{} from {}", gap.subject, seconds(gap.stretch.from_ms))),
                    ),
                    None => ("nothing was asked".to_owned(), None),
                };
                let passed = gap.is_some_and(|gap| gap.stretch.length_ms() <= time.at_most.ms());
                let bound = format!("longest gap of {}", time.probe);
                Judged { bound, measured, allowed: at_most(time.at_most), passed, detail }
            }
            Bound::CleanWithin(time) => {
                let bound = format!("{} names no dead node", time.probe);
                let asked = seen.as_ref().is_some_and(|seen| seen.attempts > 0);
                let clean = seen.and_then(|seen| seen.clean);
                let (measured, detail) = match &clean {
                    Some((ms, who)) => (format!("after {}", seconds(*ms)), Some(who.clone())),
                    None if asked => ("at once".to_owned(), None),
                    None => ("nothing was asked".to_owned(), None),
                };
                let passed = asked && clean.is_none_or(|(ms, _)| ms <= time.at_most.ms());
                Judged { bound, measured, allowed: at_most(time.at_most), passed, detail }
            }
            Bound::SuccessShare(share) => self.share(share),
            Bound::LeaderChanges(count) => counted("changes of leader", self.leader_changes(), count.at_most),
            Bound::Deaths(count) => counted("deaths not by the drill", self.deaths(), count.at_most),
            Bound::SettleTime(time) => {
                let slowest = self.slowest_settling();
                let (measured, passed) = match slowest {
                    Some(Ok(ms)) => (seconds(ms), ms <= time.at_most.ms()),
                    Some(Err(ms)) => (format!("not within {}", seconds(ms)), false),
                    None => ("never waited for".to_owned(), false),
                };
                let bound = "slowest to settle".to_owned();
                Judged { bound, measured, allowed: at_most(time.at_most), passed, detail: None }
            }
        }
    }

    fn share(&self, share: &selvedge_fabric::drill::Share) -> Judged {
        let after = share.after.ms();
        let calm = |attempt: &&Attempt| {
            !self.disturbances.iter().any(|at| *at <= attempt.from_ms && attempt.from_ms < at + after)
        };
        let probe = self.spec.probes.iter().position(|probe| probe.name == share.probe);
        let counted: Vec<_> = self.counted(probe).filter(calm).collect();
        let good = counted.iter().filter(|attempt| attempt.outcome.is_ok()).count();
        let part = if counted.is_empty() { 0.0 } else { good as f64 / counted.len() as f64 };
        let first = counted.iter().find_map(|attempt| {
            let why = attempt.outcome.as_ref().err()?;
            Some(format!("first {} at {}: {why}", attempt.subject, seconds(attempt.from_ms)))
        });
        let bound = match after {
            0 => format!("successes of {}", share.probe),
            _ => format!("successes of {}, from {} after each disturbance", share.probe, share.after),
        };
        Judged {
            bound,
            measured: format!("{} of {} ({})", good, counted.len(), percent(part)),
            allowed: format!("at least {}", share.at_least),
            passed: !counted.is_empty() && part >= share.at_least.part(),
            detail: first,
        }
    }

    /// What a probe saw, from its number.
    pub(crate) fn seen(&self, probe: usize) -> Seen {
        let all = self.record.attempts.iter().filter(|attempt| attempt.probe == probe).count();
        let counted: Vec<_> = self.counted(Some(probe)).collect();
        let good = counted.iter().filter(|attempt| attempt.outcome.is_ok());
        let mut took: Vec<_> = good.map(|attempt| attempt.to_ms.saturating_sub(attempt.from_ms)).collect();
        took.sort_unstable();
        Seen {
            attempts: counted.len(),
            failures: counted.len() - took.len(),
            excused: all - counted.len(),
            median_ms: took.get(took.len() / 2).copied(),
            slowest_ms: took.last().copied(),
            longest_gap: self.longest_gap(probe),
            clean: self.clean(probe),
        }
    }

    /// The attempts of a probe that count.
    pub(crate) fn counted(&self, probe: Option<usize>) -> impl Iterator<Item = &'a Attempt> {
        let of_probe = self.record.attempts.iter().filter(move |attempt| Some(attempt.probe) == probe);
        of_probe.filter(|attempt| !self.is_excused(attempt))
    }

    /// Whether the node that it needed was not alive all the time. A success is a success all the same.
    fn is_excused(&self, attempt: &Attempt) -> bool {
        let whole = |stretch: &Stretch| stretch.from_ms <= attempt.from_ms && attempt.to_ms < stretch.to_ms;
        let alive = self.alive.get(attempt.node.as_str());
        // The last stretch is open at its end: nothing ends after the drill.
        let last =
            |stretch: &Stretch| stretch.from_ms <= attempt.from_ms && stretch.to_ms >= self.record.length_ms;
        attempt.outcome.is_err() && !alive.is_none_or(|alive| alive.iter().any(|s| whole(s) || last(s)))
    }

    fn longest_gap(&self, probe: usize) -> Option<Gap> {
        let attempts = || self.record.attempts.iter().filter(|attempt| attempt.probe == probe);
        let fixed = !matches!(
            self.spec.probes.get(probe).map(|p| p.kind),
            Some(selvedge_fabric::drill::ProbeKind::Write)
        );
        let subjects: BTreeSet<(&str, &str)> =
            attempts().map(|a| (a.subject.as_str(), if fixed { a.node.as_str() } else { "" })).collect();
        let mut longest: Option<Gap> = None;
        for (subject, node) in subjects {
            let whole = vec![Stretch { from_ms: 0, to_ms: self.record.length_ms }];
            let times = self.alive.get(node).unwrap_or(&whole);
            let mut good: Vec<u64> =
                attempts().filter(|a| a.subject == subject && a.outcome.is_ok()).map(|a| a.to_ms).collect();
            good.sort_unstable();
            for stretch in times.iter().flat_map(|stretch| gaps(*stretch, &good)) {
                if longest.as_ref().is_none_or(|gap| stretch.length_ms() > gap.stretch.length_ms()) {
                    longest = Some(Gap { stretch, subject: subject.to_owned() });
                }
            }
        }
        longest
    }

    /// How long after their death nodes were still named by those who could know.
    fn clean(&self, probe: usize) -> Option<(u64, String)> {
        let deaths: BTreeMap<_, Vec<Stretch>> = self
            .record
            .nodes
            .iter()
            .map(|node| {
                let all = self.record.conditions(&node.name).into_iter();
                let dead = all.filter(|(_, condition)| condition.is_lost());
                (node.name.as_str(), dead.map(|(stretch, _)| stretch).collect())
            })
            .collect();
        let late =
            self.record.attempts.iter().filter(|a| a.probe == probe && a.outcome.is_ok()).flat_map(|a| {
                a.named.iter().filter_map(|name| {
                    let dead = deaths.get(name.as_str())?;
                    let dead = dead.iter().find(|s| s.from_ms <= a.from_ms && a.to_ms <= s.to_ms)?;
                    // A node that was down itself can only learn of the death after its own return.
                    let alive = self.alive.get(a.node.as_str());
                    let back = alive.and_then(|alive| alive.iter().rfind(|s| s.from_ms <= a.from_ms));
                    let since = dead.from_ms.max(back.map_or(0, |stretch| stretch.from_ms));
                    Some((a.to_ms.saturating_sub(since), format!("{} named {name}", a.subject)))
                })
            });
        late.max()
    }

    pub(crate) fn leader_changes(&self) -> u64 {
        let leaders: Vec<_> = self.record.leaders().into_iter().filter_map(|(_, leader)| leader).collect();
        leaders.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
    }

    pub(crate) fn deaths(&self) -> u64 {
        self.record.events.iter().filter(|event| matches!(event.what, What::Death(_))).count() as u64
    }

    /// The slowest settling: how long it took, or how long it was waited for in vain.
    fn slowest_settling(&self) -> Option<Result<u64, u64>> {
        let settled = self.record.events.iter().filter_map(|event| match event.what {
            What::Settled { took_ms, ok } => Some(if ok { Ok(took_ms) } else { Err(took_ms) }),
            _ => None,
        });
        settled.max_by_key(|settled| match settled {
            Ok(ms) => (false, *ms),
            Err(ms) => (true, *ms),
        })
    }

    /// The slowest settling that came to its end.
    pub(crate) fn settle_ms(&self) -> Option<u64> {
        self.slowest_settling()?.ok()
    }
}

/// The times between successes within a stretch, its ends included.
fn gaps(stretch: Stretch, good: &[u64]) -> Vec<Stretch> {
    let inside = good.iter().copied().filter(|at| (stretch.from_ms..=stretch.to_ms).contains(at));
    let ends: Vec<_> = [stretch.from_ms].into_iter().chain(inside).chain([stretch.to_ms]).collect();
    ends.windows(2).map(|pair| Stretch { from_ms: pair[0], to_ms: pair[1] }).collect()
}

fn counted(bound: &str, count: u64, most: u32) -> Judged {
    Judged {
        bound: bound.to_owned(),
        measured: count.to_string(),
        allowed: format!("at most {most}"),
        passed: count <= u64::from(most),
        detail: None,
    }
}

fn at_most(span: selvedge_fabric::drill::Span) -> String {
    format!("at most {span}")
}

/// A time for people: `1.25 s`.
pub(crate) fn seconds(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.2} s", ms as f64 / 1e3) }
}

/// A share for people. Only all is 100 %.
fn percent(part: f64) -> String {
    if part >= 1.0 { "100 %".to_owned() } else { format!("{:.2} %", (part * 1e4).floor() / 1e2) }
}

/// The figures by name, for programs.
pub(crate) fn measurements(judge: &Judge<'_>, probes: &[Probe]) -> BTreeMap<String, serde_json::Value> {
    let mut figures = BTreeMap::new();
    for (number, probe) in probes.iter().enumerate() {
        let (seen, name) = (judge.seen(number), probe.name.as_str().replace('-', "_"));
        let mut add = |what: &str, value: serde_json::Value| figures.insert(format!("{name}_{what}"), value);
        add("attempts", seen.attempts.into());
        add("failures", seen.failures.into());
        add("excused", seen.excused.into());
        add("gap_ms", seen.longest_gap.map(|gap| gap.stretch.length_ms()).into());
        add("median_ms", seen.median_ms.into());
        add("slowest_ms", seen.slowest_ms.into());
        if probe.kind == selvedge_fabric::drill::ProbeKind::Dns {
            add("clean_ms", seen.clean.map_or(0, |(ms, _)| ms).into());
        }
    }
    figures.insert("leader_changes".to_owned(), judge.leader_changes().into());
    figures.insert("deaths".to_owned(), judge.deaths().into());
    figures.insert("settle_ms".to_owned(), judge.settle_ms().into());
    figures
}

#[cfg(test)]
mod tests;
