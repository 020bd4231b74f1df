//! Long runs, each by the program that knows how.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// Which program runs a soak: arguments of `cargo run`.
fn program(what: &str) -> Option<&'static [&'static str]> {
    match what {
        "sim" | "mutants" | "spread" => Some(&["--profile", "soak", "-p", "selvedge-sim"]),
        "kill9" | "cloud-loss" => Some(&["-p", "selvedge-chaos-tests", "--bin", "soak"]),
        _ => None,
    }
}

/// Runs a soak and hands its options on.
pub(crate) fn run(root: &Path, mut args: impl Iterator<Item = String>) -> Result<()> {
    let what = args.next().unwrap_or_default();
    let Some(program) = program(&what) else {
        bail!("soak takes `sim`, `mutants`, `spread`, `kill9` or `cloud-loss`, not {what:?}");
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--locked", "--quiet"]).args(program).args(["--", &what]).args(args);
    let status = command.current_dir(root).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the soak {what} failed: {status}");
    }
    Ok(())
}
