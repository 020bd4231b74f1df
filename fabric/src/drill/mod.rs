//! Failure drills as documents: what is broken, what is watched meanwhile, and what must hold.
//!
//! A drill is written like every other manifest, but it is no intent: nothing of it enters the log. A
//! program reads it ([`crate::manifest::parse_drill`]), does its steps to a fabric, and judges what it saw.
//!
//! ```yaml
//! apiVersion: selvedge/v1
//! kind: Drill
//! metadata: {name: lose-the-leader}
//! spec:
//!   description: The leader is killed; writes go on.
//!   probes:
//!     - {name: write, kind: write}
//!   steps:
//!     - wait: 3s
//!     - kill: [leader]
//!     - wait: 10s
//!   bounds:
//!     - longestGap: {probe: write, atMost: 5s}
//! ```

mod selector;
mod span;

pub use selector::Selector;
pub use span::{Percent, Span};

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ContractRef, Name, ZoneName};

/// Most steps of a drill, those that `repeat` repeats counted each time.
pub const MAX_STEPS: usize = 1_000;
/// Most rounds of one `repeat`.
pub const MAX_ROUNDS: u32 = 100;
/// Most probes.
pub const MAX_PROBES: usize = 16;
/// Most bounds.
pub const MAX_BOUNDS: usize = 32;
/// Longest wait, and longest time for settling, in milliseconds.
pub const MAX_WAIT_MS: u64 = 3_600_000;
/// Shortest and longest pause between two rounds of a probe, in milliseconds.
pub const EVERY_MS: std::ops::RangeInclusive<u64> = 20..=60_000;
/// Pause between two rounds of a probe that says nothing of it.
pub const DEFAULT_EVERY: Span = Span::from_ms(250);
/// Furthest that a clock is set wrong, in milliseconds.
pub const MAX_CLOCK_MS: u64 = 30 * 86_400_000;

/// A drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drill {
    /// What it is called.
    pub name: Name,
    /// What it does.
    pub spec: DrillSpec,
}

/// What a drill does, watches and asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrillSpec {
    /// What is broken and what must hold, for people.
    pub description: String,
    /// What a playground must look like that is started for this drill alone.
    #[serde(default)]
    pub playground: PlaygroundSpec,
    /// What is asked all the time, beside the steps.
    pub probes: Vec<Probe>,
    /// What is done, one after the other.
    pub steps: Vec<Step>,
    /// What must hold.
    pub bounds: Vec<Bound>,
}

/// A playground for a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlaygroundSpec {
    /// Its clouds.
    #[schemars(with = "Vec<String>")]
    pub clouds: Vec<ZoneName>,
    /// Processors in each cloud, 1 to 8.
    #[schemars(range(min = 1, max = 8))]
    pub processors: u32,
    /// Workload nodes in each cloud, 0 to 8.
    #[schemars(range(max = 8))]
    pub workloads: u32,
    /// TOML that is added to the configuration of every node. A drill with it runs on a playground of its
    /// own alone.
    pub node_config: String,
}

impl Default for PlaygroundSpec {
    fn default() -> Self {
        let clouds = ["aws", "azr", "gcp"].iter().filter_map(|name| name.parse().ok()).collect();
        Self { clouds, processors: 2, workloads: 0, node_config: String::new() }
    }
}

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Ends these nodes as by a power cut, with the workloads on them.
    Kill(Vec<Selector>),
    /// Starts these nodes again, with their workloads.
    Start(Vec<Selector>),
    /// Stops these nodes in their tracks: they keep everything and do nothing.
    Pause(Vec<Selector>),
    /// Lets paused nodes go on.
    Resume(Vec<Selector>),
    /// Ends the daemons of these nodes in good order and starts them again; workloads stay.
    Restart(Restart),
    /// Cuts these groups of clouds off from each other.
    Partition(Vec<Vec<Selector>>),
    /// Cuts one direction: what the first say does not reach the others.
    Cut(Cut),
    /// Makes what joins clouds slow or lossy.
    Slow(Slow),
    /// Applies manifests, and deletes what they hold when the drill is over.
    Apply(Apply),
    /// Does nothing for this long.
    Wait(Span),
    /// Waits until all running nodes see each other and agree on the intent, at most this long.
    Settle(Span),
    /// Mends what was broken.
    Heal(Scope),
    /// Does the same steps several times.
    Repeat(Repeat),
}

