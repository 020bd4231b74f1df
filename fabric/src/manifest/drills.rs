//! Reading drills. What is checked here needs no fabric: fields, bounds, and that names lead somewhere.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{
    MAX_MANIFEST_BYTES,
    read::{api_version, documents_of, problem_at},
    reader::{Fields, Reader},
    tree::{self, At, Node, Value},
};
use crate::{
    command::Problem,
    drill::{
        Apply, Bound, Count, Cut, DEFAULT_EVERY, Drill, DrillSpec, EVERY_MS, Expect, MAX_BOUNDS, MAX_PROBES,
        MAX_ROUNDS, MAX_STEPS, MAX_WAIT_MS, Percent, PlaygroundSpec, Probe, ProbeKind, ProbeTime, Repeat,
        Restart, Scope, Selector, Share, Slow, Span, Step, Time,
    },
    id::{Name, ZoneName},
};

/// The words that a step may be.
const STEPS: [&str; 13] = [
    "kill",
    "start",
    "pause",
    "resume",
    "restart",
    "partition",
    "cut",
    "slow",
    "apply",
    "wait",
    "settle",
    "heal",
    "repeat",
];
/// The words that a bound may be.
const BOUNDS: [&str; 6] =
    ["longestGap", "successShare", "cleanWithin", "leaderChanges", "settleTime", "deaths"];
/// Most clouds of a drill's own playground.
const MAX_CLOUDS: usize = 12;

/// Reads one drill, YAML or JSON.
///
/// # Errors
/// Every problem, with its place.
pub fn parse_drill(text: &str, file: Option<&str>) -> Result<Drill, Vec<Problem>> {
    let start = At { line: 1, column: 1 };
    if text.len() > MAX_MANIFEST_BYTES {
        let message = format!("{} bytes; a drill has at most {MAX_MANIFEST_BYTES}", text.len());
        return Err(vec![problem_at(file, start, message, None)]);
    }
    let (documents, faults) = tree::load(&super::json::as_yaml(text));
    let fault = |fault: tree::Fault| problem_at(file, fault.at, fault.message, fault.remedy);
    let mut r = Reader { file: file.map(str::to_owned), ..Reader::default() };
    r.problems.extend(faults.into_iter().map(fault));
    let nodes: Vec<_> = documents.into_iter().flat_map(documents_of).collect();
    let drill = match nodes.as_slice() {
        [node] => document(&mut r, node),
        [] => {
            if r.problems.is_empty() {
                r.problem(start, "", "holds no drill", "see `selvedge drill show cloud-loss`".to_owned());
            }
            None
        }
        [_, second, ..] => {
            r.problem(second.at, "", "a second document", "write one drill into each file".to_owned());
            None
        }
    };
    r.problems.sort();
    r.problems.dedup();
    match drill {
        Some(drill) if r.problems.is_empty() => Ok(drill),
        _ => Err(r.problems),
    }
}

fn document(r: &mut Reader, node: &Node) -> Option<Drill> {
    let mut f = Fields::new(r, node, "")?;
    f.required(r, "apiVersion", api_version);
    f.required(r, "kind", |r, n, p| r.word(n, p, &[("Drill", ())]));
    r.object = Some("Drill".to_owned());
    let name = f.required(r, "metadata", |r, n, p| {
        let mut f = Fields::new(r, n, p)?;
        let name = f.required(r, "name", |r, n, p| r.parse_text::<Name>(n, p));
        f.finish(r);
        name
    });
    if let Some(name) = &name {
        r.object = Some(format!("Drill {name}"));
    }
    let spec = f.required(r, "spec", spec);
    f.finish(r);
    Some(Drill { name: name?, spec: spec? })
}

fn spec(r: &mut Reader, node: &Node, path: &str) -> Option<DrillSpec> {
    let mut f = Fields::new(r, node, path)?;
    let description = f.required(r, "description", Reader::text);
    let playground = f.optional(r, "playground", playground).unwrap_or_default();
    let probes = f.optional(r, "probes", |r, n, p| some(r, n, p, MAX_PROBES, probe)).unwrap_or_default();
    let steps = f.required(r, "steps", |r, n, p| some(r, n, p, MAX_STEPS, step));
    let bounds = f.required(r, "bounds", |r, n, p| some(r, n, p, MAX_BOUNDS, bound));
    f.finish(r);
    let spec = DrillSpec { description: description?, playground, probes, steps: steps?, bounds: bounds? };
    check(r, node, path, &spec);
    Some(spec)
}

