//! `status`: health at a glance.

use clap::Args;
use selvedge_node::api::types::{Counts, Status, ZoneState};

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look, human,
        style::{Tone, paint},
        table::{Cell, Table},
    },
};

/// Health of the fabric and this node, at a glance.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge status
  selvedge status -o wide                   with certificate and listening addresses
  selvedge status -o json | jq .alarms")]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(global: &Global, _args: StatusArgs) -> Outcome {
    let status: Status = global.client()?.ask(Ask::get("/v1/status")).await?;
    global.printer().show(&status, |look| text(&status, look))?;
    DONE
}

fn text(status: &Status, look: Look) -> String {
    let mut text = head(status, look);
    text.push('\n');
    text.push_str(&zones(status, look));
    if look.wide {
        text.push('\n');
        text.push_str(&node(status));
    }
    text.push('\n');
    text.push_str(&alarms(status, look));
    text
}

/// The four lines that answer "is it well?".
fn head(status: &Status, look: Look) -> String {
    let paint = |words: &str, tone| paint(words, tone, look.colour);
    let ready = if status.ready { paint("ready", Tone::Good) } else { paint("not ready", Tone::Bad) };
    let quorum = match (&status.leader, status.quorum) {
        (Some(leader), true) => format!("{}, leader {leader}", paint("yes", Tone::Good)),
        (None, true) => paint("yes", Tone::Good),
        (_, false) => format!("{}: changes are refused, all else goes on", paint("no", Tone::Bad)),
    };
    let behind = status.revision.saturating_sub(status.enforced_revision);
    let policy = match behind {
        0 => format!("revision {}, enforced here", status.revision),
        n => format!("revision {}, {} here", status.revision, paint(&format!("{n} behind"), Tone::Warn)),
    };
    let facts = match (status.isolated, status.oldest_fact_ms) {
        (true, _) => paint("isolated: this node sees nobody and serves what it knew", Tone::Bad),
        (false, Some(ms)) => {
            let stale = human::count(status.stale_nodes.len(), "node");
            paint(&format!("up to {} old; {stale} not heard since start", human::span(ms)), Tone::Warn)
        }
        (false, None) => "fresh".to_owned(),
    };
    let Status { fabric, node, role, zone, .. } = status;
    let up = human::span(status.uptime_ms);
    format!(
        "fabric  {fabric}, seen from {node} ({role} in {zone}), up {up}, {ready}\n\
         quorum  {quorum}\npolicy  {policy}\nfacts   {facts}\n"
    )
}

fn zones(status: &Status, look: Look) -> String {
    let columns = ["ZONE", "STATE", ">PROCESSORS", ">WORKLOADS", ">ENDPOINTS", ">RTT", ">HEARD"];
    let mut rows = Table::new(look, &columns);
    for zone in &status.zones {
        let state = match zone.state {
            ZoneState::Up => Cell::toned("● up", Tone::Good),
            ZoneState::Degraded => Cell::toned("◐ degraded", Tone::Warn),
            ZoneState::Down => Cell::toned("○ down", Tone::Bad),
            ZoneState::Unknown => Cell::toned("? unknown", Tone::Warn),
        };
        rows.row([
            zone.name.as_str().into(),
            state,
            counts(zone.processors),
            counts(zone.workloads),
            counts(zone.endpoints),
            Cell::maybe(zone.rtt_ms.map(human::rtt)),
            Cell::maybe(zone.heard_ms_ago.map(human::span)),
        ]);
    }
    rows.or("no zone")
}

/// `2/3`, in the tone that fits; nothing of nothing is a dash.
fn counts(counts: Counts) -> Cell {
    match counts {
        Counts { total: 0, .. } => Cell::default(),
        Counts { up, total } if up == total => format!("{up}/{total}").into(),
        Counts { up: 0, total } => Cell::toned(format!("0/{total}"), Tone::Bad),
        Counts { up, total } => Cell::toned(format!("{up}/{total}"), Tone::Warn),
    }
}

fn node(status: &Status) -> String {
    let mut text = format!("version {}, suffix {}\n", status.version, status.suffix);
    if let Some(expires) = &status.certificate_expires {
        text.push_str(&format!("certificate until {expires}\n"));
    }
    for task in &status.tasks {
        let turned = task.turned_ms_ago.map(|ms| format!(", turned {} ago", human::span(ms)));
        let restarts = (task.restarts > 0).then(|| format!(", started again {} times", task.restarts));
        let (turned, restarts) = (turned.unwrap_or_default(), restarts.unwrap_or_default());
        text.push_str(&format!("task {} {}{turned}{restarts}\n", task.name, task.state));
    }
    for (purpose, addresses) in &status.listening {
        text.push_str(&format!("{purpose} on {}\n", addresses.join(", ")));
    }
    if !status.stale_nodes.is_empty() {
        text.push_str(&format!("not heard since start: {}\n", status.stale_nodes.join(", ")));
    }
    text
}

fn alarms(status: &Status, look: Look) -> String {
    if status.alarms.is_empty() {
        return format!("{}\n", paint("no alarms", Tone::Good, look.colour));
    }
    let mut text = String::new();
    for alarm in &status.alarms {
        let code = paint(&alarm.code, Tone::Bad, look.colour);
        text.push_str(&format!("! {code}: {}\n", alarm.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::types::{Alarm, ZoneHealth};

    use super::*;

    fn status() -> Status {
        let zone = |name: &str, state, up| ZoneHealth {
            name: name.into(),
            state,
            processors: Counts { up, total: 2 },
            workloads: Counts::default(),
            endpoints: Counts { up, total: 2 },
            rtt_ms: Some(12.4),
            heard_ms_ago: Some(300),
        };
        Status {
            ready: true,
            revision: 9,
            enforced_revision: 9,
            fabric: "demo".into(),
            node: "aws-1".into(),
            zone: "aws".into(),
            role: "processor".into(),
            uptime_ms: 61_000,
            quorum: true,
            leader: Some("gcp-1".into()),
            zones: vec![zone("aws", ZoneState::Up, 2), zone("azr", ZoneState::Down, 0)],
            alarms: vec![Alarm { code: "cloud-down".into(), message: "azr is gone".into() }],
            ..Status::default()
        }
    }

    #[test]
    fn health_reads_at_a_glance() {
        let expected = "\
fabric  demo, seen from aws-1 (processor in aws), up 1m1s, ready
quorum  yes, leader gcp-1
policy  revision 9, enforced here
facts   fresh

ZONE  STATE   PROCESSORS  WORKLOADS  ENDPOINTS    RTT  HEARD
aws   ● up           2/2          -        2/2  12 ms  300ms
azr   ○ down         0/2          -        0/2  12 ms  300ms

! cloud-down: azr is gone
";
        assert_eq!(text(&status(), Look::PLAIN), expected);
    }

    #[test]
    fn what_is_not_well_is_said_first() {
        let stale = Status {
            quorum: false,
            enforced_revision: 7,
            oldest_fact_ms: Some(90_000_000),
            stale_nodes: vec!["azr-1".into()],
            ..status()
        };
        let text = text(&stale, Look::PLAIN);
        assert!(text.contains("quorum  no: changes are refused"), "{text}");
        assert!(text.contains("revision 9, 2 behind here"), "{text}");
        assert!(text.contains("up to 1d1h old; 1 node not heard since start"), "{text}");
    }
}
