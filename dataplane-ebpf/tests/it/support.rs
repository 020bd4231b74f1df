//! What the tests share: random numbers, tables, a place apart.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    thread,
};

use selvedge_dataplane::{
    Dataplane, Options, Workload,
    abi::{Class, EdgeKey, Groups, Identity, Mode, Range, Reason},
};
use selvedge_fabric::{
    compile::{Member, VerdictTables},
    id::ServiceRef,
    key::Hash,
    plan::{Bound, Plan, Zone},
};

/// Services of the generated fabrics are numbered from 1 to this.
pub(crate) const SERVICES: u32 = 12;
/// The workload under test is this one.
pub(crate) const ME: u32 = 1;
/// The loopback interface of every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// Runs a test that needs root with a network and mounts of its own, on a thread of its own. Without root it
/// says so, which `SELVEDGE_REQUIRE_KERNEL=1` forbids.
pub(crate) fn in_kernel(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var("SELVEDGE_REQUIRE_KERNEL").is_ok_and(|v| v == "1");
        assert!(!required, "SELVEDGE_REQUIRE_KERNEL=1, but this test needs root and has it not");
        eprintln!("SKIPPED: this test loads eBPF programs, which needs root");
        return;
    }
    let within = move || {
        enter_new_namespace();
        test();
    };
    if let Err(panic) = thread::spawn(within).join() {
        std::panic::resume_unwind(panic);
    }
}

#[allow(unsafe_code, reason = "a thread takes leave of its namespaces")]
fn enter_new_namespace() {
    use rustix::{
        mount::{MountPropagationFlags, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    // SAFETY: unsound only with `UnshareFlags::FILES`.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
}

/// A data plane without pins.
pub(crate) fn unpinned() -> Dataplane {
    Dataplane::open(&Options { name: "test".to_owned(), pins: None }).unwrap()
}

/// xorshift64*: small, and the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A seed: `SELVEDGE_SEED`, or the time. Printed, so that a failure can be had again.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SELVEDGE_SEED").ok().and_then(|text| text.parse().ok());
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = given.unwrap_or_else(now);
    eprintln!("SELVEDGE_SEED={seed}");
    seed
}

/// The IPv4 address of a service's only endpoint.
pub(crate) fn ipv4(service: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, service as u8)
}

/// The IPv6 address of a service's only endpoint.
pub(crate) fn ipv6(service: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, service as u16)
}

pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The workload under test.
pub(crate) fn me() -> Workload {
    workload(ME)
}

pub(crate) fn workload(service: u32) -> Workload {
    Workload {
        identity: Identity(service),
        ipv4: Some(ipv4(service)),
        ipv6: Some(ipv6(service)),
        gateway_ipv4: Some(GATEWAY4),
        gateway_ipv6: Some(GATEWAY6),
        api_port: selvedge_dataplane::DEFAULT_API_PORT,
        probes: false,
    }
}

/// A plan with every service's endpoint and no contracts.
pub(crate) fn bare_plan(revision: u64) -> Plan {
    let mut verdicts = VerdictTables::default();
    let mut identities = BTreeMap::new();
    for id in 1..=SERVICES {
        let service: ServiceRef = format!("s{id}@test").parse().unwrap();
        let identity = Identity(id);
        verdicts.members.insert(identity, Member { service: service.clone(), groups: Groups::default() });
        let bound = Bound {
            service,
            identity,
            endpoint: selvedge_fabric::id::EndpointId::new(&format!("e{id}")).unwrap(),
            node: "n".parse().unwrap(),
        };
        identities.insert(IpAddr::V4(ipv4(id)), bound.clone());
        identities.insert(IpAddr::V6(ipv6(id)), bound);
    }
    let ranges = vec![(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 24), ("fd00::".parse().unwrap(), 48)];
    Plan {
        revision,
        hash: Hash::of(b""),
        generation: 1,
        at_ms: 0,
        verdicts: Arc::new(verdicts),
        identities,
        networks: BTreeMap::new(),
        routing: Arc::default(),
        zone: Zone { ranges, ..Zone::default() },
        alarms: Vec::new(),
        whole: true,
        next_deadline_ms: None,
    }
}

