//! Namespaces that stand for a machine.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use crate::LabError;

/// Where pinned eBPF objects are.
const BPF_FS: &str = "/sys/fs/bpf";

/// A network with nothing but a loopback device, and a BPF file system, of its own.
///
/// It has no name and no file. It lives for as long as this value or a process inside does, so that
/// nothing of it stays behind when its owner is killed; with it go its interfaces and what is pinned
/// in it. Mounts that others make afterwards are seen inside; mounts made inside are not seen outside.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Shared with the commands that will enter.
    doors: Arc<Doors>,
}

#[derive(Debug)]
struct Doors {
    network: File,
    mounts: File,
}

impl Namespace {
    /// A new one. Needs root.
    ///
    /// # Errors
    /// When the kernel refuses, or `ip` cannot be run.
    pub fn new() -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        // Namespaces belong to threads: this one makes them, and ends.
        let made = on_thread(|| {
            separate()?;
            let open = |kind: &str| {
                let path = format!("/proc/thread-self/ns/{kind}");
                File::open(&path).map_err(LabError::kernel(format!("open {path}")))
            };
            Ok(Doors { network: open("net")?, mounts: open("mnt")? })
        })?;
        let this = Self { doors: Arc::new(made?) };
        this.ip(["link set lo up"])?;
        Ok(this)
    }

    /// A path that leads to the network for as long as this process has this value, also from other
    /// processes of root: for `selvedge attach --netns`, `ip link set … netns` and `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.doors.network.as_raw_fd()).into()
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    /// Has a command run inside. What it inherits, it inherits from outside: directory, user, streams.
    #[allow(unsafe_code, reason = "Command offers no safe way to enter a namespace")]
    pub fn enter(&self, command: &mut Command) {
        let doors = Arc::clone(&self.doors);
        let enter = move || {
            move_into_link_name_space(doors.network.as_fd(), Some(LinkNameSpaceType::Network))?;
            // The kernel takes a process into another mount namespace only when it shares its directory
            // with no other thread; a forked one does not.
            move_into_link_name_space(doors.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            Ok(())
        };
        // SAFETY: the closure makes two system calls, setns, which is async-signal-safe, and neither
        // allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
    }

    /// Does something inside, on a thread of its own; sockets made there stay there. Files are those of
    /// the outside.
    ///
    /// # Errors
    /// When the network cannot be entered.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_thread(|| {
            let network = self.doors.network.as_fd();
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
                .map_err(LabError::kernel("enter a network namespace"))?;
            Ok(act())
        })?
    }

    /// Has `ip` obey these lines inside, one after another, up to the first that fails.
    ///
    /// # Errors
    /// What it said then, or that it cannot be run.
    pub fn ip<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Result<(), LabError> {
        for line in lines {
            let line = line.as_ref();
            let mut command = self.command("ip");
            let output = command.args(line.split_whitespace()).stdin(Stdio::null()).output();
            let output = output.map_err(LabError::NoIp)?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(LabError::Ip { words: line.to_owned(), said });
            }
        }
        Ok(())
    }

    /// Sets a parameter of the network (sysctl(8)), `ipv4/ip_forward` for instance.
    ///
    /// # Errors
    /// When the kernel does not have it or refuses the value.
    pub fn set(&self, parameter: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/proc/sys/net/{parameter}");
        let written = self.run(|| std::fs::write(&path, value))?;
        written.map_err(LabError::kernel(format!("write {value} to {path}")))
    }
}

/// Leaves the network and the mounts of the other threads.
#[allow(unsafe_code, reason = "unshare of file descriptors would be unsound; rustix has one call for all")]
fn separate() -> Result<(), LabError> {
    // SAFETY: the call is unsound only with UnshareFlags::FILES, which is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
        .map_err(LabError::kernel("make a namespace"))?;
    // Mounts come in and never get out.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(LabError::kernel("keep mounts inside a namespace"))?;
    mount("bpf", BPF_FS, "bpf", MountFlags::empty(), None)
        .map_err(LabError::kernel(format!("mount a BPF file system at {BPF_FS}")))
}

/// Runs `act` on a thread that ends with it.
fn on_thread<T: Send>(act: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, act);
        match thread.map_err(LabError::kernel::<io::Error>("start a thread"))?.join() {
            Ok(done) => Ok(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
