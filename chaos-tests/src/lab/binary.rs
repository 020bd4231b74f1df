//! Finds the binary under test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
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
    let found = FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find() -> anyhow::Result<PathBuf> {
    if let Some(given) = env::var_os("SELVEDGE_BIN") {
        let path = PathBuf::from(given);
        ensure!(path.is_file(), "SELVEDGE_BIN names {}, which is no file", path.display());
        return Ok(path.canonicalize()?);
    }
    let me = env::current_exe().context("cannot tell which program this is")?;
    let profile = profile_dir(&me).context("this program does not lie in a cargo target directory")?;
    // Tests lie in `deps`, and cargo has given back its lock by the time it runs them.
    build(&profile)?;
    let path = profile.join("selvedge");
    ensure!(path.is_file(), "{} is not there; set SELVEDGE_BIN", path.display());
    Ok(path)
}

/// `target/debug` of `target/debug/deps/it-0123` and of `target/debug/soak`.
fn profile_dir(program: &Path) -> Option<PathBuf> {
    let dir = program.parent()?;
    let dir = if dir.ends_with("deps") { dir.parent()? } else { dir };
    Some(dir.to_owned())
}

fn build(profile: &Path) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "selvedge", "--bin", "selvedge", "--manifest-path"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
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
