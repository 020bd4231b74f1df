//! The eBPF programs: built by a pinned toolchain into an object that is committed, so that nobody else
//! needs that toolchain; and checked, so that the object is what the sources say.
//!
//! The compiler must have the sources of `core` and accept `-Z`. Debian has one: `rustc-web` and
//! `rust-web-src`. Elsewhere a nightly toolchain with `rust-src` builds programs that work just as well,
//! but not the same bytes; `SELVEDGE_EBPF_RUSTC` names it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

mod strip;

use strip::strip;

/// The committed object.
const OBJECT: &str = "dataplane-ebpf/object/selvedge.bpf.o";
/// The compiler of continuous integration, from Debian's `rustc-web`, and how it names itself.
const RUSTC: &str = "/usr/bin/rustc";
const RUSTC_VERSION: &str = "1.96.0";
/// The linker, from crates.io.
const LINKER_VERSION: &str = "0.10.4";
const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "selvedge-programs";
const PROFILE: &str = "ebpf";

/// Builds the object anew.
pub(crate) fn build(root: &Path) -> Result<()> {
    let object = compile(root, &root.join("target/ebpf"))?;
    let path = root.join(OBJECT);
    fs::create_dir_all(path.parent().context("a directory")?)?;
    fs::write(&path, &object).with_context(|| format!("cannot write {OBJECT}"))?;
    eprintln!("{OBJECT}: {} bytes", object.len());
    Ok(())
}

/// Builds the object elsewhere and compares it with the committed one, byte by byte. Without the toolchain
/// it says so, which `SELVEDGE_REQUIRE_EBPF=1` forbids.
pub(crate) fn check(root: &Path) -> Result<()> {
    if let Err(missing) = toolchain() {
        if env::var_os("SELVEDGE_REQUIRE_EBPF").is_some_and(|value| value == "1") {
            return Err(missing);
        }
        eprintln!("   SKIPPED: {missing:#}");
        return Ok(());
    }
    let object = compile(root, &root.join("target/ebpf-check"))?;
    let committed = fs::read(root.join(OBJECT)).with_context(|| format!("cannot read {OBJECT}"))?;
    ensure!(
        object == committed,
        "{OBJECT} is not what its sources give ({} bytes, committed are {}): run `cargo xtask ebpf build` and \
         commit the result",
        object.len(),
        committed.len()
    );
    eprintln!("{OBJECT} is what its sources give");
    Ok(())
}

/// The compiler, and the directory of the linker.
struct Toolchain {
    rustc: PathBuf,
    linker: PathBuf,
}

fn toolchain() -> Result<Toolchain> {
    let named = env::var_os("SELVEDGE_EBPF_RUSTC").map(PathBuf::from);
    let rustc = named.clone().unwrap_or_else(|| PathBuf::from(RUSTC));
    let version = version_of(&rustc, &["--version"]).context(
        "the eBPF programs need a compiler with the sources of core: apt-get install rustc-web rust-web-src, \
         or name another by SELVEDGE_EBPF_RUSTC",
    )?;
    ensure!(
        named.is_some() || version.contains(RUSTC_VERSION),
        "{RUSTC} is {version}, but the committed object is made with {RUSTC_VERSION}: name another by \
         SELVEDGE_EBPF_RUSTC"
    );
    let linker = which("bpf-linker").with_context(|| {
        format!("bpf-linker is not installed: cargo install bpf-linker --locked --version {LINKER_VERSION}")
    })?;
    let version = version_of(&linker, &["--version"])?;
    ensure!(
        version.ends_with(LINKER_VERSION),
        "{version} is installed, but the committed object is made with {LINKER_VERSION}"
    );
    Ok(Toolchain { rustc, linker })
}

fn version_of(program: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A program on the path, or where cargo installs.
fn which(name: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".cargo")));
    let installed = home.map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(installed).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

/// Compiles the programs into a target directory, and returns the object without what only debuggers read.
/// No path of this machine gets into it: neither where the sources are nor whose cargo it is.
fn compile(root: &Path, target: &Path) -> Result<Vec<u8>> {
    let toolchain = toolchain()?;
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".cargo")));
    let cargo_home = cargo_home.context("neither CARGO_HOME nor HOME is set")?;
    let linker_directory = toolchain.linker.parent().context("a directory")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(linker_directory.to_owned()).chain(env::split_paths(&path)))?;
    let flags = [
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=/selvedge", root.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        "-Dwarnings".to_owned(),
    ];
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--package", PACKAGE, "--profile", PROFILE])
        .args(["-Zbuild-std=core", "--target", TARGET])
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("PATH", path)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the eBPF programs do not compile: cargo ended with {status}");
    }
    let built = target.join(TARGET).join(PROFILE).join(PACKAGE);
    let built = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    strip(&built).context("the object is no ELF file that can be stripped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuous_integration_installs_the_linker_that_is_recommended() {
        let script = include_str!("../../../.ci/run");
        assert!(script.contains(&format!("BPF_LINKER_VERSION={LINKER_VERSION}\n")));
        assert!(script.contains("SELVEDGE_REQUIRE_EBPF=1"));
    }
}
