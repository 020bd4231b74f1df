//! The local socket: made with its final permissions in one step, and taken away again.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Longest path that the kernel takes for a socket, without the final zero (`sun_path`, unix(7)).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Why the local socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is longer than the kernel allows.
    #[error(
        "socket path {path} has {length} bytes, the system allows {MAX_SOCKET_PATH_BYTES}: choose a shorter one"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Something that is no socket is there.
    #[error("{0} is there and is no socket: move it away or choose another path")]
    Occupied(PathBuf),
    /// Another process listens there.
    #[error("another process serves {0}: stop it, or choose another path")]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot make socket {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// A listening local socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl UnixSocket {
    /// Listens at `path`, with mode 0600, or 0660 for a `group` id. A socket that a dead process left
    /// there is replaced; one that is served is not.
    ///
    /// # Errors
    /// What stands in the way, and what to do.
    pub async fn bind(path: &Path, group: Option<u32>) -> Result<Self, SocketError> {
        let io = |source| SocketError::Io { path: path.to_owned(), source };
        // The socket is made in a private directory and moved when its permissions are right: at its
        // final path nobody ever sees it with others. The move also replaces a stale socket atomically.
        let staging = path.with_file_name(format!(".s{}", std::process::id()));
        let staged = staging.join("s");
        let length = path.as_os_str().len().max(staged.as_os_str().len());
        if length > MAX_SOCKET_PATH_BYTES {
            return Err(SocketError::TooLong { path: path.to_owned(), length });
        }
        refuse_occupied(path).await?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let _ = fs::remove_dir_all(&staging);
        DirBuilder::new().mode(0o700).create(&staging).map_err(io)?;
        let made = stage(&staged, path, group);
        let _ = fs::remove_dir_all(&staging);
        made.map_err(io)
    }

    /// The listener.
    #[must_use]
    pub const fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Only the own file: a successor may have taken the path already.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn stage(staged: &Path, path: &Path, group: Option<u32>) -> io::Result<UnixSocket> {
    let listener = UnixListener::bind(staged)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    chown(staged, None, group)?;
    fs::set_permissions(staged, Permissions::from_mode(mode))?;
    let inode = fs::symlink_metadata(staged)?.ino();
    fs::rename(staged, path)?;
    Ok(UnixSocket { listener, path: path.to_owned(), inode })
}

async fn refuse_occupied(path: &Path) -> Result<(), SocketError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::Occupied(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(_) => Ok(()),
    }
}
