//! The arrows between the crates: who may depend on whom.
//!
//! The core must stay a core. `fabric` can be simulated, replayed and trusted to give the same plan on
//! every node only as long as no clock, socket or random number gets in; and consensus, membership,
//! overlay, dns and the data plane can be understood one at a time only as long as none of them knows
//! another. So the arrows are data here, and a crate that is not listed does not build in CI.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Each crate of the workspace, and the crates of the workspace that it may depend on.
const ARROWS: [(&str, &[&str]); 17] = [
    ("selvedge-abi", &[]),
    ("selvedge-programs", &["selvedge-abi"]),
    ("selvedge-fabric", &["selvedge-abi"]),
    ("selvedge-transport", &["selvedge-fabric"]),
    ("selvedge-consensus", &["selvedge-fabric", "selvedge-transport"]),
    ("selvedge-membership", &["selvedge-fabric", "selvedge-transport"]),
    ("selvedge-overlay", &["selvedge-fabric", "selvedge-transport"]),
    ("selvedge-dns", &["selvedge-fabric"]),
    ("selvedge-dataplane", &["selvedge-fabric", "selvedge-abi"]),
    (
        "selvedge-node",
        &[
            "selvedge-fabric",
            "selvedge-transport",
            "selvedge-consensus",
            "selvedge-membership",
            "selvedge-overlay",
            "selvedge-dns",
            "selvedge-dataplane",
        ],
    ),
    // Judges what clients saw, and knows nothing of who answered them.
    ("selvedge-history", &[]),
    // The ground under fabrics knows none of them.
    ("selvedge-lab", &[]),
    ("selvedge", &["selvedge-node", "selvedge-fabric", "selvedge-lab"]),
    (
        // The lab drives binaries, which are no dependencies.
        "selvedge-chaos-tests",
        &[
            "selvedge-fabric",
            "selvedge-transport",
            "selvedge-consensus",
            "selvedge-membership",
            "selvedge-overlay",
            "selvedge-dns",
            "selvedge-dataplane",
            "selvedge-history",
            "selvedge-lab",
        ],
    ),
    (
        // The simulation joins the deterministic cores as the daemon does.
        "selvedge-sim",
        &[
            "selvedge-fabric",
            "selvedge-consensus",
            "selvedge-membership",
            "selvedge-overlay",
            "selvedge-dns",
            "selvedge-dataplane",
        ],
    ),
    (FUZZ, &[]),
    ("xtask", &[]),
];

/// Hostile bytes, which every crate may use in its tests, and none elsewhere.
const FUZZ: &str = "selvedge-fuzz";

/// Crates that are pure: no IO, no runtime, no clock, no source of randomness.
const PURE: [&str; 2] = ["selvedge-abi", "selvedge-fabric"];

/// Packages that a pure crate must not depend on, except in its tests.
const IMPURE: [&str; 14] = [
    "async-trait",
    "fastrand",
    "futures",
    "getrandom",
    "libc",
    "libp2p",
    "mio",
    "quinn",
    "rand",
    "rustix",
    "sled",
    "socket2",
    "tokio",
    "tokio-util",
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev` or `build`; none for ordinary ones.
    kind: Option<String>,
}

/// Checks every crate of the workspace.
pub(crate) fn check(root: &Path) -> Result<()> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut faults = faults(&metadata);
    for package in &metadata.packages {
        if !inherits_lints(&package.manifest_path)? {
            faults.push(format!("{} must say `lints.workspace = true`", package.name));
        }
    }
    if !faults.is_empty() {
        bail!("the order of the crates (xtask/src/arrows.rs) is broken:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// Whether a manifest takes the lints of the workspace: a crate that does not is checked by none.
fn inherits_lints(manifest: &Path) -> Result<bool> {
    let name = manifest.display();
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {name}"))?;
    let table: toml::Table = text.parse().with_context(|| format!("{name} is malformed"))?;
    let inherited = table.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(inherited.and_then(toml::Value::as_bool) == Some(true))
}

fn faults(metadata: &Metadata) -> Vec<String> {
    let members: BTreeSet<_> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            faults.push(format!("{} has no place among the arrows: give it one", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let is_test = dependency.kind.as_deref() == Some("dev");
            // A crate may depend on itself in its tests, to switch its own features on.
            let is_self = is_test && dependency.name == package.name;
            let is_fuzz = is_test && dependency.name == FUZZ;
            let is_member = members.contains(dependency.name.as_str());
            if is_member && !is_self && !is_fuzz && !allowed.contains(&dependency.name.as_str()) {
                faults.push(format!("{} must not depend on {}", package.name, dependency.name));
            }
            let is_pure = PURE.contains(&package.name.as_str());
            if is_pure && !is_test && IMPURE.contains(&dependency.name.as_str()) {
                faults.push(format!("{} is pure and must not depend on {}", package.name, dependency.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packages written as `name: dependency, dependency`; a dev-dependency ends with a star.
    fn faults_of(lines: &[&str]) -> Vec<String> {
        let dependency = |text: &str| Dependency {
            name: text.trim_end_matches('*').to_owned(),
            kind: text.ends_with('*').then(|| "dev".to_owned()),
        };
        let packages = lines.iter().map(|line| {
            let (name, dependencies) = line.split_once(':').expect("a colon");
            let dependencies = dependencies.split(',').map(str::trim).filter(|text| !text.is_empty());
            let dependencies = dependencies.map(dependency).collect();
            Package { name: name.to_owned(), manifest_path: PathBuf::new(), dependencies }
        });
        faults(&Metadata { packages: packages.collect() })
    }

    #[test]
    fn allowed_arrows_pass() {
        let lines = [
            "selvedge-fabric: selvedge-abi, serde, tokio*",
            "selvedge-abi:",
            "selvedge-transport: selvedge-fabric, selvedge-transport*, selvedge-fuzz*, tokio",
            "selvedge-fuzz:",
        ];
        assert_eq!(faults_of(&lines), Vec::<String>::new());
    }

    #[test]
    fn forbidden_arrows_are_named() {
        let lines =
            ["selvedge-fabric: tokio", "selvedge-dns: selvedge-fabric", "selvedge-consensus: selvedge-dns"];
        assert_eq!(
            faults_of(&lines),
            [
                "selvedge-fabric is pure and must not depend on tokio",
                "selvedge-consensus must not depend on selvedge-dns",
            ]
        );
        assert_eq!(faults_of(&["stranger:"]), ["stranger has no place among the arrows: give it one"]);
        assert_eq!(
            faults_of(&["selvedge-dns: selvedge-node*", "selvedge-node:"]),
            ["selvedge-dns must not depend on selvedge-node"]
        );
        assert_eq!(
            faults_of(&["selvedge-dns: selvedge-fuzz", "selvedge-fuzz:"]),
            ["selvedge-dns must not depend on selvedge-fuzz"]
        );
    }
}