/// What no single field shows.
fn check(r: &mut Reader, node: &Node, path: &str, spec: &DrillSpec) {
    let count = spec.unrolled().len();
    if count > MAX_STEPS {
        let message = format!("{count} steps with all that is repeated; at most {MAX_STEPS} are done");
        r.problem(node.at, &format!("{path}.steps"), message, None);
    }
    let mut names = BTreeSet::new();
    for (i, probe) in spec.probes.iter().enumerate() {
        if !names.insert(probe.name.as_str()) {
            let at = r.at_of(&format!("{path}.probes[{i}].name"), node.at);
            let message = format!("a second probe {}", probe.name);
            r.problem(at, &format!("{path}.probes[{i}].name"), message, "give it another name".to_owned());
        }
    }
    for (i, bound) in spec.bounds.iter().enumerate() {
        let at = r.at_of(&format!("{path}.bounds[{i}]"), node.at);
        let path = format!("{path}.bounds[{i}]");
        let Some(name) = bound.probe() else { continue };
        let Some(probe) = spec.probes.iter().find(|probe| probe.name == *name) else {
            let remedy = crate::suggest::remedy(name.as_str(), names.iter().copied());
            let remedy = remedy.or_else(|| Some("add a probe of this name".to_owned()));
            r.problem(at, &path, format!("no probe is called {name}"), remedy);
            continue;
        };
        check_bound(r, at, &path, bound, probe);
    }
}

fn check_bound(r: &mut Reader, at: At, path: &str, bound: &Bound, probe: &Probe) {
    let name = &probe.name;
    match bound {
        Bound::CleanWithin(_) if probe.kind != ProbeKind::Dns => {
            let message = format!("{name} is no DNS probe: only answers name nodes");
            r.problem(at, path, message, "name a probe of kind dns".to_owned());
        }
        Bound::LongestGap(_) if probe.kind == ProbeKind::Forbidden => {
            let message = format!("{name} succeeds when nothing answers, so a gap says nothing");
            r.problem(at, path, message, "write successShare: {atLeast: 100%}".to_owned());
        }
        Bound::LongestGap(time) if time.at_most <= probe.every => {
            let message = format!("{name} asks only every {}, so no gap is that short", probe.every);
            r.problem(at, path, message, "let it be longer, or the probe ask more often".to_owned());
        }
        _ => {}
    }
}

fn playground(r: &mut Reader, node: &Node, path: &str) -> Option<PlaygroundSpec> {
    let usual = PlaygroundSpec::default();
    let mut f = Fields::new(r, node, path)?;
    let clouds = f
        .optional(r, "clouds", |r, n, p| some(r, n, p, MAX_CLOUDS, |r, n, p| r.parse_text::<ZoneName>(n, p)));
    let processors = f.optional(r, "processors", |r, n, p| r.number(n, p, 1..=8));
    let workloads = f.optional(r, "workloads", |r, n, p| r.number(n, p, 0..=8));
    let node_config = f.optional(r, "nodeConfig", Reader::text).unwrap_or_default();
    f.finish(r);
    Some(PlaygroundSpec {
        clouds: clouds.unwrap_or(usual.clouds),
        processors: processors.unwrap_or(usual.processors),
        workloads: workloads.unwrap_or(usual.workloads),
        node_config,
    })
}

fn probe(r: &mut Reader, node: &Node, path: &str) -> Option<Probe> {
    let mut f = Fields::new(r, node, path)?;
    let name = f.required(r, "name", |r, n, p| r.parse_text::<Name>(n, p));
    let kind = f.required(r, "kind", |r, n, p| {
        let kinds = [
            ("dns", ProbeKind::Dns),
            ("http", ProbeKind::Http),
            ("write", ProbeKind::Write),
            ("forbidden", ProbeKind::Forbidden),
        ];
        r.word(n, p, &kinds)
    });
    let from = f.optional(r, "from", selectors).unwrap_or_else(|| vec![Selector::All]);
    let contract = f.get(r, "contract");
    if let (Some((node, path)), Some(ProbeKind::Write | ProbeKind::Forbidden)) = (&contract, kind) {
        r.problem(node.at, path, "only dns and http probes ask for a contract", "leave it out".to_owned());
    }
    let contract = contract.and_then(|(node, path)| r.parse_text(node, &path));
    let every = f.optional(r, "every", |r, n, p| span(r, n, p, EVERY_MS)).unwrap_or(DEFAULT_EVERY);
    f.finish(r);
    Some(Probe { name: name?, kind: kind?, from, contract, every })
}

fn step(r: &mut Reader, node: &Node, path: &str) -> Option<Step> {
    one_step(r, node, path, true)
}

fn inner_step(r: &mut Reader, node: &Node, path: &str) -> Option<Step> {
    one_step(r, node, path, false)
}

