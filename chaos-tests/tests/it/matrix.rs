//! The two reference applications over three clouds: exactly what their graphs allow passes, while people
//! vote with the software that they would use: nginx, PostgreSQL and Redis.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, dns, eventually,
    islands::{Island, Islands},
    kernel::{Own, with_own},
    voting::{self, Family, Voting},
    workload::{Probe, Workload},
};

/// Where everything runs: a processor between two workload nodes that share no cable.
const ISLANDS: [(&str, &str, &str); 3] =
    [("hub", "processor", "aws"), ("left", "workload", "azr"), ("right", "workload", "gcp")];
/// The services, with the ports that they serve and where they are: whoever may talk to another is in
/// another cloud.
const SERVICES: [(&str, &[u16], &str); 11] = [
    ("http-proxy@voting-app", &[], "left"),
    ("voting-svc@voting-app", &[80], "right"),
    ("voting-db@voting-app", &[5432, 6379], "hub"),
    ("result-svc@voting-app", &[80], "hub"),
    ("result-db@voting-app", &[5432], "right"),
    ("worker@voting-app", &[], "left"),
    ("http-proxy@getaway-app", &[], "right"),
    ("getaway-svc@getaway-app", &[80], "left"),
    ("news-gw@getaway-app", &[8080], "hub"),
    ("places-gw@getaway-app", &[8080], "right"),
    ("weather-gw@getaway-app", &[8080], "right"),
];
/// Everything that may pass: from, to, TCP port, and the name by which it is found.
const ALLOWED: [(&str, &str, u16, &str); 10] = [
    ("http-proxy@voting-app", "voting-svc@voting-app", 80, "voting-frontend.voting-app"),
    ("voting-svc@voting-app", "voting-db@voting-app", 5432, "voting-backend.voting-app"),
    ("http-proxy@voting-app", "result-svc@voting-app", 80, "result-frontend.voting-app"),
    ("result-svc@voting-app", "result-db@voting-app", 5432, "result-backend.voting-app"),
    ("worker@voting-app", "voting-db@voting-app", 6379, "voting-worker.voting-app"),
    ("worker@voting-app", "result-db@voting-app", 5432, "result-worker.voting-app"),
    ("http-proxy@getaway-app", "getaway-svc@getaway-app", 80, "frontend.getaway-app"),
    ("getaway-svc@getaway-app", "news-gw@getaway-app", 8080, "news-api.getaway-app"),
    ("getaway-svc@getaway-app", "places-gw@getaway-app", 8080, "places-api.getaway-app"),
    ("getaway-svc@getaway-app", "weather-gw@getaway-app", 8080, "weather-api.getaway-app"),
];
/// Every port that a contract names, and one that none does.
const PORTS: [u16; 5] = [80, 5432, 6379, 8080, 9999];
/// Long enough for a packet that may pass, on a busy machine, and short enough to wait for all that may not.
const SILENCE: Duration = Duration::from_millis(900);
/// Probes under way at once.
const AT_ONCE: usize = 128;

/// One question of the matrix.
type Question<'a> = (&'a Workload, &'a Workload, IpAddr, Probe);

fn is_allowed(from: &str, to: &str, probe: Probe) -> bool {
    ALLOWED.iter().any(|(f, t, port, _)| (*f, *t, Probe::Connect(*port)) == (from, to, probe))
}

/// Whether the software that people vote with is there. Without it only the matrix is asked.
fn has_software() -> bool {
    let missing = voting::missing();
    if missing.is_empty() {
        return true;
    }
    let required = std::env::var("SELVEDGE_REQUIRE_KERNEL").is_ok_and(|v| v == "1");
    assert!(!required, "SELVEDGE_REQUIRE_KERNEL=1 allows no skip, and {missing:?} is not installed");
    eprintln!("SKIPPED: votes with real software, for {missing:?} is not installed");
    false
}

fn start(islands: &mut Islands, held: &[(&str, u16)]) -> anyhow::Result<BTreeMap<String, Workload>> {
    for (name, role, zone) in ISLANDS {
        islands.start(Island { name, role, zone })?;
    }
    for graph in ["voting-app.yaml", "getaway-app.yaml"] {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/graphs/").to_owned() + graph;
        islands.ask("hub", &["apply", "-f", &file, "--wait"])?;
    }
    let mut workloads = BTreeMap::new();
    for (number, (service, ports, node)) in SERVICES.iter().enumerate() {
        let ports: Vec<_> = ports.iter().map(|port| format!("tcp/{port}")).collect();
        let ports: Vec<_> = ports.iter().map(String::as_str).collect();
        let mut workload = islands.workload(node, &format!("w{number}"), service, &ports)?;
        for port in PORTS {
            let is_held = held.contains(&(*service, port));
            if is_held { workload.serve_udp(port)? } else { workload.serve(port)? }
        }
        workloads.insert((*service).to_owned(), workload);
    }
    Ok(workloads)
}

