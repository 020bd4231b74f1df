//! Network namespaces (network_namespaces(7)).

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// It cannot be opened.
    #[error("network namespace {path}: {source}; name one as `ip netns add` makes it, or /proc/PID/ns/net")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{path} is no network namespace ({source}): name one as `ip netns add` makes it, or /proc/PID/ns/net"
    )]
    Kind {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be made to enter it.
    #[error("cannot start a thread to enter {path}: {source}")]
    Thread {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An open network namespace. It lives for as long as this value does, whoever else lets go of it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    id: (u64, u64),
}

impl Namespace {
    /// Opens a namespace by its file, and makes sure that it is one.
    ///
    /// # Errors
    /// When it cannot be opened or entered.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let error = |source| NamespaceError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        let this = Self { file, path: path.to_owned(), id: (metadata.dev(), metadata.ino()) };
        this.run(|| ()).map(|()| this)
    }

    /// The namespace that a process is in.
    ///
    /// # Errors
    /// When there is no such process or it may not be looked at.
    pub fn of_process(pid: u32) -> Result<Self, NamespaceError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Whether this is the namespace that the daemon itself is in.
    #[must_use]
    pub fn is_own(&self) -> bool {
        std::fs::metadata(OWN).is_ok_and(|m| (m.dev(), m.ino()) == self.id)
    }

    /// Device and inode: the same for two files of one namespace, and no other's while it is open.
    #[must_use]
    pub const fn id(&self) -> (u64, u64) {
        self.id
    }

    /// The file that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` inside. It runs on a thread of its own, because a thread that has entered a namespace
    /// must never go back to work for others. Sockets made in there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<_, io::Error>(f())
            };
            let worker = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside);
            let worker =
                worker.map_err(|source| NamespaceError::Thread { path: self.path.clone(), source })?;
            match worker.join() {
                Ok(result) => {
                    result.map_err(|source| NamespaceError::Kind { path: self.path.clone(), source })
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_told() {
        let absent = Namespace::open(Path::new("/run/netns/there-is-none")).expect_err("absent");
        assert!(absent.to_string().contains("there-is-none"), "{absent}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = Namespace::open(file.path()).expect_err("a plain file");
        assert!(error.to_string().contains("no network namespace"), "{error}");
        // Process ids end at 2^22 on every kernel.
        assert!(Namespace::of_process(u32::MAX).is_err());
    }
}
