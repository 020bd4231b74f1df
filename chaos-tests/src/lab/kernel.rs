//! What only root may do: namespaces and file systems of a test's own, which the kernel removes when the
//! test's last process is gone, however it ends.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What a test wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// A network: a loopback device of its own, with no way out.
    Network,
    /// A table of mounts: what is mounted is seen by nobody else.
    Mounts,
    /// A host: both, with a BPF file system, a /run and an /etc of its own, and IPv6 switched on.
    Host,
}

/// Runs `drill` on a thread that has namespaces of its own; what it starts inherits them. Returns
/// whether it ran: without root it is skipped, which `SELVEDGE_REQUIRE_KERNEL=1` forbids.
///
/// # Errors
/// Those of the drill, or that a namespace cannot be made.
///
/// # Panics
/// When the test has to be skipped and must not be.
pub fn with_own(what: Own, drill: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<bool> {
    as_root(|| {
        // Namespaces belong to threads: this one ends with the drill.
        let run = || {
            separate(what)?;
            drill()
        };
        let ended = std::thread::scope(|scope| scope.spawn(run).join());
        ended.map_err(|_| anyhow::anyhow!("the drill panicked"))?
    })
}

/// Runs `drill` if this is root. Returns whether it ran: without root it is skipped, which
/// `SELVEDGE_REQUIRE_KERNEL=1` forbids.
///
/// # Errors
/// Those of the drill.
///
/// # Panics
/// When the test has to be skipped and must not be.
pub fn as_root(drill: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<bool> {
    if !rustix::process::geteuid().is_root() {
        let required = env::var("SELVEDGE_REQUIRE_KERNEL").is_ok_and(|v| v == "1");
        assert!(!required, "SELVEDGE_REQUIRE_KERNEL=1, but this test needs root and has it not");
        eprintln!("SKIPPED: needs root");
        return Ok(false);
    }
    drill()?;
    Ok(true)
}

#[allow(unsafe_code, reason = "unshare of file descriptors would be unsound; rustix has one call for all")]
fn separate(what: Own) -> anyhow::Result<()> {
    let flags = match what {
        Own::Network => UnshareFlags::NEWNET,
        Own::Mounts => UnshareFlags::NEWNS,
        Own::Host => UnshareFlags::NEWNET | UnshareFlags::NEWNS,
    };
    // SAFETY: the call is unsound only with UnshareFlags::FILES, which is not among the flags.
    unsafe { unshare_unsafe(flags) }.context("cannot make a namespace")?;
    match what {
        Own::Network => run("ip", &["link", "set", "lo", "up"]),
        // Otherwise mounts would still spread to where this table was copied from.
        Own::Mounts => run("mount", &["--make-rprivate", "/"]),
        Own::Host => furnish(),
    }
}

/// Makes new namespaces look like a host.
fn furnish() -> anyhow::Result<()> {
    run("mount", &["--make-rprivate", "/"])?;
    run("ip", &["link", "set", "lo", "up"])?;
    run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])?;
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    // As `ip netns` does for its first one. Before any node starts, or those that look at a copy of this
    // table would not see the namespaces that are named later.
    std::fs::create_dir_all("/run/netns")?;
    run("mount", &["--bind", "/run/netns", "/run/netns"])?;
    run("mount", &["--make-shared", "/run/netns"])?;
    let over = Path::new("/run/etc");
    for part in ["upper", "work"] {
        std::fs::create_dir_all(over.join(part))?;
    }
    let layers = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
    run("mount", &["-t", "overlay", "-o", layers, "overlay", "/etc"])
}

/// Mounts a file system in memory of so many MiB at `place`.
///
/// # Errors
/// When it cannot be mounted.
pub fn mount_memory(place: &Path, mebibytes: u32) -> anyhow::Result<()> {
    let size = format!("size={mebibytes}m");
    run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &place.to_string_lossy()])
}

/// Makes the file system at `place`, a mount of its own, read-only.
///
/// # Errors
/// When the kernel refuses.
pub fn make_read_only(place: &Path) -> anyhow::Result<()> {
    run("mount", &["-o", "remount,ro", &place.to_string_lossy()])
}

/// Runs a program that must succeed.
///
/// # Errors
/// What it said, when it did not.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}
