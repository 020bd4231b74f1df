//! Finds the binary under test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

use anyhow::{Context as _, bail, ensure};

/// The binary under test: `SELVEDGE_BIN`, or the one of this workspace, freshly built with the profile
/// of the running program, so that no test ever runs against a stale one.
///
/// # Errors
/// When it is not there or cannot be built.
pub fn selvedge() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find("SELVEDGE_BIN", &[]).map_err(|e| format!("{e:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

/// The binary of a later version, to which the one under test is upgraded: its maps have another layout.
/// `SELVEDGE_NEXT_BIN`, or the one of this workspace with the feature `next-layout`.
///
/// # Errors
/// When it is not there or cannot be built.
pub fn next() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let later = || {
        // Both are built in one place; the one under test is to be what lies there in the end.
        let found = find("SELVEDGE_NEXT_BIN", &["--features", "next-layout"])?;
        if env::var_os("SELVEDGE_NEXT_BIN").is_none() && env::var_os("SELVEDGE_BIN").is_none() {
            build(&profile()?, &[])?;
        }
        Ok(found)
    };
    let found = FOUND.get_or_init(|| later().map_err(|e: anyhow::Error| format!("{e:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

/// The binary that a variable names; otherwise a fresh one, under a name where no later build replaces it.
fn find(variable: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
    if let Some(given) = env::var_os(variable) {
        let path = PathBuf::from(given);
        ensure!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return Ok(path.canonicalize()?);
    }
    let profile = profile()?;
    // Tests lie in `deps`, and cargo has given back its lock by the time it runs them.
    build(&profile, features)?;
    let built = profile.join("selvedge");
    ensure!(built.is_file(), "{} is not there; set {variable}", built.display());
    let own = profile.join("under-test").join(variable.to_lowercase());
    fs::create_dir_all(&own)?;
    // Another run of tests may be here at the same time: the name always has a file.
    let (new, own) = (own.join(process::id().to_string()), own.join("selvedge"));
    let _ = fs::remove_file(&new);
    fs::hard_link(&built, &new)?;
    fs::rename(&new, &own)?;
    // Renaming to another name of the same file does nothing (rename(2)).
    let _ = fs::remove_file(&new);
    Ok(own)
}

/// Where cargo puts what it builds with the profile of the running program.
fn profile() -> anyhow::Result<PathBuf> {
    let me = env::current_exe().context("cannot tell which program this is")?;
    profile_dir(&me).context("this program does not lie in a cargo target directory")
}

/// `target/debug` of `target/debug/deps/it-0123` and of `target/debug/soak`.
fn profile_dir(program: &Path) -> Option<PathBuf> {
    let dir = program.parent()?;
    let dir = if dir.ends_with("deps") { dir.parent()? } else { dir };
    Some(dir.to_owned())
}

fn build(profile: &Path, features: &[&str]) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "selvedge", "--bin", "selvedge", "--manifest-path"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    command.args(features);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    if let Some(target) = profile.parent() {
        command.arg("--target-dir").arg(target);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("cargo build -p selvedge failed: {status}"),
        Err(error) => bail!("cannot run cargo ({error}); set SELVEDGE_BIN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_tests_lie_in_the_same_profile() {
        let profile = Some(PathBuf::from("/w/target/debug"));
        assert_eq!(profile_dir(Path::new("/w/target/debug/deps/it-0123")), profile);
        assert_eq!(profile_dir(Path::new("/w/target/debug/soak")), profile);
    }
}