/// What may pass passes, by the name that DNS gives it, over IPv4 and IPv6.
fn the_allowed(islands: &Islands, workloads: &BTreeMap<String, Workload>) -> anyhow::Result<()> {
    for (from, to, port, name) in ALLOWED {
        let (source, target) = (&workloads[from], &workloads[to]);
        let gateway: IpAddr = {
            let conf = std::fs::read_to_string(format!("/etc/netns/{}/resolv.conf", source.name))?;
            let line = conf.lines().find_map(|line| line.strip_prefix("nameserver ").map(str::to_owned));
            line.context("no name server")?.parse()?
        };
        let name = format!("{name}.fabric.internal");
        eventually(&format!("{from} does not reach {to}"), PATIENCE, || {
            use hickory_proto::rr::RecordType::{A, AAAA};
            for kind in [A, AAAA] {
                let answer = source.run(|| dns::ask((gateway, 53).into(), &name, kind, false))??;
                let found: Vec<IpAddr> = answer.records.iter().filter_map(|r| r.parse().ok()).collect();
                ensure!(found.len() == 1 && target.addresses.contains(&found[0]), "{name} {kind}: {found:?}");
                ensure!(source.reaches(found[0], Probe::Connect(port), SILENCE)?, "{name} {kind}: no answer");
            }
            Ok(())
        })
        .with_context(|| ISLANDS.map(|(island, ..)| islands.log(island)).join("\n"))?;
    }
    Ok(())
}

/// Everything else does not, and `beside` goes on meanwhile.
fn the_rest(
    workloads: &BTreeMap<String, Workload>,
    beside: impl Fn() -> anyhow::Result<()> + Sync,
) -> anyhow::Result<usize> {
    let mut questions: Vec<(Question<'_>, bool)> = Vec::new();
    for (from, source) in workloads {
        for (to, target) in workloads.iter().filter(|(to, _)| *to != from) {
            let probes = PORTS.iter().flat_map(|port| [Probe::Connect(*port), Probe::Udp(*port)]);
            for probe in probes.chain([Probe::Icmp]) {
                let allowed = is_allowed(from, to, probe);
                questions.extend(target.addresses.iter().map(|a| ((source, target, *a, probe), allowed)));
            }
        }
    }
    let passed =
        |((source, _, address, probe), _): &(Question<'_>, bool)| source.reaches(*address, *probe, SILENCE);
    for some in questions.chunks(AT_ONCE) {
        let (answers, done) = std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|question| scope.spawn(move || passed(question))).collect();
            let done = beside();
            (asked.into_iter().map(|asked| asked.join()).collect::<Vec<_>>(), done)
        });
        done?;
        for (((source, target, address, probe), allowed), answer) in some.iter().zip(answers) {
            let answer = answer.map_err(|_| anyhow::anyhow!("a probe panicked"))??;
            let what = format!("{} to {} ({address}), {probe:?}", source.endpoint, target.endpoint);
            // What may pass was asked for with patience before; a slow machine may miss it here.
            ensure!(*allowed || !answer, "{what}: passed, and no contract allows it");
        }
    }
    Ok(questions.len())
}

/// People vote, also while everything that is forbidden is tried; every vote is counted.
fn votes(mut voting: Voting<'_>, workloads: &BTreeMap<String, Workload>) -> anyhow::Result<usize> {
    voting.round(Family::V4, "cats")?;
    voting.round(Family::V6, "dogs")?;
    let votes = AtomicUsize::new(0);
    let asked = the_rest(workloads, || {
        voting.vote("birds").context("a vote amid the questions")?;
        votes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let asked = asked.with_context(|| voting.said())?;
    let votes = votes.into_inner();
    eventually("not every vote is counted", PATIENCE, || {
        let (_, results) = voting.results()?;
        let of_birds = results.lines().filter(|line| line.starts_with("birds|"));
        let counts = of_birds.filter_map(|line| line.rsplit('|').next()?.parse::<usize>().ok());
        ensure!(counts.sum::<usize>() == votes, "of {votes} votes there are\n{results}");
        Ok(())
    })
    .with_context(|| voting.said())?;
    println!("votes by DNS name: over IPv4, over IPv6, and {votes} amid the questions; all counted");
    Ok(asked)
}

#[test]
fn exactly_what_the_graphs_of_both_applications_allow_passes_between_clouds() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let real = has_software();
        let mut islands =
            Islands::new(&ISLANDS.map(|(name, ..)| name), &[("hub", "left"), ("hub", "right")])?;
        let workloads = start(&mut islands, if real { &voting::HELD } else { &[] })?;
        let voting = if real { Some(Voting::start(&workloads)?) } else { None };
        the_allowed(&islands, &workloads)?;
        let asked = match voting {
            Some(voting) => votes(voting, &workloads)?,
            None => the_rest(&workloads, || Ok(()))?,
        };
        println!("{asked} questions: {} allowed, both families", ALLOWED.len() * 2);
        Ok(())
    })?;
    Ok(())
}
