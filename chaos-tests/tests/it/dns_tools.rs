//! The tools that administrators use get right answers: dig, kdig and dnspython.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, LabNode, Options, PATIENCE, ask, eventually};

const NAME: &str = "voting-backend.voting-app";
const SERVICE: &str = "crowd@crowded";
/// Endpoints of the crowded name: their addresses fill far more than 512 bytes.
const CROWD: usize = 60;
/// How many of them are registered at once.
const AT_ONCE: usize = 4;

/// What a tool printed for a question.
type Ask<'a> = &'a dyn Fn(&[&str]) -> anyhow::Result<String>;

/// Whether a tool is there; that it is not may be an error.
pub(crate) fn installed(tool: &str, probe: &[&str]) -> bool {
    let run = Command::new(tool).args(probe).stdin(Stdio::null()).output();
    if run.is_ok_and(|out| out.status.success()) {
        return true;
    }
    assert!(
        std::env::var("SELVEDGE_REQUIRE_KERNEL").as_deref() != Ok("1"),
        "{tool} is not installed, and SELVEDGE_REQUIRE_KERNEL=1 allows no skip"
    );
    eprintln!("SKIPPED: {tool} is not installed");
    false
}

fn query(tool: &str, server: SocketAddr, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(tool)
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string()])
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{tool} {}: {}\n{text}", args.join(" "), output.status);
    Ok(text)
}

/// Asks with `args` and expects every one of `wanted` in what the tool prints.
fn expect(ask: Ask<'_>, args: &[&str], wanted: &[&str]) -> anyhow::Result<()> {
    let text = ask(args)?;
    for word in wanted {
        ensure!(text.contains(word), "{}: no {word:?} in\n{text}", args.join(" "));
    }
    Ok(())
}

/// The questions that dig and kdig, which share their syntax, must get answered.
fn common(lab: &Lab, node: &LabNode, ask: Ask<'_>) -> anyhow::Result<()> {
    let suffix = &lab.suffix;
    let name = lab.fqdn(NAME);
    let rfc2782 = format!("_voting-backend._tcp.voting-app.{suffix}");
    for transport in ["+notcp", "+tcp"] {
        for (asked, kind, wanted) in [
            (name.as_str(), "A", "127."),
            (&name, "SRV", ".ep."),
            (&rfc2782, "SRV", ".ep."),
            (&name, "TXT", "TXT"),
            (&name, "ANY", "HINFO"),
            (&format!("{}.node.{suffix}", node.name), "A", "127."),
            (suffix, "SOA", "SOA"),
            (suffix, "NS", "NS"),
        ] {
            let answered = ["NOERROR", wanted, "aa"];
            expect(ask, &[transport, asked, kind], &answered).with_context(|| format!("{asked} {kind}"))?;
        }
        expect(ask, &[transport, &format!("nope.voting-app.{suffix}"), "A"], &["NXDOMAIN", "SOA"])?;
        // A name without that type, and an empty non-terminal.
        expect(ask, &[transport, &name, "MX"], &["NOERROR", "ANSWER: 0", "SOA"])?;
        expect(ask, &[transport, &format!("voting-app.{suffix}"), "A"], &["NOERROR", "ANSWER: 0", "SOA"])?;
    }
    Ok(())
}

fn reverse(lab: &Lab, node: &LabNode, questions: Ask<'_>) -> anyhow::Result<()> {
    let endpoints = ask(node, &["endpoint", "list"])?;
    let with_address = endpoints
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|e| Some((e["id"].as_str()?.to_owned(), e["addresses"][0].as_str()?.to_owned())));
    let (id, address) = with_address.context("an endpoint with an address")?;
    expect(questions, &["-x", &address], &["NOERROR", &format!("{id}.ep.{}", lab.suffix)])
}

fn crowd(node: &LabNode) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let graph = dir.path().join("crowded.yaml");
    std::fs::write(
        &graph,
        "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: crowded}\nspec: {}\n---\n\
         apiVersion: selvedge/v1\nkind: Contract\nmetadata: {name: crowd, domain: crowded}\n\
         spec: {template: client-server, roles: {server: {ports: [tcp/80]}}}\n---\n\
         apiVersion: selvedge/v1\nkind: Service\nmetadata: {name: crowd, domain: crowded}\n\
         spec: {roles: [\"server:crowd\"]}\n",
    )?;
    ask(node, &["apply", "-f", &graph.to_string_lossy()])?;
    let created = ask(node, &["token", "service", "--service", SERVICE, "--ttl", "1h"])?;
    let token = dir.path().join("token");
    std::fs::write(&token, created["token"].as_str().context("a token")?)?;
    let token = token.to_string_lossy();
    let register =
        ["endpoint", "register", "--service", SERVICE, "--token-file", &token, "--port", "tcp/80=8080"];
    // Several at once: each must get an address of its own all the same.
    std::thread::scope(|scope| {
        let some = || (0..CROWD / AT_ONCE).try_for_each(|_| ask(node, &register).map(drop));
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("it panicked"))?)
    })
}

