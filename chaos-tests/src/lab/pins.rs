//! What somebody with root can do to pinned BPF links.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

const BPF_FS: &str = "/sys/fs/bpf";
/// Commands of bpf(2), linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The pinned links of interfaces, in order.
///
/// # Errors
/// When the BPF file system cannot be read.
pub fn links() -> io::Result<Vec<PathBuf>> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("if-"));
    Ok(pins()?.into_iter().filter(named).collect())
}

/// The directory of the pinned maps of the only node.
///
/// # Errors
/// When there is none.
pub fn maps() -> io::Result<PathBuf> {
    let control = pins()?.into_iter().find(|path| path.ends_with("CONTROL"));
    let directory = control.and_then(|path| Some(path.parent()?.to_owned()));
    directory.ok_or_else(|| io::Error::other("no pinned maps"))
}

fn pins() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(BPF_FS)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Takes the program of a pinned link from its interface; the pin stays.
///
/// # Errors
/// When the kernel refuses.
pub fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let link = bpf(BPF_OBJ_GET, [path.as_ptr() as u64, 0])?;
    #[allow(unsafe_code, reason = "bpf(2) gives descriptors as numbers")]
    // SAFETY: the kernel has just made this descriptor for us alone; descriptors fit an i32.
    let link = unsafe { OwnedFd::from_raw_fd(link as i32) };
    bpf(BPF_LINK_DETACH, [u64::from(link.as_raw_fd().unsigned_abs()), 0]).map(drop)
}

#[allow(unsafe_code, reason = "no safe interface to bpf(2) detaches a link of another process")]
fn bpf(command: libc::c_long, attributes: [u64; 2]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes live for the call; the one pointer in them, a path, does too, by the caller.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
