//! What a drill will do to a real fabric, before it does anything: which steps can be done there at all, which
//! nodes they need, and how long each is kept from whom. Pure.

use std::collections::BTreeSet;

use anyhow::bail;
use selvedge_fabric::drill::{Bound, Drill, DrillSpec, ProbeKind, Scope, Selector, Span, Step};

use crate::drill::{ground::Site, run::select::Choice};

/// An isolation that a drill plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// Who.
    pub(super) nodes: Vec<String>,
    /// From whom, for people.
    pub(super) from: String,
    /// How long, for people.
    pub(super) how_long: String,
    /// How often.
    pub(super) times: u32,
}

/// The drill as it can be run on a real fabric: without the probes that cannot be asked there, and their bounds.
/// Also returns the names of these probes.
///
/// # Errors
/// What cannot be done there, and what to do instead.
pub(super) fn fitted(drill: &Drill, has_names: bool) -> anyhow::Result<(Drill, Vec<String>)> {
    let reasons: BTreeSet<_> = drill.spec.unrolled().into_iter().filter_map(unfit).collect();
    if !reasons.is_empty() {
        let reasons: Vec<_> = reasons.into_iter().collect();
        bail!(
            "{} cannot be run on a real fabric, which is drilled by keeping nodes from each other (partition, cut, \
             kill of whole clouds, start, heal): {}. Run it on a playground: without --fabric",
            drill.name,
            reasons.join("; ")
        );
    }
    let asks = |kind: ProbeKind| match kind {
        ProbeKind::Dns => has_names,
        ProbeKind::Write => true,
        ProbeKind::Http | ProbeKind::Forbidden => false,
    };
    let (kept, left): (Vec<_>, Vec<_>) =
        drill.spec.probes.iter().cloned().partition(|probe| asks(probe.kind));
    let left: Vec<_> = left.into_iter().map(|probe| probe.name).collect();
    let kept_bound = |bound: &&Bound| bound.probe().is_none_or(|name| !left.contains(name));
    let bounds: Vec<_> = drill.spec.bounds.iter().filter(kept_bound).cloned().collect();
    if bounds.is_empty() {
        bail!("every bound of {} is on a probe that cannot be asked on a real fabric", drill.name);
    }
    let spec = DrillSpec { probes: kept, bounds, ..drill.spec.clone() };
    let left = left.iter().map(ToString::to_string).collect();
    Ok((Drill { name: drill.name.clone(), spec }, left))
}

/// Why a step cannot be done on a real fabric.
fn unfit(step: &Step) -> Option<&'static str> {
    match step {
        Step::Kill(who) | Step::Start(who)
            if who.iter().all(|one| one.is_cloud() || *one == Selector::All) =>
        {
            let everything = matches!(step, Step::Kill(_)) && who.contains(&Selector::All);
            everything.then_some("kill: [all] leaves nobody to watch")
        }
        Step::Kill(_) | Step::Start(_) => Some(
            "kill and start are of whole clouds there: a cloud that is lost falls silent as isolated nodes do, while \
             a killed process is refused by its host, which isolation does not show",
        ),
        Step::Pause(_) | Step::Resume(_) => Some("pause and resume: processes are left alone"),
        Step::Restart(_) => Some("restart: processes, programs and clocks are left alone"),
        Step::Slow(_) => Some("slow: packets are dropped or not, and never delayed"),
        Step::Apply(_) => Some("apply: what it deletes at the end may have been there before"),
        Step::Repeat(_)
        | Step::Partition(_)
        | Step::Cut(_)
        | Step::Wait(_)
        | Step::Settle(_)
        | Step::Heal(_) => None,
    }
}

/// The names of all nodes that the drill has to hold: every end of every cut. All of them, when that depends on
/// who leads by then.
///
/// # Errors
/// When a step means no node here.
pub(super) fn needed(spec: &DrillSpec, choice: &Choice<'_>) -> anyhow::Result<BTreeSet<String>> {
    let steps = spec.unrolled();
    let led = |selector: &&Selector| matches!(selector, Selector::Leader | Selector::LeaderCloud);
    let mut clouds = BTreeSet::new();
    for step in &steps {
        for nodes in ends(step, choice)? {
            clouds.extend(nodes);
        }
    }
    let moves = steps.iter().any(|step| step.selectors().iter().any(led));
    let of = |site: &&Site| moves || clouds.contains(site.cloud());
    Ok(choice.nodes.iter().filter(of).map(|site| site.name.clone()).collect())
}

