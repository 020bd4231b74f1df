//! Long runs, each by the program that knows how.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// Which program runs a soak: arguments of `cargo run`.
fn program(what: &str) -> Option<&'static [&'static str]> {
    match what {
        "sim" | "mutants" | "spread" => Some(&["--profile", "soak", "-p", "selvedge-sim"]),
        "kill9" | "cloud-loss" | "histories" | "voter-returns" | "leader-loss" | "node-loss" | "pauses"
        | "recover" => Some(&["-p", "selvedge-chaos-tests", "--bin", "soak"]),
        _ => None,
    }
}

/// Runs a soak and hands its options on.
pub(crate) fn run(root: &Path, mut args: impl Iterator<Item = String>) -> Result<()> {
    let what = args.next().unwrap_or_default();
    if what == "power-cuts" {
        return power_cuts(root, args);
    }
    let Some(program) = program(&what) else {
        bail!("there is no soak {what:?}\n\n{}", crate::USAGE);
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

/// Cuts the power under a replica that writes, again and again: a test of its own crate, which takes how
/// often from the environment.
fn power_cuts(root: &Path, mut args: impl Iterator<Item = String>) -> Result<()> {
    let count = match (args.next().as_deref(), args.next()) {
        (None, _) => "50".to_owned(),
        (Some("--count"), Some(count)) if count.parse::<u32>().is_ok() => count,
        (Some(word), _) => bail!("power-cuts takes `--count N`, not {word:?}"),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "test",
        "--locked",
        "--quiet",
        "-p",
        "selvedge-consensus",
        "--test",
        "it",
        "--",
        "--exact",
    ]);
    command.args(["power_cut::acknowledged_writes_survive_power_cuts", "--nocapture"]);
    command.env("SELVEDGE_POWER_CUTS", count).env("SELVEDGE_REQUIRE_KERNEL", "1");
    let status = command.current_dir(root).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the soak power-cuts failed: {status}");
    }
    Ok(())
}