/// How nodes are restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restart {
    /// Which.
    pub nodes: Vec<Selector>,
    /// One after the other, each after the fabric has settled, at most this long each; otherwise all at
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_by_one: Option<Span>,
    /// With the other program that `--binary` names.
    #[serde(default)]
    pub other_binary: bool,
    /// With a clock that is wrong by this, such as `+10m` or `-10m`; `+0s` for the right time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^[+-]([0-9]+(d|h|m|s|ms))+$"))]
    pub clock: Option<Clock>,
}

/// How wrong a clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Ahead; otherwise behind.
    pub ahead: bool,
    /// By how much.
    pub by: Span,
}

/// One direction that is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cut {
    /// Who is not heard.
    pub from: Vec<Selector>,
    /// By whom.
    pub to: Vec<Selector>,
}

/// What happens to packets between clouds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slow {
    /// From these.
    pub from: Vec<Selector>,
    /// To these.
    pub to: Vec<Selector>,
    /// And not the other way.
    #[serde(default)]
    pub one_way: bool,
    /// How long a packet takes, one way.
    #[serde(default)]
    pub delay: Span,
    /// By how much it may take longer or shorter.
    #[serde(default)]
    pub jitter: Span,
    /// Which share is lost.
    #[serde(default)]
    pub loss: Percent,
}

/// Manifests that are applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apply {
    /// Their text.
    pub manifest: String,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// What must come of an apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Expect {
    /// It is taken.
    #[default]
    Accepted,
    /// It is refused.
    Refused,
    /// Either.
    Anything,
}

/// What is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Cuts and slow links.
    Network,
    /// Those, and paused and killed nodes.
    Everything,
}

/// Steps that are done several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repeat {
    /// How often.
    #[schemars(range(min = 1, max = 100))]
    pub times: u32,
    /// What. A repeat holds no other repeat.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub steps: Vec<Step>,
}

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProbeKind {
    /// The names of contracts, at the DNS of each node: every question must be answered without an error.
    Dns,
    /// Servers over HTTP, by the name of their contract: as each client with real packets, otherwise by the
    /// DNS of each node.
    Http,
    /// Changes of intent, through one node after another.
    Write,
    /// Connections that no contract allows; one that is answered is a failure.
    Forbidden,
}

/// Something that is asked all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// What bounds call it.
    #[schemars(with = "String")]
    pub name: Name,
    /// What it asks.
    pub kind: ProbeKind,
    /// Nodes that are asked, written through, or host the clients.
    #[serde(default = "everywhere")]
    pub from: Vec<Selector>,
    /// This contract alone, as `name@domain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub contract: Option<ContractRef>,
    /// Pause between two rounds.
    #[serde(default = "default_every")]
    pub every: Span,
}

fn everywhere() -> Vec<Selector> {
    vec![Selector::All]
}

const fn default_every() -> Span {
    DEFAULT_EVERY
}

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    /// The longest time from one success of a probe to the next.
    LongestGap(ProbeTime),
    /// The share of successes among the attempts of a probe.
    SuccessShare(Share),
    /// How long after their death nodes may still be named in answers to a DNS probe.
    CleanWithin(ProbeTime),
    /// How often the leader may change.
    LeaderChanges(Count),
    /// How long the slowest `settle`, or restart one by one, may take.
    SettleTime(Time),
    /// How many nodes may die that the drill did not kill.
    Deaths(Count),
}

/// A time that a probe showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeTime {
    /// Which probe.
    #[schemars(with = "String")]
    pub probe: Name,
    /// The longest that is good.
    pub at_most: Span,
}

/// A share that a probe showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Which probe.
    #[schemars(with = "String")]
    pub probe: Name,
    /// The smallest that is good.
    pub at_least: Percent,
    /// Attempts that began within this time of a step that breaks or mends something do not count.
    #[serde(default)]
    pub after: Span,
}

/// A time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Time {
    /// The longest that is good.
    pub at_most: Span,
}

/// A number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Count {
    /// The largest that is good.
    pub at_most: u32,
}

impl Bound {
    /// The probe that it is about.
    #[must_use]
    pub const fn probe(&self) -> Option<&Name> {
        match self {
            Self::LongestGap(time) | Self::CleanWithin(time) => Some(&time.probe),
            Self::SuccessShare(share) => Some(&share.probe),
            Self::LeaderChanges(_) | Self::SettleTime(_) | Self::Deaths(_) => None,
        }
    }
}

