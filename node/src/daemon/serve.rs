//! Listeners and the translation of configuration into the subsystems' options.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use selvedge_dns::Dns;
use selvedge_fabric::{event::EventSink, plan::Plan};
use selvedge_membership::Membership;
use selvedge_overlay::Overlay;
use selvedge_transport::{Credentials, Transport};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::overlay::OverlayCell;
use crate::{
    api::{ApiServer, Backend, UnixSocket},
    config::{DnsConfig, Listen, NodeConfig, Profile, Timers},
    gateway::Gateway,
    watchdog::Watchdog,
};

/// The address of the interface that leads to the first seed that is an address, if any. Connecting a
/// UDP socket sends nothing; the kernel only looks up the route.
pub(super) fn outward_address(seeds: &[String]) -> Option<IpAddr> {
    let target = seeds.iter().find_map(|s| s.parse::<SocketAddr>().ok());
    // Without a seed: the route to the documentation prefix is the default route (RFC 5737).
    let target = target.unwrap_or_else(|| SocketAddr::from(([192, 0, 2, 1], 9)));
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}

/// Election and heartbeat times to start from; they grow with the measured round trips.
pub(super) fn raft_timers(timers: &Timers) -> selvedge_consensus::Timers {
    let dead_voter = timers.dead_voter;
    let default = selvedge_consensus::Timers { dead_voter, ..selvedge_consensus::Timers::default() };
    match timers.profile {
        Profile::Local | Profile::Lan => default,
        Profile::Wan => selvedge_consensus::Timers {
            heartbeat: Duration::from_millis(300),
            election: Duration::from_millis(1_500),
            ..default
        },
    }
}

/// Times of failure detection.
pub(super) fn membership_timers(profile: Profile) -> selvedge_membership::Timers {
    let default = selvedge_membership::Timers::default();
    match profile {
        Profile::Local | Profile::Lan => default,
        Profile::Wan => selvedge_membership::Timers {
            probe_period_ms: default.probe_period_ms * 2,
            probe_rtt_ms: default.probe_rtt_ms * 2,
            ..default
        },
    }
}

pub(super) fn dns_options(
    config: &DnsConfig,
    listen: &[SocketAddr],
    plan: watch::Receiver<Arc<Plan>>,
    events: Arc<dyn EventSink>,
) -> selvedge_dns::Options {
    selvedge_dns::Options {
        listen: listen.to_vec(),
        host_view: config.host_view.clone(),
        upstreams: config.upstreams.clone(),
        workers: config.workers,
        plan,
        events,
    }
}

/// What the node listens on, by purpose, for `status`.
pub(super) fn listening(
    config: &NodeConfig,
    transport: &Transport,
    dns: &Dns,
) -> BTreeMap<String, Vec<SocketAddr>> {
    BTreeMap::from([
        ("fabric".to_owned(), vec![transport.local_addr()]),
        ("gossip".to_owned(), vec![config.listen.gossip]),
        ("api".to_owned(), vec![config.listen.api]),
        ("workload-api".to_owned(), vec![config.listen.workload_api]),
        ("dns".to_owned(), dns.local_addrs().to_vec()),
    ])
}

/// Starts the API on its socket and ports.
pub(super) async fn start_api(
    backend: Arc<dyn Backend>,
    listen: &Listen,
    gateway: &Gateway,
    credentials: watch::Receiver<Arc<Credentials>>,
    watchdog: &Watchdog,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(parent) = listen.socket.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let socket = UnixSocket::bind(&listen.socket, None)
        .await
        .with_context(|| format!("local API socket {}", listen.socket.display()))?;
    let tcp = TcpListener::bind(listen.api).await.with_context(|| format!("API port {}", listen.api))?;
    let workload = TcpListener::bind(listen.workload_api)
        .await
        .with_context(|| format!("workload API port {}", listen.workload_api))?;
    let tls = super::tls::server_config(credentials).context("TLS of the API")?;
    let server = ApiServer::new(backend, stop.clone());
    gateway.open(&server, watchdog, stop);
    let (on_unix, on_tls, on_workload) = (server.clone(), server.clone(), server);
    watchdog.keep("api socket", async move { on_unix.serve_unix(socket).await });
    watchdog.keep("api port", async move { on_tls.serve_tls(tcp, tls).await });
    watchdog.keep("workload api", async move { on_workload.serve_workload(workload).await });
    Ok(())
}

