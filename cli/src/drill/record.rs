//! What was done and seen in a drill, in the order of time. Filled by the shell, judged by
//! [`super::judge`]. Times are milliseconds since the probes began.

use serde::Serialize;

/// A node that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) cloud: String,
    pub(crate) role: String,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Condition {
    /// It runs and says that it is ready.
    Alive,
    /// It was started and is not ready yet.
    Starting,
    Paused,
    Dead,
    /// It runs, and nobody hears it: a real fabric's way to be dead.
    CutOff,
}

impl Condition {
    /// Whether others must take it for dead.
    pub(crate) const fn is_lost(self) -> bool {
        matches!(self, Self::Dead | Self::CutOff)
    }
}

/// How the drill ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With its last step.
    Completed,
    /// Somebody stopped it.
    Interrupted,
    /// A step could not be done.
    Failed(String),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A step begins.
    Step(String),
    /// A node changes. Said before it is broken, and after it is well again, so that what is asked in between
    /// is never held against it.
    Node { name: String, condition: Condition },
    /// Something between these clouds is broken.
    Fault { name: String, clouds: Vec<String> },
    /// All that was broken between clouds is mended.
    Mended,
    /// Another leader, or none.
    Leader(Option<String>),
    /// The fabric has settled, or not in time.
    Settled { took_ms: u64, ok: bool },
    /// A node died that nobody killed.
    Death(String),
    /// Anything else.
    Note(String),
}

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    pub(crate) what: What,
}

/// One question of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Its number among the probes of the drill.
    pub(crate) probe: usize,
    /// Who asks, or is asked: gaps are measured for each.
    pub(crate) subject: String,
    /// The node without which it cannot be answered.
    pub(crate) node: String,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    /// Otherwise why not.
    pub(crate) outcome: Result<(), String>,
    /// Nodes that the answer names.
    pub(crate) named: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) nodes: Vec<Place>,
    /// In the order of time.
    pub(crate) events: Vec<Event>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) length_ms: u64,
    pub(crate) end: End,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Stretch {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

impl Stretch {
    pub(crate) const fn length_ms(self) -> u64 {
        self.to_ms.saturating_sub(self.from_ms)
    }
}

impl Record {
    /// Of a drill that has not begun.
    pub(crate) fn empty() -> Self {
        let (nodes, events, attempts) = (Vec::new(), Vec::new(), Vec::new());
        Self { nodes, events, attempts, length_ms: 0, end: End::Completed }
    }

    /// What a node did when, without gaps. Every node is alive at first.
    pub(crate) fn conditions(&self, node: &str) -> Vec<(Stretch, Condition)> {
        let changes = self.events.iter().filter_map(|event| match &event.what {
            What::Node { name, condition } if name == node => Some((event.at_ms, *condition)),
            _ => None,
        });
        stretches(Condition::Alive, changes, self.length_ms)
    }

    /// Who led when; none for nobody known.
    pub(crate) fn leaders(&self) -> Vec<(Stretch, Option<String>)> {
        let changes = self.events.iter().filter_map(|event| match &event.what {
            What::Leader(leader) => Some((event.at_ms, leader.clone())),
            _ => None,
        });
        stretches(None, changes, self.length_ms)
    }

    /// When something was broken or mended.
    pub(crate) fn disturbances(&self) -> Vec<u64> {
        let disturbs =
            |event: &&Event| matches!(event.what, What::Node { .. } | What::Fault { .. } | What::Mended);
        self.events.iter().filter(disturbs).map(|event| event.at_ms).collect()
    }
}

fn stretches<T: Clone + PartialEq>(
    first: T,
    changes: impl Iterator<Item = (u64, T)>,
    length_ms: u64,
) -> Vec<(Stretch, T)> {
    let mut all = vec![(Stretch { from_ms: 0, to_ms: length_ms }, first)];
    for (at_ms, now) in changes {
        let at_ms = at_ms.min(length_ms);
        if let Some((stretch, before)) = all.last_mut() {
            if *before == now {
                continue;
            }
            stretch.to_ms = at_ms;
        }
        all.push((Stretch { from_ms: at_ms, to_ms: length_ms }, now));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_have_no_gap_and_repeat_nothing() {
        let changes = [(10, 1), (20, 1), (30, 2)];
        let found = stretches(0, changes.into_iter(), 40);
        let at = |from_ms, to_ms| Stretch { from_ms, to_ms };
        assert_eq!(found, [(at(0, 10), 0), (at(10, 30), 1), (at(30, 40), 2)]);
    }
}
