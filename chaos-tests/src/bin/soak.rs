//! Runs one of the long drills in full and prints what it measured.

use clap::Parser;
use selvedge_chaos_tests::scenario::{cloud_loss, kill9};

/// Long drills on a fabric of real processes.
#[derive(Parser)]
enum Soak {
    /// Kill random nodes with SIGKILL during a stream of writes; no acknowledged write may be lost
    Kill9 {
        /// How many kills
        #[arg(long, default_value_t = 200)]
        count: u32,
        /// Repeats the choices of an earlier run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Kill one cloud of three, let it return, and again
    CloudLoss {
        /// How many times
        #[arg(long, default_value_t = 20)]
        count: u32,
    },
}

fn main() -> anyhow::Result<()> {
    match Soak::parse() {
        Soak::Kill9 { count, seed } => {
            let outcome = kill9::run(count, seed)?;
            println!("{outcome:?}; no acknowledged write was lost");
        }
        Soak::CloudLoss { count } => {
            let outcome = cloud_loss::run(count)?;
            println!("write gap: {}", outcome.write_gap);
            println!("DNS clean: {}", outcome.dns_clean);
            println!("catch-up:  {}", outcome.catch_up);
        }
    }
    Ok(())
}