/// Counters of the subsystems as Prometheus text.
pub(super) fn metrics(
    transport: &Transport,
    membership: &Membership,
    dns: &Arc<Dns>,
    overlay: &OverlayCell,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let (transport, membership, dns) = (transport.clone(), membership.clone(), dns.clone());
    let overlay = Arc::clone(overlay);
    Arc::new(move || {
        let mut text = String::new();
        let counted = dns.metrics();
        let labelled = [
            ("selvedge_dns_queries", "Queries by type.", "type", &counted.queries),
            ("selvedge_dns_replies", "Replies by response code.", "rcode", &counted.replies),
            ("selvedge_dns_drops", "Packets without a reply, by reason.", "reason", &counted.drops),
            (
                "selvedge_dns_forwarding",
                "Queries for other names, by outcome.",
                "outcome",
                &counted.forwarding,
            ),
        ];
        for (name, help, label, values) in labelled {
            family(&mut text, name, help, values.iter().map(|(k, v)| (format!("{{{label}=\"{k}\"}}"), *v)));
        }
        let quic = transport.counters();
        let plain = [
            ("selvedge_dns_truncated", "UDP replies that did not fit.", counted.truncated),
            (
                "selvedge_transport_handshakes_refused",
                "Handshakes refused for load.",
                quic.handshakes_refused,
            ),
            ("selvedge_transport_handshakes_failed", "Handshakes that failed.", quic.handshakes_failed),
            ("selvedge_transport_peers_refused", "Peers that were not admitted.", quic.peers_refused),
            (
                "selvedge_transport_datagrams_unconnected",
                "Datagrams without a connection.",
                quic.datagrams_unconnected,
            ),
            (
                "selvedge_transport_datagrams_unsendable",
                "Datagrams too large or too many.",
                quic.datagrams_unsendable,
            ),
        ];
        for (name, help, value) in plain {
            family(&mut text, name, help, [(String::new(), value)]);
        }
        membership_metrics(&mut text, &membership);
        if let Some(overlay) = overlay.get() {
            overlay_metrics(&mut text, overlay);
        }
        text
    })
}

fn membership_metrics(text: &mut String, membership: &Membership) {
    let counted = membership.metrics();
    let values = counted.iter().into_iter().map(|(k, v)| (format!("{{kind=\"{k}\"}}"), v));
    family(text, "selvedge_records", "Gossiped records, by what became of them.", values);
}

fn overlay_metrics(text: &mut String, overlay: &Overlay) {
    let counted = overlay.counters();
    let packets = [("sent", counted.sent), ("delivered", counted.delivered), ("carried", counted.carried)];
    let packets = packets.map(|(kind, value)| (format!("{{kind=\"{kind}\"}}"), value));
    family(text, "selvedge_overlay_packets", "Packets by what became of them.", packets);
    let refused = counted.refusals().map(|(why, value)| (format!("{{reason=\"{why}\"}}"), value));
    family(text, "selvedge_overlay_refused", "Packets that were dropped, by reason.", refused);
    let links = overlay.links();
    let bytes = links.iter().flat_map(|link| {
        let of = |direction: &str| format!("{{peer=\"{}\",direction=\"{direction}\"}}", link.peer);
        [(of("tx"), link.tx_bytes), (of("rx"), link.rx_bytes)]
    });
    family(text, "selvedge_link_bytes", "Bytes in datagrams of links.", bytes);
}

/// One counter family in the OpenMetrics text format.
fn family(text: &mut String, name: &str, help: &str, samples: impl IntoIterator<Item = (String, u64)>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE {name} counter\n# HELP {name} {help}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}_total{labels} {value}");
    }
}
