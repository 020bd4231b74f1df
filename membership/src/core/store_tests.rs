use proptest::prelude::*;
use selvedge_fabric::key::Signer;

use super::{
    super::testing::{FABRIC, key, load, policy},
    *,
};

fn store(members: u8) -> RecordStore {
    let mut store = RecordStore::new(FABRIC, 0);
    store.set_policy(&policy(members));
    store
}

fn state(store: &RecordStore) -> Vec<(Key, Rank)> {
    store.iter().map(|(key, entry)| (*key, entry.rank)).collect()
}

prop_compose! {
    /// Records as two holders of a few keys may make them: versions clash on purpose.
    fn records()(specs in proptest::collection::vec((1_u8..4, 0_u64..3, 0_u64..3, 0_u64..2, 0_u16..2), 0..12))
        -> Vec<Record> {
        specs.into_iter().map(|(n, inc, seq, nonce, cpu)| load(n, inc, seq, nonce, cpu)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merge_is_commutative_associative_and_idempotent(
        records in records(), order in any::<prop::sample::Index>(), split in any::<prop::sample::Index>(),
    ) {
        let mut one = store(3);
        for record in &records {
            prop_assert!(one.merge(record.clone(), 0, true).is_ok());
        }
        // Another order, some of them twice, and some by way of another store.
        let mut rotated = records.clone();
        if !rotated.is_empty() {
            let by = order.index(rotated.len());
            rotated.rotate_left(by);
        }
        rotated.reverse();
        let at = if rotated.is_empty() { 0 } else { split.index(rotated.len()) };
        let (mut two, mut way) = (store(3), store(3));
        for record in &rotated[at..] {
            way.merge(record.clone(), 9, false).unwrap();
        }
        for record in rotated[..at].iter().chain(&rotated) {
            two.merge(record.clone(), 5, true).unwrap();
        }
        for (_, entry) in way.iter() {
            two.merge((*entry.record).clone(), 7, true).unwrap();
        }
        prop_assert_eq!(state(&one), state(&two));
        prop_assert_eq!(one.sums(), two.sums());
        prop_assert_eq!(one.bytes, two.bytes);
    }
}

#[test]
fn the_newest_wins_and_what_is_known_is_not_verified_again() {
    let mut store = store(1);
    let newer = load(1, 2, 1, 1, 50);
    assert_eq!(store.merge(newer.clone(), 0, true), Ok(Merge::New));
    assert_eq!(store.merge(newer, 0, true), Ok(Merge::Known));
    assert_eq!(store.merge(load(1, 1, 9, 1, 40), 0, true), Ok(Merge::Stale));
}

#[test]
fn what_is_forged_or_of_strangers_is_dropped() {
    let mut store = store(2);
    let mut forged = load(1, 1, 1, 1, 1);
    forged.version.sequence = 2;
    assert_eq!(store.merge(forged, 0, true), Err(Dropped::Record(RecordError::Signature)));
    let mut stolen = load(1, 1, 1, 1, 1);
    stolen.node = key(2).public_key();
    assert_eq!(store.merge(stolen, 0, true), Err(Dropped::Record(RecordError::Signature)));
    assert_eq!(store.merge(load(3, 1, 1, 1, 1), 0, true), Err(Dropped::NotAdmitted));
    let far = load(1, MAX_INCARNATION + 1, 1, 1, 1);
    assert_eq!(store.merge(far, 0, true), Err(Dropped::Incarnation(MAX_INCARNATION + 1)));
    let mut epoch = load(1, 1, 1, 1, 1);
    epoch.version.epoch = 1;
    assert_eq!(store.merge(epoch, 0, true), Err(Dropped::Epoch(1)));
    assert!(store.is_empty() && store.sums().iter().all(|sum| *sum == 0));
}

#[test]
fn a_removed_node_leaves_nothing_and_cannot_come_back() {
    let mut store = store(2);
    store.merge(load(1, 1, 1, 1, 1), 0, true).unwrap();
    store.merge(load(2, 1, 1, 1, 1), 0, true).unwrap();
    let mut policy = policy(2);
    let gone = policy.nodes.remove(&"p2".parse::<NodeName>().unwrap()).unwrap().key.node_id();
    let removed = selvedge_fabric::policy::Removed { name: "p2".parse().unwrap(), revision: 1, block: None };
    policy.removed.insert(gone, removed);
    assert_eq!(store.set_policy(&policy), [Key { node: gone, topic: Topic::Load }]);
    assert_eq!(store.merge(load(2, 9, 1, 1, 1), 0, true), Err(Dropped::Removed));
    assert_eq!(store.len(), 1);
}

#[test]
fn every_record_is_in_the_bucket_of_its_key() {
    let mut store = store(40);
    (1..=40).for_each(|n| drop(store.merge(load(n, 1, 1, 1, 1), 0, true)));
    let heads: usize = (0..BUCKETS).map(|bucket| store.heads(bucket).count()).sum();
    assert_eq!(heads, store.len());
    for bucket in 0..BUCKETS {
        assert!(store.heads(bucket).all(|(key, _)| key.bucket() == bucket));
    }
}