/// The clouds on each side of what a step breaks; none when it breaks nothing.
fn ends(step: &Step, choice: &Choice<'_>) -> anyhow::Result<Vec<Vec<String>>> {
    match step {
        Step::Kill(who) => {
            let mut clouds: Vec<_> = choice.nodes(who)?.iter().map(|site| site.cloud().to_owned()).collect();
            clouds.dedup();
            Ok(vec![clouds])
        }
        Step::Partition(groups) => choice.clouds(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        Step::Cut(cut) => choice.clouds(&[&cut.from, &cut.to]),
        _ => Ok(Vec::new()),
    }
}

/// What the steps will do, in their order; what is done again is said once.
///
/// # Errors
/// When a step means no node here.
pub(super) fn planned(spec: &DrillSpec, choice: &Choice<'_>) -> anyhow::Result<Vec<Planned>> {
    let (steps, mut all) = (spec.unrolled(), Vec::<Planned>::new());
    for (number, step) in steps.iter().enumerate() {
        let ends = ends(step, choice)?;
        let from = match step {
            Step::Kill(_) => "everybody".to_owned(),
            Step::Cut(_) => format!("{}, which no longer hear them", list(ends.get(1))),
            _ => ends.iter().map(|side| side.join(", ")).collect::<Vec<_>>().join(" | "),
        };
        let sides = if matches!(step, Step::Cut(_)) { &ends[..1] } else { &ends[..] };
        let inside = |site: &&Site| sides.iter().flatten().any(|cloud| cloud == site.cloud());
        let nodes: Vec<_> = choice.nodes.iter().filter(inside).map(|site| site.name.clone()).collect();
        if nodes.is_empty() {
            continue;
        }
        let how_long = how_long(step, &steps[number + 1..]);
        match all.iter_mut().find(|p| p.nodes == nodes && p.from == from && p.how_long == how_long) {
            Some(known) => known.times += 1,
            None => all.push(Planned { nodes, from, how_long, times: 1 }),
        }
    }
    Ok(all)
}

fn list(clouds: Option<&Vec<String>>) -> String {
    clouds.map(|clouds| clouds.join(", ")).unwrap_or_default()
}

/// From a step until what mends it.
fn how_long(step: &Step, rest: &[&Step]) -> String {
    let (mut surely_ms, mut perhaps_ms) = (0, 0);
    for later in rest {
        match later {
            Step::Wait(span) => surely_ms += span.ms(),
            Step::Settle(span) => perhaps_ms += span.ms(),
            Step::Heal(Scope::Everything) => break,
            Step::Heal(Scope::Network) if !matches!(step, Step::Kill(_)) => break,
            Step::Start(_) if matches!(step, Step::Kill(_)) => break,
            _ => {}
        }
    }
    let surely = Span::from_ms(surely_ms);
    match perhaps_ms {
        0 => surely.to_string(),
        more => format!("{surely} to {}", Span::from_ms(surely_ms + more)),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::manifest::parse_drill;

    use super::*;
    use crate::drill::ground::tests::site;

    fn drill(steps: &str) -> Drill {
        let text = format!(
            "apiVersion: selvedge/v1\nkind: Drill\nmetadata: {{name: d}}\nspec:\n  description: d\n  probes:\n  - \
             {{name: w, kind: write}}\n  - {{name: h, kind: http}}\n  steps: {steps}\n  bounds:\n  - \
             longestGap: {{probe: w, atMost: 5s}}\n  - longestGap: {{probe: h, atMost: 5s}}\n"
        );
        parse_drill(&text, None).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn nodes() -> Vec<Site> {
        [("a1", "a"), ("a2", "a"), ("b1", "b/east"), ("c1", "c"), ("d1", "d")]
            .map(|(n, z)| site(n, z))
            .to_vec()
    }

    const CLOUDS: [&str; 4] = ["a", "b", "c", "d"];

    fn with_choice<T>(act: impl FnOnce(&Choice<'_>) -> T) -> T {
        let (nodes, clouds) = (nodes(), CLOUDS.map(str::to_owned));
        act(&Choice { nodes: &nodes, clouds: &clouds, leader: Some("b1") })
    }

    #[test]
    fn what_only_a_playground_can_do_is_refused_with_its_reason() {
        for (steps, word) in [
            ("[{kill: [leader]}]", "whole clouds"),
            ("[{kill: [all]}]", "nobody to watch"),
            ("[{pause: [node#1]}]", "processes are left alone"),
            ("[{restart: {nodes: [all]}}]", "restart"),
            ("[{repeat: {times: 2, steps: [{slow: {from: [cloud#1], to: [others], delay: 1s}}]}}]", "slow"),
            ("[{apply: {manifest: 'x: y'}}]", "apply"),
        ] {
            let error = fitted(&drill(steps), true).expect_err(steps).to_string();
            assert!(error.contains(word) && error.contains("playground"), "{steps}: {error}");
        }
    }

    #[test]
    fn probes_that_cannot_be_asked_go_with_their_bounds() {
        let (fit, left) =
            fitted(&drill("[{kill: [cloud#1]}, {wait: 5s}, {start: [all]}]"), true).expect("fit");
        assert_eq!((left, fit.spec.probes.len(), fit.spec.bounds.len()), (vec!["h".to_owned()], 1, 1));
    }

    #[test]
    fn the_plan_says_who_from_whom_and_how_long() {
        let steps = "[{wait: 9s}, {repeat: {times: 2, steps: [{partition: [[cloud#1], [cloud#2, cloud#3]]}, \
                     {wait: 2s}, {settle: 10s}, {heal: network}, {wait: 1s}]}}, {kill: [cloud#2]}, {wait: 3s}, \
                     {start: [cloud#2]}, {cut: {from: [cloud#2], to: [cloud#3]}}, {wait: 4s}]";
        let spec = drill(steps).spec;
        let (planned, needed) = with_choice(|choice| {
            (planned(&spec, choice).expect("a plan"), needed(&spec, choice).expect("nodes"))
        });
        let shown: Vec<_> = planned
            .iter()
            .map(|p| format!("{} from {} for {} ×{}", p.nodes.join(" "), p.from, p.how_long, p.times))
            .collect();
        assert_eq!(
            shown,
            [
                "a1 a2 b1 c1 from a | b, c for 2s to 12s ×2",
                "b1 from everybody for 3s ×1",
                "b1 from c, which no longer hear them for 4s ×1",
            ]
        );
        assert_eq!(needed.into_iter().collect::<Vec<_>>(), ["a1", "a2", "b1", "c1"], "d has no part in it");
        let led = drill("[{kill: [cloud#leader]}]").spec;
        assert_eq!(
            with_choice(|choice| super::needed(&led, choice)).expect("nodes").len(),
            5,
            "whoever leads"
        );
    }
}