fn crowded_name(lab: &Lab, questions: Ask<'_>) -> anyhow::Result<()> {
    let name = lab.fqdn("crowd.crowded");
    let all = format!("ANSWER: {CROWD}");
    eventually("the crowd is not complete", PATIENCE, || expect(questions, &["+tcp", &name, "A"], &[&all]))?;
    let cut = questions(&["+notcp", "+ignore", "+noedns", &name, "A"])?;
    ensure!(cut.contains("tc"), "not truncated:\n{cut}");
    ensure!(cut.matches("127.").count() > 5, "a truncated answer should still be of use:\n{cut}");
    Ok(())
}

/// With the view of a service, a host sees only what the service's contracts reach.
fn narrowed(lab: &mut Lab, tool: &str) -> anyhow::Result<()> {
    let (visible, hidden) = (lab.fqdn(NAME), lab.fqdn("result-backend.voting-app"));
    let node = lab.nodes.last_mut().context("a node")?;
    let config = std::fs::read_to_string(node.config())?;
    let narrow = config.replace("host-view = \"all\"", "host-view = \"voting-svc@voting-app\"");
    ensure!(narrow != config, "no host view in {config}");
    node.stop()?;
    std::fs::write(node.config(), narrow)?;
    node.restart()?;
    let (node, dns) = (&*node, node.dns);
    eventually("the view is wrong", PATIENCE, || {
        ensure!(node.is_running(), "it has ended; {}", node.log_tail());
        expect(&|args| query(tool, dns, args), &[&visible, "A"], &["NOERROR", "127."])?;
        expect(&|args| query(tool, dns, args), &[&hidden, "A"], &["NXDOMAIN"])
    })?;
    Ok(())
}

fn drill(tool: &str) -> anyhow::Result<()> {
    let mut lab = Lab::start(&Options::default())?;
    for node in &lab.nodes {
        common(&lab, node, &|args| query(tool, node.dns, args))
            .with_context(|| format!("on {}", node.name))?;
    }
    let node = lab.nodes.first().context("a node")?;
    let questions = |args: &[&str]| query(tool, node.dns, args);
    reverse(&lab, node, &questions)?;
    if tool == "dig" {
        expect(&questions, &["+edns=1", "+noednsnegotiation", &lab.fqdn(NAME), "A"], &["BADVERS"])?;
    }
    crowd(node)?;
    crowded_name(&lab, &questions)?;
    narrowed(&mut lab, tool)?;
    lab.close()
}

#[test]
fn dig_gets_right_answers() {
    if installed("dig", &["-v"]) {
        drill("dig").expect("dig gets right answers");
    }
}

#[test]
fn kdig_gets_right_answers() {
    if installed("kdig", &["--version"]) {
        drill("kdig").expect("kdig gets right answers");
    }
}

const DNSPYTHON: &str = r"
import sys, dns.message, dns.query, dns.rcode, dns.flags
host, port, suffix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
name = 'voting-backend.voting-app.' + suffix
for ask in (dns.query.udp, dns.query.tcp):
    def put(name, kind):
        return ask(dns.message.make_query(name, kind), host, port=port, timeout=5)
    for kind in ('A', 'SRV', 'TXT'):
        r = put(name, kind)
        assert r.rcode() == 0 and r.answer and r.flags & dns.flags.AA, (kind, r.to_text())
    r = put('nope.voting-app.' + suffix, 'A')
    assert r.rcode() == dns.rcode.NXDOMAIN and any(a.rdtype == 6 for a in r.authority), r.to_text()
    r = put(name, 'MX')
    assert r.rcode() == 0 and not r.answer and any(a.rdtype == 6 for a in r.authority), r.to_text()
    q = dns.message.make_query(name, 'A', use_edns=1)
    r = ask(q, host, port=port, timeout=5)
    assert r.rcode() == dns.rcode.BADVERS, r.to_text()
";

#[test]
fn dnspython_gets_right_answers() {
    if !installed("python3", &["-c", "import dns.message, dns.query"]) {
        return;
    }
    let lab = Lab::start(&Options::default()).expect("a fabric");
    for node in &lab.nodes {
        let (host, port) = (node.dns.ip().to_string(), node.dns.port().to_string());
        let output = Command::new("python3")
            .args(["-c", DNSPYTHON, &host, &port, &lab.suffix])
            .output()
            .expect("python runs");
        assert!(output.status.success(), "{}: {}", node.name, String::from_utf8_lossy(&output.stderr));
    }
    lab.close().expect("a clean end");
}
