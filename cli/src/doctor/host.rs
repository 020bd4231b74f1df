//! Clock, name resolution, limits, data directory.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{Check, read};

/// Open files that a node with hundreds of peers needs.
const GOOD_OPEN_FILES: u64 = 4096;
/// How far in the future a file may seem to be made before the clock is doubted.
const CLOCK_DOUBT: Duration = Duration::from_secs(60);

/// A clock that lies before the making of this very program is wrong: certificates would not be valid yet.
pub(super) fn clock() -> Check {
    let made = std::env::current_exe().and_then(|exe| exe.metadata()).and_then(|m| m.modified());
    let wrong = made.is_ok_and(|made| made > SystemTime::now() + CLOCK_DOUBT);
    let keepers = [
        "/run/systemd/timesync/synchronized",
        "/run/chrony/chronyd.pid",
        "/run/chronyd.pid",
        "/run/ntpd.pid",
        "/var/run/ntpd.pid",
    ];
    let kept = keepers.iter().find(|path| Path::new(path).exists());
    let detail = match (wrong, kept) {
        (true, _) => "lies before the making of this program".to_owned(),
        (false, Some(by)) => format!("plausible, kept by {by}"),
        (false, None) => "plausible; no time service is seen here".to_owned(),
    };
    Check::new("clock", !wrong, detail, "set the clock and run a time service: timedatectl set-ntp true")
        .required()
}

pub(super) fn resolver() -> Check {
    let servers = nameservers(&read("/etc/resolv.conf"));
    let stub = servers.iter().any(|s| s == "127.0.0.53");
    let detail = match servers.is_empty() {
        true => "no nameserver in /etc/resolv.conf".to_owned(),
        false if stub => format!("systemd-resolved, {}", servers.join(", ")),
        false => servers.join(", "),
    };
    let remedy = "name a resolver in /etc/resolv.conf; the node forwards other names to the upstreams of its configuration";
    Check::new("resolver", !servers.is_empty(), detail, remedy)
}

fn nameservers(text: &str) -> Vec<String> {
    let words = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver"));
    words.filter_map(|w| w.split_whitespace().next()).map(str::to_owned).collect()
}

pub(super) fn open_files() -> Check {
    let limit = soft_limit(&read("/proc/self/limits"), "Max open files");
    let detail = limit.map_or("unlimited".to_owned(), |n| format!("{n} at once"));
    let ok = limit.is_none_or(|n| n >= GOOD_OPEN_FILES);
    Check::new("open-files", ok, detail, "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit")
}

fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

pub(super) fn data_dir(path: &Path) -> Check {
    let shown = path.display();
    let Ok(metadata) = path.metadata() else {
        return Check::new(
            "data-dir",
            true,
            format!("{shown} is not there yet: made at the first start"),
            "",
        );
    };
    let mode = metadata.mode() & 0o777;
    let (ok, detail) = match (metadata.is_dir(), mode & 0o077) {
        (false, _) => (false, format!("{shown} is no directory")),
        (true, 0) => (true, format!("{shown}, mode {mode:03o}, owner {}", metadata.uid())),
        (true, _) => (false, format!("{shown} has mode {mode:03o}: others can look at keys")),
    };
    Check::new("data-dir", ok, detail, format!("chmod 700 {shown}")).required()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn system_files_are_read() {
        assert_eq!(
            nameservers("# x\nnameserver 10.0.0.1\n nameserver  ::1 \nsearch a\n"),
            ["10.0.0.1", "::1"]
        );
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit("Max open files unlimited unlimited files", "Max open files"), None);
    }

    #[test]
    fn an_open_data_directory_is_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode));
        mode(0o755).expect("chmod");
        let check = data_dir(dir.path());
        assert!(!check.ok && check.required && check.remedy.starts_with("chmod 700"));
        mode(0o700).expect("chmod");
        assert!(data_dir(dir.path()).ok);
    }
}
