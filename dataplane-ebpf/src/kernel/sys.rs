//! The few commands of bpf(2) that are called directly: links and pins are plain descriptors here, for
//! every kind of hook alike.
#![allow(unsafe_code, reason = "system calls")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::net::{AddressFamily, SocketType, socket};

use super::raw::Layout;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// Before every other program of the hook.
const BPF_F_BEFORE: u32 = 1 << 3;
/// Most entries that are put into a map by one system call; a signal waits that long.
const BATCH: usize = 1 << 14;
/// Most programs of one hook (`BPF_MPROG_MAX` of the kernel).
const MAX_HOOK_PROGRAMS: usize = 64;

/// Where in a hook's list of attach types (`enum bpf_attach_type`) a program goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub(super) enum AttachType {
    GroupIngress = 0,
    GroupEgress = 1,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// `union bpf_attr`, large enough for every command used here.
#[repr(C, align(8))]
struct Attr([u32; 20]);

impl Attr {
    const fn new() -> Self {
        Self([0; 20])
    }

    const fn word(mut self, offset: usize, value: u32) -> Self {
        self.0[offset / 4] = value;
        self
    }

    fn pointer<T: ?Sized>(self, offset: usize, pointer: *const T) -> Self {
        let address = pointer.cast::<u8>() as u64;
        let bytes = address.to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        let first = u32::from_ne_bytes([a, b, c, d]);
        let second = u32::from_ne_bytes([e, f, g, h]);
        self.word(offset, first).word(offset + 4, second)
    }

    fn descriptor(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        self.word(offset, fd.as_raw_fd().cast_unsigned())
    }

    /// # Safety
    /// Every pointer in the attributes must be good for what the command does with it.
    unsafe fn call(&mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        // SAFETY: the attributes live and are as long as is said; the rest is the caller's.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of::<Self>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    /// # Safety
    /// As for [`Attr::call`]; the command must return a new descriptor.
    unsafe fn open(&mut self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: the caller's.
        let fd = unsafe { self.call(command) }?;
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn path_text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Pins a map, program or link.
pub(super) fn pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let text = path_text(path)?;
    // SAFETY: the path outlives the call.
    unsafe { Attr::new().pointer(0, text.as_ptr()).descriptor(8, fd.as_fd()).call(BPF_OBJ_PIN) }.map(drop)
}

/// Opens what is pinned.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let text = path_text(path)?;
    // SAFETY: the path outlives the call.
    unsafe { Attr::new().pointer(0, text.as_ptr()).open(BPF_OBJ_GET) }
}

/// What a map is made like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making {
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    /// `BPF_F_…`.
    pub(super) flags: u32,
}

/// Makes a map of keys and values of these types.
pub(super) fn create_map<K, V>(making: Making, entries: usize) -> io::Result<OwnedFd> {
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let attr = Attr::new().word(0, making.kind).word(4, size(size_of::<K>())?).word(8, size(size_of::<V>())?);
    // An empty map is not allowed.
    let mut attr = attr.word(12, size(entries.max(1))?).word(16, making.flags);
    // SAFETY: no pointers.
    unsafe { attr.open(BPF_MAP_CREATE) }
}

/// Puts entries into a map made by [`create_map`] with the same types.
pub(super) fn fill_map<K: Layout, V: Layout>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        let count = u32::try_from(keys.len().min(values.len())).map_err(io::Error::other)?;
        let attr = Attr::new().pointer(16, keys.as_ptr()).pointer(24, values.as_ptr());
        // SAFETY: both slices outlive the call and hold as many entries as is said, of the map's sizes.
        unsafe { attr.word(32, count).descriptor(36, map).call(BPF_MAP_UPDATE_BATCH) }?;
    }
    Ok(())
}

/// Puts a map into a place of an array of maps.
pub(super) fn set_inner(outer: BorrowedFd<'_>, place: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let value = inner.as_raw_fd();
    let attr = Attr::new().descriptor(0, outer).pointer(8, &raw const place).pointer(16, &raw const value);
    // SAFETY: key and value outlive the call and are of the sizes of the map.
    unsafe { { attr }.call(BPF_MAP_UPDATE_ELEM) }.map(drop)
}

