//! Acknowledged writes survive a power cut, proved on a file system whose journal is cut off.
//!
//! ext4 on a loop device takes `EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`: from then on nothing that was not
//! forced to the device before reaches it, exactly as when the power fails. sled's own flush loses
//! acknowledged writes here in every run; with our fdatasync none may be lost.
//!
//! The test needs root and runs itself again as the writer that is cut off. It says when it skips, and
//! fails instead when `SELVEDGE_REQUIRE_KERNEL=1`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use selvedge_fabric::key::TokenId;
use tempfile::TempDir;

use crate::{
    damage::open,
    fabric::{self, holds},
    virtual_net::key,
};

/// How often the power is cut, unless `SELVEDGE_POWER_CUTS` says otherwise.
const CUTS: u64 = 20;
const IMAGE_BYTES: u64 = 192 * 1024 * 1024;
/// `_IOR('X', 125, __u32)`, and the flag that leaves the journal unflushed.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
static NOLOGFLUSH: u32 = 2;
/// Tells the second process to be the writer, and where.
const WRITER: &str = "SELVEDGE_TEST_WRITER_DIR";

pub(crate) fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(command).args(arguments).output().map_err(|e| format!("{command}: {e}"))?;
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    done.status.success().then_some(()).ok_or_else(|| format!("{command} {arguments:?}: {text}"))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Says that a test that needs root is left out; fails where that must not be.
pub(crate) fn skip(why: &str) {
    let required = std::env::var("SELVEDGE_REQUIRE_KERNEL").is_ok_and(|v| v == "1");
    assert!(!required, "SELVEDGE_REQUIRE_KERNEL=1, and no file system can be made: {why}");
    eprintln!("SKIPPED: needs root, mount, mkfs.ext4 and a loop device ({why})");
}

/// A mounted ext4 image; unmounted and detached when dropped, whatever happened.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn make(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("disk.img"), mount: dir.join("mnt") };
        let file = fs::File::create(&disk.image).map_err(|e| e.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|e| e.to_string())?;
        fs::create_dir(&disk.mount).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", text(&disk.image)])?;
        disk.mount()?;
        Ok(disk)
    }

    /// `-o loop` detaches the loop device with the unmount.
    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.image), text(&self.mount)])
    }

    fn unmount(&self) -> Result<(), String> {
        let once = || run("umount", &[text(&self.mount)]);
        once().or_else(|_| {
            std::thread::sleep(Duration::from_secs(1));
            once()
        })
    }

    #[expect(unsafe_code, reason = "there is no safe wrapper of this ioctl")]
    fn cut_power(&self) {
        let dir = fs::File::open(&self.mount).expect("the mount point");
        // SAFETY: the ioctl reads one u32 from the pointer, which outlives the call.
        let done = unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const NOLOGFLUSH) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            let _ = run("umount", &["-l", text(&self.mount)]);
            eprintln!("unmounted lazily: {error}");
        }
    }
}

fn cuts() -> u64 {
    std::env::var("SELVEDGE_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS)
}

/// Id of the `n`th write of a cut.
fn id(cut: u64, n: u64) -> TokenId {
    let mut bytes = [0; 9];
    bytes[..4].copy_from_slice(&u32::try_from(cut).expect("few cuts").to_be_bytes());
    bytes[4..8].copy_from_slice(&u32::try_from(n).expect("few writes").to_be_bytes());
    TokenId(bytes)
}

/// Writes until it is killed, and prints the number of each acknowledged write.
async fn write_until_killed(dir: &Path, cut: u64) {
    let replica = open(dir, "p1").await.expect("opens");
    if replica.policy().borrow().params.is_none() {
        replica.bootstrap(fabric::init("p1", "aws", key("p1"))).await.expect("a fabric");
    }
    for n in 1.. {
        let written = replica.propose(fabric::write(id(cut, n)), Duration::from_secs(20)).await;
        if written.is_err() {
            return;
        }
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "acknowledged {n}").and_then(|()| out.flush());
    }
}

fn spawn_writer(dir: &Path, cut: u64) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "power_cut::acknowledged_writes_survive_power_cuts", "--nocapture"])
        .env(WRITER, format!("{}:{cut}", text(dir)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a second process")
}

/// Lets the writer work for a while, cuts the power, and returns how many writes it acknowledged
/// before that.
fn write_and_cut(disk: &Disk, dir: &Path, cut: u64) -> u64 {
    let mut writer = spawn_writer(dir, cut);
    let out = BufReader::new(writer.stdout.take().expect("piped"));
    let mut lines = out.lines().map_while(Result::ok);
    let number = |line: String| line.strip_prefix("acknowledged ").and_then(|n| n.parse().ok());
    // A different number of writes before each cut.
    let wanted = 3 + cut * 7 % 40;
    let mut last = lines.by_ref().filter_map(number).find(|n| *n >= wanted).unwrap_or(0);
    disk.cut_power();
    writer.kill().expect("it runs");
    writer.wait().expect("it ends");
    // What it printed before the cut, or in the moment after; the latter it must not have claimed.
    last = lines.filter_map(number).fold(last, u64::max);
    last
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Ok(place) = std::env::var(WRITER) {
        let (dir, cut) = place.rsplit_once(':').expect("a directory and a number");
        return runtime.block_on(write_until_killed(Path::new(dir), cut.parse().expect("a number")));
    }
    let scratch = TempDir::new().expect("a directory");
    let disk = match Disk::make(scratch.path()) {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let dir = disk.mount.join("replica");
    let mut acknowledged = Vec::new();
    let cuts = cuts();
    for cut in 0..cuts {
        acknowledged.push(write_and_cut(&disk, &dir, cut));
        disk.unmount().expect("unmounts");
        disk.mount().expect("mounts again");
        runtime.block_on(async {
            let replica = open(&dir, "p1").await.expect("opens after the cut");
            replica.barrier(Duration::from_secs(20)).await.expect("leads");
            let policy = replica.policy().borrow().clone();
            for (cut, count) in acknowledged.iter().enumerate() {
                let lost = (1..=*count).filter(|n| !holds(&policy, id(cut as u64, *n))).count();
                assert_eq!(lost, 0, "of {count} writes acknowledged before cut {cut}");
            }
            replica.shutdown().await;
        });
    }
    let total: u64 = acknowledged.iter().sum();
    assert!(total >= cuts * 3, "the writer hardly wrote: {acknowledged:?}");
    println!("{cuts} power cuts, {total} acknowledged writes, none lost");
}
