//! Six processors in three clouds, seen by number 1 in cloud a: 2 is with it, 3 and 4 are in b, 5 and 6
//! in c.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn alive(incarnation: u64) -> Option<Swim> {
    Some(Swim { incarnation, state: SwimState::Alive })
}

fn sights() -> Sights {
    let sight = |(id, cloud): (u64, &str)| {
        let sight = Sight {
            cloud: name(cloud),
            incarnation: 1,
            leaving: false,
            heard: true,
            swim: alive(1),
            own: None,
            reports: BTreeMap::new(),
        };
        (NodeId(id), sight)
    };
    let processors = [(2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")].into_iter().map(sight).collect();
    Sights { me: NodeId(1), my_cloud: name("a"), swims: true, processors, workloads: BTreeMap::new() }
}

fn with(sights: &mut Sights, id: u64, change: impl FnOnce(&mut Sight)) {
    change(sights.processors.get_mut(&NodeId(id)).expect("a processor"));
}

fn judge(sights: &Sights) -> Judgement {
    Judge::new(Timers::default(), 0).judge(sights, 100_000)
}

fn state(judgement: &Judgement, id: u64) -> Liveness {
    judgement.states[&NodeId(id)]
}

#[test]
fn refusals_need_two_observers() {
    let mut sights = sights();
    with(&mut sights, 5, |s| s.own = Some(Seen::Refused));
    assert_eq!(state(&judge(&sights), 5), Liveness::Suspect);
    with(&mut sights, 5, |s| {
        s.reports.insert(NodeId(3), Seen::Refused);
    });
    assert_eq!(state(&judge(&sights), 5), Liveness::Down);
    with(&mut sights, 3, |s| s.swim = Some(Swim { incarnation: 1, state: SwimState::Down }));
    assert_eq!(state(&judge(&sights), 5), Liveness::Suspect, "the dead do not testify");
}

#[test]
fn where_swim_is_not_asked_two_who_miss_it_are_enough_after_a_while() {
    let mut sights = sights();
    sights.swims = false;
    sights.processors.values_mut().for_each(|sight| sight.swim = None);
    with(&mut sights, 5, |s| {
        s.reports.insert(NodeId(3), Seen::Silent);
    });
    let mut judge = Judge::new(Timers::default(), 0);
    let late = 100_000 + SILENCE_SETTLES_MS;
    judge.judge(&sights, 100_000);
    assert_eq!(state(&judge.judge(&sights, late), 5), Liveness::Suspect, "one alone");
    with(&mut sights, 5, |s| {
        s.reports.insert(NodeId(2), Seen::Silent);
    });
    assert_eq!(state(&judge.judge(&sights, late), 5), Liveness::Suspect, "it may still refute it");
    assert_eq!(state(&judge.judge(&sights, late + SILENCE_SETTLES_MS), 5), Liveness::Down);
    with(&mut sights, 5, |s| s.reports.clear());
    let refuted = judge.judge(&sights, late + SILENCE_SETTLES_MS);
    assert_eq!(state(&refuted, 5), Liveness::Alive);
}

#[test]
fn with_one_other_observer_one_suffices() {
    let mut sights = sights();
    sights.processors.retain(|id, _| [2, 5].contains(&id.0));
    with(&mut sights, 5, |s| s.own = Some(Seen::Refused));
    assert_eq!(state(&judge(&sights), 5), Liveness::Down);
}

#[test]
fn a_killed_cloud_is_one_event() {
    let mut sights = sights();
    for id in [5, 6] {
        with(&mut sights, id, |s| {
            s.own = Some(Seen::Refused);
            s.reports.insert(NodeId(4), Seen::Refused);
        });
    }
    let judgement = judge(&sights);
    assert_eq!(judgement.clouds_down.keys().collect::<Vec<_>>(), [&name("c")]);
    assert!(!judgement.isolated);
}

#[test]
fn a_silent_cloud_needs_two_clouds_that_see_it() {
    let mut sights = sights();
    for id in [5, 6] {
        with(&mut sights, id, |s| s.own = Some(Seen::Silent));
    }
    assert!(judge(&sights).clouds_down.is_empty(), "it may be the link between the two");
    for id in [5, 6] {
        with(&mut sights, id, |s| {
            s.reports.insert(NodeId(3), Seen::Silent);
        });
    }
    let judgement = judge(&sights);
    assert_eq!(judgement.clouds_down.len(), 1);
    assert_eq!([state(&judgement, 5), state(&judgement, 6)], [Liveness::Down; 2]);
}

#[test]
fn one_silent_processor_takes_no_cloud_with_it() {
    let mut sights = sights();
    with(&mut sights, 5, |s| {
        s.own = Some(Seen::Silent);
        s.reports.insert(NodeId(3), Seen::Silent);
    });
    let judgement = judge(&sights);
    assert!(judgement.clouds_down.is_empty());
    assert_eq!(state(&judgement, 5), Liveness::Suspect);
}

#[test]
fn a_new_incarnation_is_alive_at_once() {
    let mut sights = sights();
    with(&mut sights, 5, |s| s.swim = Some(Swim { incarnation: 1, state: SwimState::Down }));
    let mut judge = Judge::new(Timers::default(), 0);
    assert_eq!(state(&judge.judge(&sights, 10_000), 5), Liveness::Down);
    with(&mut sights, 5, |s| s.swim = alive(2));
    assert_eq!(state(&judge.judge(&sights, 10_010), 5), Liveness::Alive);
}

#[test]
fn who_sees_nobody_declares_nobody_down() {
    let mut sights = sights();
    let mut judge = Judge::new(Timers::default(), 0);
    with(&mut sights, 3, |s| s.swim = Some(Swim { incarnation: 1, state: SwimState::Down }));
    assert_eq!(state(&judge.judge(&sights, 10_000), 3), Liveness::Down);
    for (at, id) in [(60_000, 5), (60_100, 6), (60_200, 4), (60_300, 2)] {
        with(&mut sights, id, |s| s.swim = Some(Swim { incarnation: 1, state: SwimState::Down }));
        judge.judge(&sights, at);
    }
    let judgement = judge.judge(&sights, 60_400);
    assert!(judgement.isolated && judgement.clouds_down.is_empty());
    assert_eq!(state(&judgement, 3), Liveness::Down, "it was down long before");
    for id in [2, 4, 5, 6] {
        assert_eq!(state(&judgement, id), Liveness::Suspect);
    }
    with(&mut sights, 2, |s| s.swim = alive(1));
    let judgement = judge.judge(&sights, 60_500);
    assert!(!judgement.isolated);
    assert_eq!(state(&judgement, 5), Liveness::Down, "whoever stays away now is down");
}

#[test]
fn a_cold_start_alone_leaves_everybody_unknown() {
    let mut sights = sights();
    for sight in sights.processors.values_mut() {
        *sight = Sight { heard: false, swim: None, own: Some(Seen::Refused), ..sight.clone() };
    }
    let mut judge = Judge::new(Timers::default(), 0);
    for at in [1, 3_500, 60_000] {
        let judgement = judge.judge(&sights, at);
        assert!(judgement.states.values().all(|s| *s == Liveness::Unknown), "{at}: {judgement:?}");
        assert_eq!(judgement.isolated, at > 3_000);
    }
    with(&mut sights, 2, |s| (s.heard, s.own, s.swim) = (true, None, alive(1)));
    assert_eq!(state(&judge.judge(&sights, 60_100), 5), Liveness::Down, "refused, and not alone any more");
}

#[test]
fn the_first_admitted_node_is_given_time_to_arrive() {
    let (mut alone, everybody) = (sights(), sights());
    alone.processors.clear();
    let mut judge = Judge::new(Timers::default(), 0);
    assert!(!judge.judge(&alone, 60_000).isolated, "nobody else is admitted");
    let mut second = alone.clone();
    let expected = Sight { heard: false, swim: None, own: None, ..everybody.processors[&NodeId(2)].clone() };
    second.processors.insert(NodeId(2), expected);
    let grace_ms = Timers::default().isolation_grace_ms;
    for (at, isolated) in [(70_000, false), (70_000 + grace_ms - 1, false), (70_000 + grace_ms, true)] {
        assert_eq!(judge.judge(&second, at).isolated, isolated, "{at}");
    }
    with(&mut second, 2, |s| (s.heard, s.swim) = (true, alive(1)));
    assert!(!judge.judge(&second, 80_000).isolated);
    with(&mut second, 2, |s| s.own = Some(Seen::Silent));
    assert!(judge.judge(&second, 80_001).isolated, "heard before: its silence is news at once");
}

#[test]
fn workload_nodes_live_while_a_live_processor_vouches() {
    let mut sights = sights();
    let hosted = Hosted { leaving: false, vouched_by: BTreeSet::new() };
    sights.workloads.insert(NodeId(9), hosted);
    let mut judge = Judge::new(Timers::default(), 0);
    assert_eq!(state(&judge.judge(&sights, 10_000), 9), Liveness::Unknown);
    sights.workloads.get_mut(&NodeId(9)).expect("it").vouched_by.insert(NodeId(5));
    assert_eq!(state(&judge.judge(&sights, 10_000), 9), Liveness::Alive);
    with(&mut sights, 5, |s| s.swim = Some(Swim { incarnation: 1, state: SwimState::Down }));
    assert_eq!(state(&judge.judge(&sights, 11_000), 9), Liveness::Suspect);
    assert_eq!(state(&judge.judge(&sights, 16_000), 9), Liveness::Down);
}