/// Allows one service to open flows to another on ports.
pub(crate) fn allow(plan: &mut Plan, from: u32, to: u32, class: Class, low: u16, high: u16) {
    let range = Range::new(low, high, Reason::Contract, Mode::Enforce, 1);
    let verdicts = Arc::make_mut(&mut plan.verdicts);
    verdicts.contracts.entry(EdgeKey::new(from, to, class)).or_default().push(range);
}

/// Ports that packets and tables of the differential test share, so that they meet.
pub(crate) const PORTS: [u16; 10] = [0, 22, 53, 80, 443, 1000, 5432, 5500, 40_000, 65_535];

/// Networks that externals may have, some of them within the fabric's own ranges.
const NETWORKS: [(&str, u8); 8] = [
    ("0.0.0.0", 0),
    ("192.0.2.0", 24),
    ("192.0.2.9", 32),
    ("10.0.0.0", 16),
    ("10.0.0.200", 32),
    ("::", 0),
    ("fd00::", 48),
    ("fd00::", 16),
];

/// A plan with random verdicts.
pub(crate) fn random_plan(revision: u64, rng: &mut Rng) -> Plan {
    let mut plan = bare_plan(revision);
    for _ in 0..rng.below(4) {
        // Vanished endpoints.
        let id = rng.below(SERVICES as usize) as u32 + 1;
        plan.identities.remove(&IpAddr::V4(ipv4(id)));
    }
    for (text, bits) in NETWORKS {
        if rng.chance(2) {
            let id = Identity(rng.below(SERVICES as usize) as u32 + 1);
            plan.networks.insert((text.parse().unwrap(), bits), id);
        }
    }
    let verdicts = Arc::make_mut(&mut plan.verdicts);
    for member in verdicts.members.values_mut() {
        member.groups = Groups { source: rng.below(3) as u32, destination: rng.below(3) as u32 };
    }
    if rng.chance(3) {
        verdicts.members.remove(&Identity(rng.below(SERVICES as usize) as u32 + 1));
    }
    for _ in 0..6 {
        let key = EdgeKey::new(rng.below(3) as u32, rng.below(3) as u32, rng.of(&Class::ALL));
        let reasons = [Reason::GuardrailDeny, Reason::GuardrailAllow];
        verdicts.guardrails.insert(key, random_ranges(rng, &reasons));
    }
    for _ in 0..120 {
        let other = rng.below(SERVICES as usize) as u32 + 1;
        let (from, to) = if rng.chance(2) { (ME, other) } else { (other, ME) };
        let reasons = [Reason::Contract, Reason::Contract, Reason::Audited, Reason::Learned];
        verdicts.contracts.insert(EdgeKey::new(from, to, rng.of(&Class::ALL)), random_ranges(rng, &reasons));
    }
    plan
}

fn random_ranges(rng: &mut Rng, reasons: &[Reason]) -> Vec<Range> {
    if rng.chance(4) {
        return vec![Range::new(0, u16::MAX, rng.of(reasons), Mode::Enforce, 7)];
    }
    let most = if rng.chance(8) { 64 } else { 4 };
    let mut bounds: Vec<u16> = (0..=rng.below(most) * 2 + 1)
        .map(|_| if rng.chance(2) { rng.of(&PORTS) } else { rng.next() as u16 })
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let modes = [Mode::Enforce, Mode::Audit, Mode::Learn];
    let range =
        |pair: &[u16]| Range::new(pair[0], pair[1], rng.of(reasons), rng.of(&modes), rng.next() as u32);
    bounds.chunks_exact(2).map(range).collect()
}
