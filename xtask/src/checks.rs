//! The checks that other tools make, and their order: what is quick and often wrong comes first.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{arrows, ebpf, limits, tidy};

/// The version of cargo-deny that continuous integration installs.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// A check by name.
type Check = (&'static str, fn(&Path) -> Result<()>);

const CHECKS: [Check; 7] = [
    ("formatting", |root| cargo(root, &["fmt", "--all", "--check"], &[])),
    ("arrows", arrows::check),
    ("sizes and habits", tidy::check),
    ("limits", limits::check),
    ("lints", |root| {
        let all = ["clippy", "--workspace", "--all-targets", "--locked", "--keep-going"];
        cargo(root, &[&all[..], &["--", "-D", "warnings"]].concat(), &[])
    }),
    ("licenses and sources", deny),
    ("documentation", |root| {
        let all = ["doc", "--workspace", "--no-deps", "--locked", "--keep-going"];
        cargo(root, &all, &[("RUSTDOCFLAGS", "-D warnings")])
    }),
];

/// Runs every check, also after one has failed, and names those that did.
pub(crate) fn verify(root: &Path) -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        eprintln!("== {name}");
        let start = Instant::now();
        match check(root) {
            Ok(()) => eprintln!("   ok in {:.1} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                eprintln!("   failed: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("verify failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs every test of the workspace, once the eBPF programs in it are what their sources say.
pub(crate) fn test(root: &Path) -> Result<()> {
    eprintln!("== eBPF programs");
    ebpf::check(root)?;
    eprintln!("== tests");
    cargo(root, &["test", "--workspace", "--locked"], &[])
}

/// Licenses, bans and sources, from the lock file alone. Advisories need a database from the network,
/// so they are asked for only on request.
fn deny(root: &Path) -> Result<()> {
    let installed = Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        let how = format!("cargo install cargo-deny --locked --version {CARGO_DENY_VERSION}");
        if is_set("SELVEDGE_REQUIRE_DENY") {
            bail!("cargo-deny is not installed; install it with: {how}");
        }
        eprintln!("   SKIPPED: cargo-deny is not installed; {how}");
        return Ok(());
    }
    let mut args = vec!["deny", "--all-features", "check", "licenses", "bans", "sources"];
    if is_set("SELVEDGE_ADVISORIES") {
        args.push("advisories");
    }
    cargo(root, &args, &[])
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value == "1")
}

fn cargo(root: &Path, args: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    // The cargo that runs us, so that a toolchain override holds for the checks as well.
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&program);
    command.args(args).current_dir(root).envs(variables.iter().copied());
    let status = command.status().with_context(|| format!("cannot run cargo {}", args.join(" ")))?;
    if !status.success() {
        bail!("cargo {} ended with {status}", args.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuous_integration_installs_the_version_that_is_recommended() {
        let script = include_str!("../../.ci/run");
        assert!(script.contains(&format!("CARGO_DENY_VERSION={CARGO_DENY_VERSION}\n")));
        assert!(script.ends_with("cargo xtask test\n"), "it runs the test command of the README");
    }
}
