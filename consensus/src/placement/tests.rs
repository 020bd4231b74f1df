use proptest::prelude::*;

use super::*;

const DEAD_AFTER: Duration = Duration::from_secs(10);

fn name(text: &str) -> NodeName {
    Name::new(text).expect("a name")
}

/// A living, caught-up processor.
fn processor(id: u64, cloud: &str) -> (u64, Processor) {
    let name_of = name(&format!("p{id}"));
    (id, Processor { name: name_of, cloud: name(cloud), active: true, down: None, caught_up: true })
}

fn situation(clouds: &[&str], voters: &[u64]) -> Situation {
    let processors: BTreeMap<_, _> = (1..).zip(clouds).map(|(id, cloud)| processor(id, cloud)).collect();
    let voters: BTreeSet<u64> = voters.iter().copied().collect();
    let learners = processors.keys().copied().filter(|id| !voters.contains(id)).collect();
    let leader = voters.first().copied().unwrap_or(0);
    Situation { processors, voters, learners, leader, changing: false }
}

fn down(situation: &mut Situation, id: u64, for_s: u64) {
    situation.processors.get_mut(&id).expect("a processor").down = Some(Duration::from_secs(for_s));
}

fn voters(ids: &[u64]) -> Option<Step> {
    Some(Step::SetVoters(ids.iter().copied().collect()))
}

fn step(situation: &Situation) -> Option<Step> {
    next_step(situation, DEAD_AFTER)
}

#[test]
fn a_fabric_grows_from_one_voter_to_one_in_each_cloud() {
    assert_eq!(step(&situation(&["aws"], &[1])), None);
    assert_eq!(step(&situation(&["aws", "azr"], &[1])), None, "two voters survive no more than one");
    assert_eq!(step(&situation(&["aws", "aws", "azr"], &[1])), voters(&[1, 2, 3]));
    assert_eq!(step(&situation(&["aws", "aws", "azr", "gcp"], &[1, 2, 3])), voters(&[1, 3, 4]));
    assert_eq!(
        step(&situation(&["aws", "azr", "gcp", "ibm"], &[1, 2, 3])),
        None,
        "four clouds, three voters"
    );
    assert_eq!(step(&situation(&["aws", "azr", "gcp", "ibm", "oci"], &[1, 2, 3])), voters(&[1, 2, 3, 4, 5]));
}

#[test]
fn a_newcomer_is_a_learner_before_it_votes() {
    let mut now = situation(&["aws", "azr", "gcp"], &[1]);
    now.learners.clear();
    assert_eq!(step(&now), Some(Step::AddLearner(2)));
    now.learners = BTreeSet::from([2, 3]);
    now.processors.get_mut(&3).expect("p3").caught_up = false;
    assert_eq!(step(&now), None, "one of them is not ready, and two voters are no gain");
}

#[test]
fn a_dead_voter_is_replaced_in_its_cloud_or_in_one_without_a_voter() {
    let clouds = ["aws", "azr", "gcp", "azr"];
    let mut now = situation(&clouds, &[1, 2, 3]);
    down(&mut now, 2, 9);
    assert_eq!(step(&now), None, "not dead for long enough");
    down(&mut now, 2, 10);
    assert_eq!(step(&now), voters(&[1, 3, 4]), "its own cloud");
    down(&mut now, 4, 10);
    assert_eq!(step(&now), None, "aws and gcp vote already: the seat stays");

    let mut four = situation(&["aws", "azr", "gcp", "ibm"], &[1, 2, 3]);
    down(&mut four, 2, 60);
    assert_eq!(step(&four), voters(&[1, 3, 4]), "a cloud without a voter");
}

#[test]
fn drained_and_revoked_nodes_leave() {
    let mut draining = situation(&["aws", "azr", "gcp", "azr"], &[1, 2, 3]);
    draining.processors.get_mut(&2).expect("p2").active = false;
    assert_eq!(step(&draining), voters(&[1, 3, 4]));

    let mut revoked = situation(&["aws", "azr", "gcp"], &[1, 2, 3]);
    revoked.processors.remove(&2);
    assert_eq!(step(&revoked), voters(&[1, 3]), "no heir, but it must not vote");
    revoked.voters.remove(&2);
    revoked.learners.insert(2);
    assert_eq!(step(&revoked), Some(Step::RemoveLearner(2)));
}

