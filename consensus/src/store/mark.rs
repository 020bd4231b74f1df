//! A counter of syncs, outside the database, that catches a database that forgets.
//!
//! sled takes the first damaged message of its log for the end of it: bytes that rot there make it open
//! happily with an older state, and the replica would forget votes and entries it acknowledged. So
//! every sync counts one up, first inside the database and, once that is durable, here. A database
//! whose own count is lower has lost something.
//!
//! The mark itself is never synced: it is written after the database is, so whenever it reaches the
//! disk it tells no more than the truth. After a power cut it may be some seconds old, after a killed
//! process it is exact.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// The file, beside the database.
const FILE: &str = "mark";
/// The count and its complement; within one sector, so never half written.
const BYTES: usize = 16;

pub(super) struct Mark(File);

impl Mark {
    /// Makes the file of a new replica, durably.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mark = Self(file);
        mark.set(0)?;
        mark.0.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(mark)
    }

    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(dir.join(FILE))?))
    }

    pub(super) fn set(&self, count: u64) -> io::Result<()> {
        let both = [count.to_be_bytes(), (!count).to_be_bytes()].concat();
        self.0.write_all_at(&both, 0)
    }

    /// The count; an error when the file is damaged.
    pub(super) fn get(&self) -> io::Result<u64> {
        let mut both = [0; BYTES];
        self.0.read_exact_at(&mut both, 0)?;
        let (count, complement) = both.split_at(BYTES / 2);
        let read = |half: &[u8]| half.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        if read(count) == !read(complement) {
            Ok(read(count))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the sync mark is damaged"))
        }
    }
}
