//! The page that says which tables hold.
#![allow(unsafe_code, reason = "a map of the kernel is mapped into memory")]

use std::{
    io,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use selvedge_abi::layout::{ABI_VERSION, Control};

/// The map `CONTROL` in memory: written with single stores, so that no packet reads half a word. A write
/// through bpf(2) is a `memcpy` that promises no such thing.
#[derive(Debug)]
pub(super) struct ControlPage {
    control: NonNull<Control>,
}

// SAFETY: every access is atomic; the mapping stays until drop.
unsafe impl Send for ControlPage {}
// SAFETY: as above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes; the map is `BPF_F_MMAPABLE` and holds one `Control`.
        let page = unsafe {
            mmap(std::ptr::null_mut(), size_of::<Control>(), protection, MapFlags::SHARED, map.as_fd(), 0)
        }?;
        let control = NonNull::new(page.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { control })
    }

    fn word(&self, word: *mut u64) -> &AtomicU64 {
        // SAFETY: an aligned word of the mapping, which lives as long as `self`; the kernel only reads it.
        unsafe { AtomicU64::from_ptr(word) }
    }

    fn generation_word(&self) -> &AtomicU64 {
        // SAFETY: within the mapping.
        self.word(unsafe { &raw mut (*self.control.as_ptr()).generation })
    }

    /// The generation in force; 0 for none.
    pub(super) fn generation(&self) -> u64 {
        self.generation_word().load(Ordering::Acquire)
    }

    /// Puts a generation in force, for every packet from now on.
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation_word().store(generation, Ordering::Release);
    }

    /// The revision of the tables in a slot: 0 or 1.
    pub(super) fn revision(&self, slot: u32) -> u64 {
        self.revision_word(slot).load(Ordering::Acquire)
    }

    pub(super) fn set_revision(&self, slot: u32, revision: u64) {
        self.revision_word(slot).store(revision, Ordering::Release);
    }

    /// Says by which interface packets of other nodes arrive; 0 for none.
    pub(super) fn set_carrier(&self, index: u32) {
        // SAFETY: an aligned word of the mapping.
        let carrier = unsafe { AtomicU32::from_ptr(&raw mut (*self.control.as_ptr()).carrier) };
        carrier.store(index, Ordering::Release);
    }

    fn revision_word(&self, slot: u32) -> &AtomicU64 {
        // SAFETY: within the mapping, whatever the number.
        self.word(unsafe { &raw mut (*self.control.as_ptr()).revisions[(slot & 1) as usize] })
    }

    /// Which version made the maps; this one, when nobody has said so yet.
    pub(super) fn abi(&self) -> u32 {
        // SAFETY: an aligned word of the mapping.
        let abi = unsafe { AtomicU32::from_ptr(&raw mut (*self.control.as_ptr()).abi) };
        match abi.compare_exchange(0, ABI_VERSION, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => ABI_VERSION,
            Err(found) => found,
        }
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; nobody refers to it any more.
        let _ = unsafe { munmap(self.control.as_ptr().cast(), size_of::<Control>()) };
    }
}