/// Takes the map out of a place of an array of maps; that there is none is fine.
pub(super) fn clear_inner(outer: BorrowedFd<'_>, place: u32) -> io::Result<()> {
    let attr = Attr::new().descriptor(0, outer).pointer(8, &raw const place);
    // SAFETY: the key outlives the call and is of the size of the map's.
    match unsafe { { attr }.call(BPF_MAP_DELETE_ELEM) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Attaches a program to an interface, before every other program there.
pub(super) fn link_interface(program: BorrowedFd<'_>, ifindex: u32, at: AttachType) -> io::Result<OwnedFd> {
    let attr = Attr::new().descriptor(0, program).word(4, ifindex).word(8, at as u32);
    // SAFETY: no pointers.
    unsafe { attr.word(12, BPF_F_BEFORE).open(BPF_LINK_CREATE) }
}

/// Attaches a program to a control group, given its directory, beside those of others.
pub(super) fn link_group(
    program: BorrowedFd<'_>,
    group: BorrowedFd<'_>,
    at: AttachType,
) -> io::Result<OwnedFd> {
    let attr = Attr::new().descriptor(0, program).descriptor(4, group).word(8, at as u32);
    // SAFETY: no pointers.
    unsafe { { attr }.open(BPF_LINK_CREATE) }
}

/// Puts another program in the place of a link's, between two packets.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { Attr::new().descriptor(0, link).descriptor(4, program).call(BPF_LINK_UPDATE) }.map(drop)
}

/// Detaches a link's program now, rather than some time after the last descriptor is closed. That it is
/// detached already is fine.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { Attr::new().descriptor(0, link).call(BPF_LINK_DETACH) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        _ => Ok(()),
    }
}

/// What the kernel says of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The program.
    pub(super) program: u32,
    /// The interface, or the number of the group; 0 once the link is defunct.
    pub(super) target: u64,
}

/// `struct bpf_link_info`, as far as it is read.
#[repr(C, align(8))]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    zero: u32,
    union: [u64; 6],
}

/// `BPF_LINK_TYPE_TCX`.
const LINK_TYPE_TCX: u32 = 11;

/// Asks for it.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut raw = RawLinkInfo::default();
    let length = u32::try_from(size_of::<RawLinkInfo>()).map_err(io::Error::other)?;
    let attr = Attr::new().descriptor(0, link).word(4, length);
    // SAFETY: the buffer outlives the call and is as long as is said.
    unsafe { attr.pointer(8, &raw mut raw).call(BPF_OBJ_GET_INFO_BY_FD) }?;
    let target = if raw.kind == LINK_TYPE_TCX { raw.union[0] & u64::from(u32::MAX) } else { raw.union[0] };
    Ok(LinkInfo { program: raw.program, target })
}

/// The programs at an interface, in the order in which they run.
pub(super) fn programs_at(ifindex: u32, at: AttachType) -> io::Result<Vec<u32>> {
    let mut programs = vec![0u32; MAX_HOOK_PROGRAMS];
    let attr = Attr::new().word(0, ifindex).word(4, at as u32).pointer(16, programs.as_mut_ptr());
    let mut attr = attr.word(24, u32::try_from(programs.len()).map_err(io::Error::other)?);
    // SAFETY: the list outlives the call and is as long as is said.
    unsafe { attr.call(BPF_PROG_QUERY) }?;
    programs.truncate(attr.0[6] as usize);
    Ok(programs)
}

/// Bytes of `struct __sk_buff`, and where in it the interface and the first word of `cb` are.
const SKB_BYTES: usize = 192;
const SKB_IFINDEX: usize = 40;
const SKB_CB: usize = 48;

/// Runs a classifier on a frame as if it had passed an interface; returns its result and the first word
/// of `cb`.
pub(super) fn run_classifier(
    program: BorrowedFd<'_>,
    ifindex: u32,
    frame: &[u8],
    repeat: u32,
) -> io::Result<(u32, u32)> {
    let mut context_in = [0u32; SKB_BYTES / 4];
    context_in[SKB_IFINDEX / 4] = ifindex;
    let mut context_out = [0u32; SKB_BYTES / 4];
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let attr = Attr::new().descriptor(0, program).word(8, size(frame.len())?).pointer(16, frame.as_ptr());
    let attr = attr.word(32, repeat).word(40, size(SKB_BYTES)?).word(44, size(SKB_BYTES)?);
    let mut attr = attr.pointer(48, &raw const context_in).pointer(56, &raw mut context_out);
    // SAFETY: the buffers outlive the call and are as long as is said.
    unsafe { attr.call(BPF_PROG_TEST_RUN) }?;
    Ok((attr.0[1], context_out[SKB_CB / 4]))
}

/// `SO_NETNS_COOKIE`.
const NETNS_COOKIE: libc::c_int = 71;

/// The number of this thread's network namespace, which no other one ever has; 0 when the kernel does not
/// tell.
pub(super) fn network_namespace() -> u64 {
    let Ok(probe) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return 0 };
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    let (value, size) = ((&raw mut cookie).cast(), &raw mut length);
    // SAFETY: the value outlives the call and is as long as is said.
    let done = unsafe { libc::getsockopt(probe.as_raw_fd(), libc::SOL_SOCKET, NETNS_COOKIE, value, size) };
    if done == 0 { cookie } else { 0 }
}
