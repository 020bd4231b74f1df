//! Hostile bytes for the tests of every crate that reads any from outside.
//!
//! A target gets mutations of valid inputs, which reach deeper than noise does, and some noise. It must
//! not panic; what else must hold, it asserts. A failing input is shrunk and shown.
//!
//! * `SELVEDGE_FUZZ_SECONDS` sets how long each target runs, by default [`DEFAULT_TIME`].
//! * `SELVEDGE_FUZZ_SEED` repeats the inputs of a run, which told its seed.
#![warn(missing_docs)]

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

mod mutation;

use mutation::{Mutation, mutate, mutation};

/// How long a target runs when the environment does not say.
pub const DEFAULT_TIME: Duration = Duration::from_secs(1);
/// Inputs between two looks at the clock, and the fewest of a run.
const ROUND: u32 = 64;
/// Most mutations of one input.
const MAX_MUTATIONS: usize = 8;
/// Most bytes of noise.
const MAX_NOISE_BYTES: usize = 300;
/// Most attempts to make a failing input smaller.
const MAX_SHRINK_ITERS: u32 = 2_000;

/// Runs `target` on mutations of `seeds` and on noise for a while, and tells how many.
///
/// # Panics
/// When `target` does, with the smallest input found.
#[allow(clippy::print_stderr, reason = "the figures of a run are for people; test runners capture them")]
pub fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let seed = number("SELVEDGE_FUZZ_SEED").unwrap_or_else(random_seed);
    let time = number("SELVEDGE_FUZZ_SECONDS").map_or(DEFAULT_TIME, Duration::from_secs);
    let (start, inputs) = (Instant::now(), strategy(seeds));
    let count = Cell::new(0_u64);
    // Told before as well: a run that aborts or hangs ends without another word.
    eprintln!("fuzz {name}: SELVEDGE_FUZZ_SEED={seed}");
    for round in 0.. {
        if round > 0 && start.elapsed() >= time {
            break;
        }
        let outcome = runner(seed, round).run(&inputs, |bytes| {
            count.set(count.get() + 1);
            target(&bytes);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, bytes)) => {
                panic!(
                    "fuzz {name}: {why}\n  input: b\"{}\"\n  {} inputs, SELVEDGE_FUZZ_SEED={seed}",
                    bytes.escape_ascii(),
                    count.get()
                )
            }
            Err(TestError::Abort(why)) => panic!("fuzz {name}: {why}"),
        }
    }
    eprintln!("fuzz {name}: {} inputs in {:.1} s", count.get(), start.elapsed().as_secs_f64());
}

fn strategy(seeds: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let noise = vec(any::<u8>(), 0..MAX_NOISE_BYTES);
    if seeds.is_empty() {
        return noise.boxed();
    }
    let mutated =
        (select(seeds.to_vec()), vec(mutation(), 0..MAX_MUTATIONS)).prop_map(|(mut bytes, mutations)| {
            mutations.iter().for_each(|mutation: &Mutation| mutate(&mut bytes, mutation));
            bytes
        });
    prop_oneof![8 => mutated, 1 => noise].boxed()
}

/// A new one for each round: a runner counts its cases once and for all, and would do nothing any more.
fn runner(seed: u64, round: u64) -> TestRunner {
    let config = Config {
        cases: ROUND,
        failure_persistence: None,
        max_shrink_iters: MAX_SHRINK_ITERS,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&round.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

fn random_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs().rotate_left(32) ^ u64::from(std::process::id()) << 32
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;

    use super::*;

    #[test]
    fn a_target_that_fails_is_shown_the_smallest_input() {
        let seeds = [b"{\"name\": \"web\"}".to_vec()];
        let run = std::panic::catch_unwind(|| fuzz("self", &seeds, |bytes| assert!(!bytes.contains(&b'w'))));
        let why = run.expect_err("fails");
        let why = why.downcast_ref::<String>().expect("a message");
        assert!(why.contains("input: b\"") && why.contains("SELVEDGE_FUZZ_SEED="), "{why}");
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let inputs = || {
            let (mut runner, inputs) = (runner(7, 0), strategy(&[b"abc".to_vec()]));
            let drawn = (0..50).map(|_| inputs.new_tree(&mut runner).expect("an input").current());
            drawn.collect::<Vec<_>>()
        };
        assert_eq!(inputs(), inputs());
    }

    #[test]
    fn inputs_keep_coming_until_the_time_is_over() {
        let count = Cell::new(0_u32);
        fuzz("many", &[b"abc".to_vec()], |_| count.set(count.get() + 1));
        assert!(count.get() > ROUND, "{}", count.get());
    }

    #[test]
    fn there_may_be_no_seeds() {
        fuzz("noise", &[], |bytes| assert!(bytes.len() < MAX_NOISE_BYTES));
        fuzz("empty", &[Vec::new()], |_| {});
    }
}
