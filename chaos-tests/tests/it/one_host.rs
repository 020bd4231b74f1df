//! Two machines of the founding documents on one host: every packet is decided by identity.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::ensure;
use selvedge_chaos_tests::lab::{
    PATIENCE, ask, dns, eventually,
    founder::Founder,
    kernel::{Own, with_own},
    shop,
    workload::{Probe, Workload},
};

/// MachineA serves port 80 to everyone in the domain, MachineB serves port 5342 to MachineA only.
fn graph() -> String {
    let services = [
        ("machine-a", "server:front, client:back"),
        ("machine-b", "server:back, client:front"),
        ("machine-c", "client:front"),
    ];
    shop(&[("front", "tcp/80"), ("back", "tcp/5342")], &services)
}

const PROBES: [Probe; 5] = [Probe::Tcp(80), Probe::Tcp(5342), Probe::Udp(80), Probe::Udp(5342), Probe::Icmp];
/// Long enough for a packet that may pass, on a busy machine, and short enough to wait for all that may not.
const SILENCE: Duration = Duration::from_millis(700);

/// What may pass.
fn is_allowed(from: &str, to: &str, probe: Probe) -> bool {
    match to {
        "a" => matches!(from, "b" | "c") && probe == Probe::Tcp(80),
        "b" => from == "a" && probe == Probe::Tcp(5342),
        _ => false,
    }
}

fn machines(founder: &Founder) -> anyhow::Result<Vec<Workload>> {
    let mut machines = Vec::new();
    for (name, ports) in [("a", vec!["tcp/80"]), ("b", vec!["tcp/5342"]), ("c", vec![])] {
        let mut machine = founder.workload(name, &format!("machine-{name}@shop"), &ports)?;
        for port in [80, 5342] {
            machine.serve(port)?;
        }
        machines.push(machine);
    }
    Ok(machines)
}

fn check_matrix(machines: &[Workload]) -> anyhow::Result<()> {
    let pairs = machines.iter().flat_map(|from| machines.iter().map(move |to| (from, to)));
    let pairs: Vec<_> = pairs.filter(|(from, to)| from.name != to.name).collect();
    let probes = pairs.iter().flat_map(|(from, to)| {
        let addresses = to.addresses.iter();
        addresses.flat_map(move |address| PROBES.map(|probe| (*from, *to, *address, probe)))
    });
    // At once: what must not arrive takes its time.
    std::thread::scope(|scope| {
        let running: Vec<_> = probes
            .map(|(from, to, address, probe)| scope.spawn(move || check(from, to, address, probe)))
            .collect();
        running
            .into_iter()
            .try_for_each(|check| check.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?)
    })
}

fn check(from: &Workload, to: &Workload, address: IpAddr, probe: Probe) -> anyhow::Result<()> {
    let what = format!("{} to {} ({address}), {probe:?}", from.name, to.name);
    if is_allowed(&from.name, &to.name, probe) {
        let arrives = || {
            ensure!(from.reaches(address, probe, SILENCE)?, "no answer");
            Ok(())
        };
        return eventually(&what, PATIENCE, arrives).map(drop);
    }
    ensure!(!from.reaches(address, probe, SILENCE)?, "{what}: passed, and no contract allows it");
    Ok(())
}

#[test]
fn only_what_the_founding_example_allows_passes() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let mut founder = Founder::start("")?;
        founder.apply(&graph())?;
        let mut machines = machines(&founder)?;
        check_matrix(&machines)?;

        // Names: each sees what it may reach, asks its gateway, and has it in its resolv.conf.
        let text = fs::read_to_string("/etc/netns/c/resolv.conf")?;
        let gateway = text.lines().find_map(|l| l.strip_prefix("nameserver ")).unwrap_or_default();
        let gateway: IpAddr = gateway.parse()?;
        let seen = |machine: &Workload, name: &str| {
            machine.run(|| dns::addresses((gateway, 53).into(), &format!("{name}.shop.fabric.internal")))?
        };
        let expected = vec![machines[0].addresses[0].to_string()];
        ensure!(seen(&machines[2], "front")? == expected, "{:?}", seen(&machines[2], "front")?);
        ensure!(seen(&machines[2], "back")?.is_empty(), "c may not reach back, and is told its address");
        ensure!(!seen(&machines[0], "back")?.is_empty(), "a may reach back");

        // The daemon dies: what was allowed goes on, what was not does not, and it comes back to the same.
        founder.node.kill()?;
        check(&machines[2], &machines[0], machines[0].addresses[0], Probe::Tcp(80))?;
        check(&machines[2], &machines[1], machines[1].addresses[0], Probe::Tcp(5342))?;
        founder.node.restart()?;
        founder.is_ready()?;
        let listed = ask(&founder.node, &["attachments"])?;
        ensure!(listed.as_array().is_some_and(|all| all.len() == 3), "{listed}");
        check_matrix(&machines)?;

        // What happened is told, with names.
        eventually("the flow log lacks what was refused", PATIENCE, || {
            let to = ["--to", "machine-b@shop", "--verdict", "deny"];
            let finished = selvedge_chaos_tests::lab::run(
                &founder.node,
                &[&["observe", "-o", "json"][..], &to].concat(),
            )?;
            let line =
                finished.stdout.lines().find(|l| l.contains("machine-c@shop") && l.contains("tcp/5342"));
            ensure!(line.is_some_and(|l| l.contains("no-contract")), "{}", finished.stdout);
            Ok(())
        })?;

        // Detached: gone inside, its resolv.conf as it was, its endpoint nobody's.
        let c = machines.pop().ok_or_else(|| anyhow::anyhow!("three machines"))?;
        ask_nothing(&founder, &["detach", &c.endpoint])?;
        ensure!(!std::path::Path::new("/etc/netns/c/resolv.conf").exists(), "its resolv.conf stayed");
        let endpoints = ask(&founder.node, &["endpoint", "list"])?;
        ensure!(endpoints.as_array().is_some_and(|all| all.len() == 2), "{endpoints}");

        // A container that ends takes its endpoint with it.
        drop(machines.pop());
        eventually("its endpoint stays", PATIENCE, || {
            let endpoints = ask(&founder.node, &["endpoint", "list"])?;
            ensure!(endpoints.as_array().is_some_and(|all| all.len() == 1), "{endpoints}");
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

/// Runs a command that prints nothing.
fn ask_nothing(founder: &Founder, args: &[&str]) -> anyhow::Result<()> {
    let finished = selvedge_chaos_tests::lab::run(&founder.node, args)?;
    ensure!(finished.code == 0, "{args:?}: {}", finished.stderr);
    Ok(())
}