fn one_step(r: &mut Reader, node: &Node, path: &str, outer: bool) -> Option<Step> {
    let (word, node, path) = single(r, node, path, &STEPS)?;
    let (node, path) = (node, path.as_str());
    let wait = 1..=MAX_WAIT_MS;
    match word {
        "kill" => selectors(r, node, path).map(Step::Kill),
        "start" => selectors(r, node, path).map(Step::Start),
        "pause" => selectors(r, node, path).map(Step::Pause),
        "resume" => selectors(r, node, path).map(Step::Resume),
        "restart" => restart(r, node, path).map(Step::Restart),
        "partition" => partition(r, node, path).map(Step::Partition),
        "cut" => cut(r, node, path).map(Step::Cut),
        "slow" => slow(r, node, path).map(Step::Slow),
        "apply" => apply(r, node, path).map(Step::Apply),
        "wait" => span(r, node, path, wait).map(Step::Wait),
        "settle" => span(r, node, path, wait).map(Step::Settle),
        "heal" => r
            .word(node, path, &[("network", Scope::Network), ("everything", Scope::Everything)])
            .map(Step::Heal),
        _ if outer => repeat(r, node, path).map(Step::Repeat),
        _ => {
            r.problem(node.at, path, "a repeat within a repeat", "write it out".to_owned());
            None
        }
    }
}

fn restart(r: &mut Reader, node: &Node, path: &str) -> Option<Restart> {
    let mut f = Fields::new(r, node, path)?;
    let nodes = f.required(r, "nodes", selectors);
    let one_by_one = f.optional(r, "oneByOne", |r, n, p| span(r, n, p, 1..=MAX_WAIT_MS));
    let other_binary = f.optional(r, "otherBinary", Reader::boolean).unwrap_or_default();
    let clock = f.optional(r, "clock", |r, n, p| r.parse_text(n, p));
    f.finish(r);
    Some(Restart { nodes: nodes?, one_by_one, other_binary, clock })
}

fn partition(r: &mut Reader, node: &Node, path: &str) -> Option<Vec<Vec<Selector>>> {
    let groups = some(r, node, path, MAX_CLOUDS, clouds)?;
    if groups.len() < 2 {
        r.problem(
            node.at,
            path,
            "one group is cut off from nothing",
            "write [[cloud#1], [others]]".to_owned(),
        );
        return None;
    }
    Some(groups)
}

fn cut(r: &mut Reader, node: &Node, path: &str) -> Option<Cut> {
    let mut f = Fields::new(r, node, path)?;
    let (from, to) = (f.required(r, "from", clouds), f.required(r, "to", clouds));
    f.finish(r);
    Some(Cut { from: from?, to: to? })
}

fn slow(r: &mut Reader, node: &Node, path: &str) -> Option<Slow> {
    let mut f = Fields::new(r, node, path)?;
    let (from, to) = (f.required(r, "from", clouds), f.required(r, "to", clouds));
    let one_way = f.optional(r, "oneWay", Reader::boolean).unwrap_or_default();
    let mut time = |field| f.optional(r, field, |r, n, p| span(r, n, p, 0..=60_000)).unwrap_or_default();
    let (delay, jitter) = (time("delay"), time("jitter"));
    let loss = f.optional(r, "loss", |r, n, p| r.parse_text::<Percent>(n, p)).unwrap_or_default();
    f.finish(r);
    Some(Slow { from: from?, to: to?, one_way, delay, jitter, loss })
}

fn apply(r: &mut Reader, node: &Node, path: &str) -> Option<Apply> {
    let mut f = Fields::new(r, node, path)?;
    let manifest = f.required(r, "manifest", Reader::text);
    let expect = f.optional(r, "expect", |r, n, p| {
        let words =
            [("accepted", Expect::Accepted), ("refused", Expect::Refused), ("anything", Expect::Anything)];
        r.word(n, p, &words)
    });
    f.finish(r);
    Some(Apply { manifest: manifest?, expect: expect.unwrap_or_default() })
}

fn repeat(r: &mut Reader, node: &Node, path: &str) -> Option<Repeat> {
    let mut f = Fields::new(r, node, path)?;
    let times = f.required(r, "times", |r, n, p| r.number(n, p, 1..=MAX_ROUNDS));
    let steps = f.required(r, "steps", |r, n, p| some(r, n, p, MAX_STEPS, inner_step));
    f.finish(r);
    Some(Repeat { times: times?, steps: steps? })
}