/// Two clouds with two voters each, and one learner in a third: whoever dies, the learner's seat comes
/// from a crowded cloud, so that none of them is left with a majority.
#[test]
fn an_heir_takes_its_seat_from_a_crowded_cloud() {
    let mut now = situation(&["gcp", "ibm", "aws", "gcp", "aws"], &[1, 3, 4, 5]);
    down(&mut now, 3, 60);
    down(&mut now, 5, 60);
    assert_eq!(step(&now), voters(&[1, 2, 3, 4]));
    carry_out(&mut now, Step::SetVoters(BTreeSet::from([1, 2, 3, 4])));
    assert_eq!(step(&now), voters(&[1, 2, 3]));
}

#[test]
fn nothing_is_decided_while_a_change_is_under_way() {
    let mut now = situation(&["aws", "azr", "gcp"], &[1]);
    now.changing = true;
    assert_eq!(step(&now), None);
}

/// Situations of up to nine processors in up to five clouds, whatever state they are in.
fn any_situation() -> impl Strategy<Value = Situation> {
    let one = (0..5_usize, any::<bool>(), 0..4_u8, any::<bool>(), 0..3_u8);
    prop::collection::vec(one, 1..10).prop_map(|all| {
        let mut situation = Situation::default();
        for (id, (cloud, active, down, caught_up, part)) in (1..).zip(all) {
            let (_, mut processor) = processor(id, ["aws", "azr", "gcp", "ibm", "oci"][cloud]);
            processor.active = active || part == 0;
            processor.down = (down == 0).then_some(Duration::from_secs(60));
            processor.caught_up = caught_up;
            situation.processors.insert(id, processor);
            match part {
                0 => drop(situation.voters.insert(id)),
                1 => drop(situation.learners.insert(id)),
                _ => {}
            }
        }
        situation.leader = situation.voters.first().copied().unwrap_or(0);
        situation
    })
}

fn crowd(situation: &Situation, voters: &BTreeSet<u64>) -> usize {
    let cloud = |id| situation.processors.get(id).map(|p: &Processor| &p.cloud);
    voters.iter().map(|id| voters.iter().filter(|other| cloud(other) == cloud(id)).count()).max().unwrap_or(0)
}

/// Carries out a step as the placer would.
fn carry_out(situation: &mut Situation, step: Step) {
    match step {
        Step::SetVoters(voters) => {
            let before = std::mem::replace(&mut situation.voters, voters);
            situation.learners.extend(before);
            situation.learners.retain(|id| !situation.voters.contains(id));
        }
        Step::AddLearner(id) => drop(situation.learners.insert(id)),
        Step::RemoveLearner(id) => drop(situation.learners.remove(&id)),
    }
}

proptest! {
    #[test]
    fn steps_come_to_rest(mut now in any_situation()) {
        for _ in 0..40 {
            let Some(next) = step(&now) else { return Ok(()) };
            carry_out(&mut now, next);
        }
        prop_assert!(false, "still changing: {now:?}");
    }

    #[test]
    fn voters_are_members_that_may_vote(now in any_situation()) {
        if let Some(Step::SetVoters(voters)) = step(&now) {
            prop_assert!(!voters.is_empty() && voters.len() <= MAX_VOTERS);
            for id in &voters {
                let processor = &now.processors[id];
                prop_assert!(processor.active);
                let kept = now.voters.contains(id);
                prop_assert!(kept || (now.learners.contains(id) && processor.caught_up && processor.down.is_none()));
            }
        }
    }

    #[test]
    fn no_step_gathers_a_majority_in_one_cloud_of_three(now in any_situation()) {
        let active: BTreeSet<_> = now.processors.values().filter(|p| p.active).map(|p| &p.cloud).collect();
        prop_assume!(active.len() >= 3);
        if let Some(Step::SetVoters(voters)) = step(&now) {
            // A cloud that has a majority may keep it while nobody else can take a seat, never gain it.
            let gained = crowd(&now, &voters) * 2 > voters.len() && voters.len() > 1;
            let had = crowd(&now, &now.voters) * 2 > now.voters.len();
            let forced = voters.is_subset(&now.voters);
            prop_assert!(!gained || had || forced, "{voters:?} of {now:?}");
        }
    }

    #[test]
    fn a_healthy_fabric_of_three_clouds_ends_with_one_voter_in_each_of_them(
        clouds in prop::collection::vec(0..5_usize, 3..10),
    ) {
        let names: Vec<_> = clouds.iter().map(|n| ["aws", "azr", "gcp", "ibm", "oci"][*n]).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        prop_assume!(distinct.len() >= 3);
        let mut now = situation(&names, &[1]);
        while let Some(next) = step(&now) {
            carry_out(&mut now, next);
        }
        prop_assert_eq!(crowd(&now, &now.voters), 1);
        prop_assert_eq!(now.voters.len(), if distinct.len() == 5 { 5 } else { 3 });
    }
}