impl Step {
    /// What it names, in the order of the text.
    #[must_use]
    pub fn selectors(&self) -> Vec<&Selector> {
        match self {
            Self::Kill(nodes) | Self::Start(nodes) | Self::Pause(nodes) | Self::Resume(nodes) => {
                nodes.iter().collect()
            }
            Self::Restart(restart) => restart.nodes.iter().collect(),
            Self::Partition(groups) => groups.iter().flatten().collect(),
            Self::Cut(cut) => cut.from.iter().chain(&cut.to).collect(),
            Self::Slow(slow) => slow.from.iter().chain(&slow.to).collect(),
            Self::Repeat(repeat) => repeat.steps.iter().flat_map(Self::selectors).collect(),
            Self::Apply(_) | Self::Wait(_) | Self::Settle(_) | Self::Heal(_) => Vec::new(),
        }
    }

    /// Waits longer for the fabric to settle.
    fn with_slack(&mut self, slack: u32) {
        let stretch = |span: &mut Span| *span = Span::from_ms(span.ms().saturating_mul(slack.into()));
        match self {
            Self::Settle(span) => stretch(span),
            Self::Restart(restart) => restart.one_by_one.iter_mut().for_each(stretch),
            Self::Repeat(repeat) => repeat.steps.iter_mut().for_each(|step| step.with_slack(slack)),
            _ => {}
        }
    }

    fn any(&self, is: fn(&Self) -> bool) -> bool {
        match self {
            Self::Repeat(repeat) => repeat.steps.iter().any(is),
            other => is(other),
        }
    }
}

impl DrillSpec {
    /// Whether it needs a playground with real packets.
    #[must_use]
    pub fn needs_packets(&self) -> bool {
        let cuts = |step: &Step| matches!(step, Step::Partition(_) | Step::Cut(_) | Step::Slow(_));
        self.steps.iter().any(|step| step.any(cuts))
            || self.probes.iter().any(|probe| probe.kind == ProbeKind::Forbidden)
    }

    /// Whether it needs a second program.
    #[must_use]
    pub fn needs_binary(&self) -> bool {
        let other = |step: &Step| matches!(step, Step::Restart(restart) if restart.other_binary);
        self.steps.iter().any(|step| step.any(other))
    }

    /// Whether it needs means to set a clock wrong.
    #[must_use]
    pub fn needs_clock(&self) -> bool {
        let skews = |step: &Step| matches!(step, Step::Restart(restart) if restart.clock.is_some());
        self.steps.iter().any(|step| step.any(skews))
    }

    /// Whether it runs only on a playground that is started for it.
    #[must_use]
    pub fn needs_own_playground(&self) -> bool {
        !self.playground.node_config.is_empty()
    }

    /// The steps with every repeat written out.
    #[must_use]
    pub fn unrolled(&self) -> Vec<&Step> {
        let mut steps = Vec::new();
        for step in &self.steps {
            match step {
                Step::Repeat(repeat) => (0..repeat.times).for_each(|_| steps.extend(&repeat.steps)),
                other => steps.push(other),
            }
        }
        steps
    }

    /// The same with all times of its bounds this many times as long, for machines that are busy with
    /// something else.
    #[must_use]
    pub fn with_slack(mut self, slack: u32) -> Self {
        let stretch = |span: &mut Span| *span = Span::from_ms(span.ms().saturating_mul(slack.into()));
        for bound in &mut self.bounds {
            match bound {
                Bound::LongestGap(time) | Bound::CleanWithin(time) => stretch(&mut time.at_most),
                Bound::SuccessShare(share) => stretch(&mut share.after),
                Bound::SettleTime(time) => stretch(&mut time.at_most),
                Bound::LeaderChanges(_) | Bound::Deaths(_) => {}
            }
        }
        for step in &mut self.steps {
            step.with_slack(slack);
        }
        self
    }

    /// How many clouds and how many nodes it names by number, at least.
    #[must_use]
    pub fn least(&self) -> (u32, u32) {
        let named = self.steps.iter().flat_map(Step::selectors);
        let named = named.chain(self.probes.iter().flat_map(|probe| &probe.from));
        named.fold((0, 0), |(clouds, nodes), selector| match selector {
            Selector::CloudNumber(number) => (clouds.max(*number), nodes),
            Selector::NodeNumber(number) => (clouds, nodes.max(*number)),
            _ => (clouds, nodes),
        })
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.ahead { '+' } else { '-' }, self.by)
    }
}

impl std::str::FromStr for Clock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no wrong clock; write +10m or -10m");
        let (ahead, by) = match text.split_at_checked(1).ok_or_else(bad)? {
            ("+", by) => (true, by),
            ("-", by) => (false, by),
            _ => return Err(bad()),
        };
        let by: Span = by.parse()?;
        if by.ms() > MAX_CLOCK_MS {
            return Err(format!("{text:?} is further than {}", Span::from_ms(MAX_CLOCK_MS)));
        }
        Ok(Self { ahead, by })
    }
}

span::text_serde!(Clock);