fn bound(r: &mut Reader, node: &Node, path: &str) -> Option<Bound> {
    let (word, node, path) = single(r, node, path, &BOUNDS)?;
    let mut f = Fields::new(r, node, &path)?;
    let about_probe = ["longestGap", "successShare", "cleanWithin"].contains(&word);
    let probe = if about_probe { f.required(r, "probe", |r, n, p| r.parse_text::<Name>(n, p)) } else { None };
    let long: fn(&mut Reader, &Node, &str) -> Option<Span> = |r, n, p| span(r, n, p, 1..=MAX_WAIT_MS);
    let bound = match word {
        "longestGap" | "cleanWithin" => {
            let time = f.required(r, "atMost", long).zip(probe);
            let time = time.map(|(at_most, probe)| ProbeTime { probe, at_most });
            time.map(if word == "longestGap" { Bound::LongestGap } else { Bound::CleanWithin })
        }
        "successShare" => {
            let at_least = f.required(r, "atLeast", |r, n, p| r.parse_text::<Percent>(n, p));
            let after = f.optional(r, "after", |r, n, p| span(r, n, p, 0..=MAX_WAIT_MS)).unwrap_or_default();
            at_least.zip(probe).map(|(at_least, probe)| Bound::SuccessShare(Share { probe, at_least, after }))
        }
        "settleTime" => f.required(r, "atMost", long).map(|at_most| Bound::SettleTime(Time { at_most })),
        _ => {
            let count = f.required(r, "atMost", |r, n, p| r.number(n, p, 0..=1_000_000));
            let count = count.map(|at_most| Count { at_most });
            count.map(if word == "deaths" { Bound::Deaths } else { Bound::LeaderChanges })
        }
    };
    f.finish(r);
    bound
}

/// A map with one of these words as its only key: the word, what it holds, and where.
fn single<'n>(
    r: &mut Reader,
    node: &'n Node,
    path: &str,
    words: &'static [&'static str],
) -> Option<(&'static str, &'n Node, String)> {
    let mut f = Fields::new(r, node, path)?;
    let mut found = Vec::new();
    for word in words {
        found.extend(f.get(r, word).map(|(node, path)| (*word, node, path)));
    }
    let before = r.problems.len();
    f.finish(r);
    if found.len() == 1 {
        return found.pop();
    }
    if r.problems.len() == before {
        let message = if found.is_empty() { "says nothing" } else { "says several things" };
        let remedy = match found.is_empty() {
            true => format!("write one of {}", words.join(", ")),
            false => "write one in each item of the list".to_owned(),
        };
        r.problem(node.at, path, message, remedy);
    }
    None
}

/// A list that holds something, and not too much.
fn some<T>(
    r: &mut Reader,
    node: &Node,
    path: &str,
    most: usize,
    read: fn(&mut Reader, &Node, &str) -> Option<T>,
) -> Option<Vec<T>> {
    if let Value::List(items) = &node.value
        && (items.is_empty() || items.len() > most)
    {
        let message = match items.len() {
            0 => "is empty".to_owned(),
            count => format!("{count} items; at most {most} are taken"),
        };
        r.problem(node.at, path, message, None);
        return None;
    }
    r.list(node, path, read)
}

/// Most words in one list of nodes.
const MAX_SELECTORS: usize = 64;

fn selectors(r: &mut Reader, node: &Node, path: &str) -> Option<Vec<Selector>> {
    some(r, node, path, MAX_SELECTORS, |r, n, p| {
        let selector = r.parse_text::<Selector>(n, p)?;
        if selector != Selector::Others {
            return Some(selector);
        }
        let message = "others are the clouds that the other side of a cut does not name";
        r.problem(n.at, p, message, "name the nodes, or write all".to_owned());
        None
    })
}

/// What joins clouds is all that can be cut.
fn clouds(r: &mut Reader, node: &Node, path: &str) -> Option<Vec<Selector>> {
    some(r, node, path, MAX_SELECTORS, |r, n, p| {
        let selector = r.parse_text::<Selector>(n, p)?;
        if selector.is_cloud() {
            return Some(selector);
        }
        let message = format!("{selector} is no cloud, and only what joins clouds can be cut");
        r.problem(n.at, p, message, "write cloud#1, cloud/NAME, cloud#leader or others".to_owned());
        None
    })
}

fn span(r: &mut Reader, node: &Node, path: &str, range_ms: RangeInclusive<u64>) -> Option<Span> {
    let span = r.parse_text::<Span>(node, path)?;
    if range_ms.contains(&span.ms()) {
        return Some(span);
    }
    let (least, most) = (Span::from_ms(*range_ms.start()), Span::from_ms(*range_ms.end()));
    r.problem(node.at, path, format!("{span} is not from {least} to {most}"), None);
    None
}
