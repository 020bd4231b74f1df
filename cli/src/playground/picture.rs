//! What a playground shows to people.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{Table, presets};

use super::{check::Report, state::State};

/// The playground at a glance, with commands to try.
pub(crate) fn ready(state: &State, took: Duration) -> String {
    let clouds: std::collections::BTreeSet<_> = state.nodes.iter().map(|n| n.cloud()).collect();
    let mut text = format!(
        "\nThe playground is ready after {:.1} s: {} clouds, {} nodes, {} endpoints, {} contracts.\n\n",
        took.as_secs_f64(),
        clouds.len(),
        state.nodes.len(),
        state.endpoints.len(),
        state.contracts.len()
    );
    let mut table = plain_table(&["CLOUD", "NODE", "ROLE", "DNS", "API", "ENDPOINTS", "PID"]);
    let mut nodes: Vec<_> = state.nodes.iter().collect();
    nodes.sort_by_key(|node| (&node.zone, &node.name));
    let mut above = "";
    for node in nodes {
        let endpoints = state.endpoints.iter().filter(|e| e.node == node.name).count();
        // A cloud is named once, on its first node.
        let zone = if node.zone == above { "" } else { &node.zone };
        above = &node.zone;
        table.add_row([
            zone,
            &node.name,
            &node.role,
            &node.dns.to_string(),
            &node.api,
            &endpoints.to_string(),
            &node.pid.to_string(),
        ]);
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "{table}\n\n{}\n\nTry, in another terminal:\n\n", packets(state));
    for (command, what) in suggestions(state) {
        let _ = writeln!(text, "  # {what}\n  {command}\n");
    }
    let _ = write!(text, "Files are in {}. Ctrl-C ends everything and leaves nothing.", state.dir.display());
    text
}

/// Whether packets are real, and otherwise what is left out.
fn packets(state: &State) -> String {
    match &state.without {
        None => "Packets are real: every endpoint has a network of its own, eBPF decides what leaves and enters it, \
                 and links between the clouds are encrypted."
            .to_owned(),
        Some(why) => format!(
            "No real packets ({why}). Left out: enforcement by eBPF, encrypted links, IPv6 addresses; endpoints are \
             loopback addresses that anybody here reaches. With them: sudo selvedge playground"
        ),
    }
}

/// Commands to try, each with what it shows.
fn suggestions(state: &State) -> Vec<(String, &'static str)> {
    let (Some(first), Some(name)) = (state.nodes.first(), state.contracts.first()) else { return Vec::new() };
    let (socket, suffix) = (first.socket.display(), &state.suffix);
    let (host, port) = (first.dns.ip(), first.dns.port());
    let name = state.contracts.iter().find(|c| *c == "voting-backend.voting-app").unwrap_or(name);
    let mut list = vec![
        (format!("export SELVEDGE_SOCKET={socket}"), "talk to this node from now on"),
        (
            format!("dig +short @{host} -p {port} {name}.{suffix} SRV"),
            "ask the DNS where a service is served",
        ),
        (format!("selvedge resolve {name}.{suffix}"), "the same, with the zone and health of each answer"),
    ];
    if name == "voting-backend.voting-app" {
        let explain =
            "selvedge explain --from voting-svc@voting-app --to voting-db@voting-app --port tcp/5432";
        list.push((explain.to_owned(), "who may talk to whom, and why"));
    }
    if name == "voting-backend.voting-app" && state.without.is_none() {
        let as_whom = |who: &str| {
            let to = format!("http://voting-frontend.voting-app.{suffix}");
            format!("selvedge playground exec {who} -- curl -sS -m 2 {to}")
        };
        list.push((
            as_whom("http-proxy@voting-app"),
            "a contract allows it: over the encrypted links, by identity",
        ));
        list.push((as_whom("http-proxy@getaway-app"), "no contract does: it does not even find the name"));
        list.push(("selvedge observe".to_owned(), "who talks to whom right now, and what is refused"));
    }
    let cloud = first.cloud();
    list.push((
        format!("selvedge drill run cloud-loss --cloud {cloud}"),
        "lose a cloud and measure what happens",
    ));
    list
}

/// The outcome of `--check`.
pub(crate) fn report(report: &Report) -> String {
    let mut table = plain_table(&["CHECK", "RESULT", "MEASURED"]);
    for check in &report.checks {
        table.add_row([check.check.as_str(), if check.ok { "ok" } else { "FAILED" }, &check.detail]);
    }
    let verdict = if report.passed { "The playground does what it should." } else { "The check failed." };
    format!("\n{table}\n\n{verdict}")
}

pub(crate) fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::playground::{check::Check, state::NodeInfo};

    fn state() -> State {
        let node = |name: &str, zone: &str, port: u16| NodeInfo {
            name: name.into(),
            zone: zone.into(),
            role: "processor".into(),
            pid: 42,
            socket: PathBuf::from("/tmp/d/api.sock"),
            api: "https://127.0.0.1:20490".into(),
            dns: ([127, 0, 0, 1], port).into(),
        };
        State {
            ready: true,
            suffix: "fabric.internal".into(),
            nodes: vec![node("aws-p1", "aws", 1), node("azr-p1", "azr", 2), node("aws-p2", "aws", 3)],
            endpoints: Vec::new(),
            without: None,
            contracts: vec!["frontend.getaway-app".into(), "voting-backend.voting-app".into()],
            uses: Vec::new(),
            control: PathBuf::new(),
            dir: "/tmp/d".into(),
            pid: 1,
        }
    }

    #[test]
    fn the_picture_groups_clouds_and_names_commands() {
        let text = ready(&state(), Duration::from_millis(6_240));
        assert!(text.contains("after 6.2 s: 2 clouds, 3 nodes"), "{text}");
        let rows: Vec<_> = text.lines().filter(|l| l.contains("-p")).take(3).collect();
        assert!(rows[0].contains("aws-p1") && rows[1].contains("aws-p2") && rows[2].contains("azr-p1"));
        assert!(!rows[1].trim_start().starts_with("aws "), "{text}");
        assert!(text.contains("dig +short @127.0.0.1 -p 1 voting-backend.voting-app.fabric.internal SRV"));
        assert!(text.contains("selvedge drill run cloud-loss --cloud aws"), "{text}");
    }

    #[test]
    fn a_failed_check_stands_out() {
        let check = Check { check: "names".into(), ok: false, detail: "no answer".into() };
        let text = report(&Report { passed: false, checks: vec![check] });
        assert!(text.contains("FAILED") && text.contains("no answer"), "{text}");
    }
}
