//! What the kernel offers.

use std::{fs::OpenOptions, path::Path};

use super::{Check, read};

/// Oldest kernel with TCX, by which programs attach to network devices.
const TCX_SINCE: (u32, u32) = (6, 6);
/// Oldest kernel that a node is tried on.
const OLDEST: (u32, u32) = (5, 10);
/// Bits of capabilities in `/proc/self/status` (capabilities(7)).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

pub(super) fn version() -> Check {
    let release = read("/proc/sys/kernel/osrelease");
    let version = parse_version(&release);
    let detail = match version {
        Some(v) if v >= TCX_SINCE => release,
        Some(v) if v >= OLDEST => format!("{release}: no packet enforcement, that takes 6.6"),
        _ => format!("{release:?} is older than 5.10"),
    };
    Check::new("kernel", version.is_some_and(|v| v >= OLDEST), detail, "run Linux 6.6 or newer").required()
}

/// What real packets lack here, if anything.
pub(crate) fn lacks_for_packets() -> Option<String> {
    let release = read("/proc/sys/kernel/osrelease");
    if parse_version(&release).is_none_or(|version| version < TCX_SINCE) {
        return Some(format!("packet enforcement takes Linux 6.6, this is {release}"));
    }
    (!bpf().ok).then(|| "this user may not load eBPF programs, although root".to_owned())
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn bpf() -> Check {
    let status = read("/proc/self/status");
    let capable = [CAP_BPF, CAP_SYS_ADMIN].iter().any(|bit| has_capability(&status, *bit));
    let detail = if capable { "this user may load programs" } else { "this user may not load programs" };
    let remedy =
        "for packet enforcement run the node as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
    Check::new("bpf", capable, detail, remedy)
}

fn has_capability(status: &str, bit: u32) -> bool {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let set = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0);
    set >> bit & 1 == 1
}

pub(super) fn btf() -> Check {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    let detail = if there { "/sys/kernel/btf/vmlinux" } else { "no /sys/kernel/btf/vmlinux" };
    Check::new("btf", there, detail, "for packet enforcement use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
}

pub(super) fn bpffs() -> Check {
    let mounted = mount_of(&read("/proc/mounts"), "bpf");
    let detail = mounted.clone().unwrap_or_else(|| "no bpffs is mounted".to_owned());
    let remedy = "for packet enforcement: mount -t bpf bpf /sys/fs/bpf";
    Check::new("bpffs", mounted.is_some(), detail, remedy)
}

pub(super) fn cgroup2() -> Check {
    let mounted = mount_of(&read("/proc/mounts"), "cgroup2");
    let detail = mounted.clone().unwrap_or_else(|| "no cgroup2 is mounted".to_owned());
    let remedy = "for `selvedge run`: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1";
    Check::new("cgroup2", mounted.is_some(), detail, remedy)
}

/// Where the first file system of this type is mounted.
fn mount_of(mounts: &str, kind: &str) -> Option<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.into_iter().find(|f| f.get(2) == Some(&kind)).and_then(|f| f.get(1).map(|at| (*at).to_owned()))
}

pub(super) fn tun() -> Check {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let detail = match &opened {
        Ok(_) => "/dev/net/tun opens".to_owned(),
        Err(error) => format!("/dev/net/tun: {error}"),
    };
    Check::new("tun", opened.is_ok(), detail, "for the overlay: modprobe tun, and run the node as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse_version("6.12.90+deb13-amd64"), Some((6, 12)));
        assert_eq!(parse_version("5.10"), Some((5, 10)));
        assert_eq!(parse_version("unknown"), None);
    }

    #[test]
    fn capabilities_and_mounts_are_read() {
        let status = "Name:\tx\nCapEff:\t0000008000000000\n";
        assert!(has_capability(status, CAP_BPF) && !has_capability(status, CAP_SYS_ADMIN));
        assert!(!has_capability("", CAP_BPF));
        let mounts = "proc /proc proc rw 0 0\nnone /sys/fs/bpf bpf rw 0 0\n";
        assert_eq!(mount_of(mounts, "bpf").as_deref(), Some("/sys/fs/bpf"));
        assert_eq!(mount_of(mounts, "cgroup2"), None);
    }
}
