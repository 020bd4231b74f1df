//! Many clients at once, each with its own dice.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::client::{Client, Notes, Target};
use crate::scenario::Dice;

/// Keys in use at a time. Few, so that clients meet.
const KEYS: u64 = 8;
/// After this time they are others: a history starts from nothing again and again.
const KEY_LIFE: Duration = Duration::from_secs(40);
/// Longest pause of a client between two operations, milliseconds.
const MAX_PAUSE_MS: u64 = 100;
/// How long a client mostly leaves a node alone that did not answer it.
const AVOIDANCE: Duration = Duration::from_secs(3);

/// Runs one client until it is told to stop.
pub(super) fn run(
    number: u32,
    notes: &Notes,
    targets: &RwLock<Vec<Target>>,
    stop: &AtomicBool,
    mut dice: Dice,
) {
    let began = Instant::now();
    let mut silent: BTreeMap<String, Instant> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(target) = choose(targets, &silent, &mut dice) else { continue };
        let key = key(dice.below(KEYS), began.elapsed());
        let client = Client { number, notes, target: &target };
        let answered = match dice.below(100) {
            0..50 => client.read(&key).is_some(),
            50..72 => client.write(&key),
            72..90 => client.compare_and_set(&key),
            _ => client.append(&key),
        };
        if !answered {
            silent.insert(target.name, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(dice.below(MAX_PAUSE_MS)));
    }
}

fn key(slot: u64, age: Duration) -> String {
    format!("key-{slot}-{}", age.as_secs() / KEY_LIFE.as_secs())
}

/// Every key that a round of this length has used.
pub(super) fn keys(length: Duration) -> Vec<String> {
    let lives = length.as_secs() / KEY_LIFE.as_secs();
    let key = |life: u64| (0..KEYS).map(move |slot| key(slot, KEY_LIFE * u32::try_from(life).unwrap_or(0)));
    (0..=lives).flat_map(key).collect()
}

/// Any node, but seldom one that was silent a moment ago.
fn choose(
    targets: &RwLock<Vec<Target>>,
    silent: &BTreeMap<String, Instant>,
    dice: &mut Dice,
) -> Option<Target> {
    let targets = targets.read().unwrap_or_else(PoisonError::into_inner);
    let any = |dice: &mut Dice| {
        let at = dice.below(targets.len().max(1) as u64);
        targets.get(usize::try_from(at).unwrap_or(0)).cloned()
    };
    let first = any(dice)?;
    let avoided = silent.get(&first.name).is_some_and(|at| at.elapsed() < AVOIDANCE);
    if avoided && dice.below(4) > 0 { any(dice) } else { Some(first) }
}
