//! Checks and chores of the workspace.
//!
//! `cargo xtask verify` changes nothing and needs no network; it is what a change must pass before it
//! is reviewed. `cargo xtask test` is the same and then every test.

mod arrows;
mod checks;
mod ebpf;
mod limits;
mod soak;
mod tidy;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
Checks and chores of the workspace.

Usage: cargo xtask <COMMAND>

Commands:
  verify   formatting, lints, dependency arrows, sizes, licenses, documentation
  test     verify, then every test of the workspace
  arrows   only the dependency arrows between the crates
  tidy     only the sizes of files and functions, and a few habits
  limits   only whether every limit in docs/limits.md is where it says
  soak sim [--seeds N] [--jobs N] [--nodes N]
               the simulation: 10,000 seeds unless told; goes on where it was broken off
  soak mutants [--seeds N]
               each planted bug must be seen within 1,000 seeds
  soak spread [--nodes N] [--seeds N]
               how fast a fact reaches many nodes, beside Serf's model, and its bandwidth
  soak kill9|cloud-loss|pauses|recover|histories|voter-returns|power-cuts ...
               drills on real processes; --help tells their options
  soak leader-loss|node-loss ...
               the same beside etcd and serf (Debian: etcd-server, serf)
  ebpf build   builds the eBPF programs anew, into the committed object
  ebpf check   builds them elsewhere and compares: is the object what its sources say?

Environment:
  SELVEDGE_ADVISORIES=1     verify also asks the advisory database (needs network)
  SELVEDGE_REQUIRE_DENY=1   verify fails, rather than tells, when cargo-deny is not installed
  SELVEDGE_REQUIRE_EBPF=1   test fails, rather than tells, when the eBPF programs cannot be built
  SELVEDGE_EBPF_RUSTC=PATH  another compiler for the eBPF programs, with the sources of core
  SELVEDGE_REQUIRE_KERNEL=1 tests that need root or kernel features fail, rather than tell, without them
  SELVEDGE_FUZZ_SECONDS=N   how long each fuzz test runs
  SELVEDGE_FUZZ_SEED=N      repeats the inputs of a run that told this seed";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("verify") => checks::verify(root),
        Some("test") => checks::verify(root).and_then(|()| checks::test(root)),
        Some("arrows") => arrows::check(root),
        Some("tidy") => tidy::check(root),
        Some("limits") => limits::check(root),
        Some("soak") => soak::run(root, std::env::args().skip(2)),
        Some("ebpf") => match std::env::args().nth(2).as_deref() {
            Some("build") => ebpf::build(root),
            Some("check") => ebpf::check(root),
            other => bail!("ebpf takes `build` or `check`, not {other:?}\n\n{USAGE}"),
        },
        None | Some("help" | "-h" | "--help") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!("unknown command {other:?}\n\n{USAGE}"),
    }
}
