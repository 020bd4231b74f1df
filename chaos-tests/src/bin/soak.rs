//! Runs one of the long drills in full and prints what it measured.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Parser;
use selvedge_chaos_tests::{
    histories,
    lab::kernel::{Own, with_own},
    scenario::{beside, cloud_loss, kill9, pauses, recover},
};

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
    /// Have clients use a fabric under kills, pauses, cuts and changes of membership, and judge what they saw.
    /// Started again, it goes on where its ledger ends. Needs root
    Histories {
        /// How many minutes in all
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// How many operations must have been judged in all
        #[arg(long, default_value_t = 100_000)]
        operations: usize,
        /// Repeats the choices of an earlier run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where the ledger is kept
        #[arg(long, default_value = "target/soak-histories")]
        dir: PathBuf,
    },
    /// Cut a voter off and let it return, again and again: the leader must stay. Needs root
    VoterReturns {
        /// How many times
        #[arg(long, default_value_t = 20)]
        count: u32,
        /// Repeats the choices of an earlier run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Kill the leader of three voters beside etcd, and compare how long no write is acknowledged
    LeaderLoss {
        /// How many leaders of each
        #[arg(long, default_value_t = 10)]
        count: u32,
    },
    /// Kill one of five nodes, and cut one off, beside serf, and compare when all others know (root)
    NodeLoss {
        /// How many of each
        #[arg(long, default_value_t = 10)]
        count: u32,
        /// Repeats the choices of an earlier run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Stop a node 3 s in every 10 s while all CPUs are busy; no living node may be declared dead
    Pauses {
        /// How long
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Repeats the choices of an earlier run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Cut one cloud off from a majority that lives, recover it, and heal the cut; needs root
    Recover {
        /// How many times
        #[arg(long, default_value_t = 20)]
        count: u32,
        /// Decides which cloud is cut off
        #[arg(long, default_value_t = 1)]
        seed: u64,
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
        Soak::Histories { minutes, operations, seed, dir } => {
            histories::soak(&histories::Soak { minutes, operations, seed, dir })?;
        }
        Soak::VoterReturns { count, seed } => {
            let ran = with_own(Own::Host, || {
                let changes = histories::voter_returns(count, seed)?;
                ensure!(changes == 0, "{changes} of {count} returns changed the leader or its term");
                println!("{count} returns, the leader and its term stayed");
                Ok(())
            })?;
            ensure!(ran, "this needs root");
        }
        Soak::LeaderLoss { count } => {
            let gaps = beside::leader_loss(count)?;
            println!("write gap:       {}", gaps.ours);
            println!("write gap, etcd: {}", gaps.etcd);
        }
        Soak::NodeLoss { count, seed } => {
            let losses = beside::node_loss(count, seed)?;
            println!("killed, all know:       {}", losses.killed[0]);
            println!("killed, all know, serf: {}", losses.killed[1]);
            println!("cut,    all know:       {}", losses.cut[0]);
            println!("cut,    all know, serf: {}", losses.cut[1]);
        }
        Soak::Pauses { minutes, seed } => {
            let outcome = pauses::run(Duration::from_secs(60 * minutes), seed)?;
            println!("{outcome:?}; no living node was declared dead");
        }
        Soak::Recover { count, seed } => {
            let ran = with_own(Own::Host, || {
                let outcome = recover::run(count, seed)?;
                println!("named:     {}", outcome.named);
                println!("recovered: {}", outcome.recovered);
                println!("whole:     {}", outcome.whole);
                println!("kept {}, left behind and listed {}", outcome.kept, outcome.left_behind);
                Ok(())
            })?;
            ensure!(ran, "recover needs root: it makes network namespaces");
        }
    }
    Ok(())
}
