//! A fabric over three clouds that use the same addresses inside, far apart: 40 ms, with loss, jitter and
//! reordering. What crosses between them is seen, and a cut is walked around.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use hickory_proto::rr::RecordType::{A, AAAA};
use selvedge_chaos_tests::lab::{
    PATIENCE, binary, dns, eventually,
    kernel::{Own, with_own},
    shop,
    workload::{Probe, Workload},
    world::{Place, World},
};
use selvedge_lab::{Capture, Conditions, Frame, Kind, Ports};

const CLOUDS: [&str; 3] = ["aws", "azr", "gcp"];
const SEED: u64 = 2_026;
/// What is said across, to be found nowhere on the way.
const MARK: &[u8] = b"the quick brown fox jumps over the lazy dog";
const MARKS: usize = 2_000;
/// How long one answer may take over a bad day's wide area.
const ANSWER: Duration = Duration::from_secs(3);
/// The same for one datagram there and one back, where another one is sent after it.
const SOON: Duration = Duration::from_millis(300);

/// Two processors and a workload node in each cloud.
fn start(world: &mut World) -> anyhow::Result<()> {
    for (number, is_processor) in [("1", true), ("2", true), ("w", false)] {
        for cloud in CLOUDS {
            let name = format!("{cloud}-{number}");
            world.start(Place { name: &name, cloud, is_processor })?;
        }
    }
    Ok(())
}

/// What a name stands for, as the workload's name server says.
fn resolve(workload: &Workload, name: &str) -> anyhow::Result<[IpAddr; 2]> {
    let server = workload.name_server()?;
    let one = |kind| {
        let answer = workload.run(|| dns::ask((server, 53).into(), name, kind, false))??;
        answer.records.first().with_context(|| format!("{name} has no {kind}"))?.parse().context("an address")
    };
    Ok([one(A)?, one(AAAA)?])
}

/// Says the marks to an echo and hears them again.
fn talk(client: &Workload, server: &Workload, to: SocketAddr) -> anyhow::Result<()> {
    let said = MARK.repeat(MARKS);
    let listener = server.run(|| TcpListener::bind(to))??;
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let (mut stream, _) = listener.accept()?;
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard)?;
            stream.write_all(&heard)
        });
        let mut stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&said)?;
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard)?;
        echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
        ensure!(heard == said, "what came back is not what was said");
        Ok(())
    })
}

/// The API of a processor in another cloud, as an administrator uses it.
fn administer(world: &World, from: &str, at: &str) -> anyhow::Result<()> {
    let token = world.file("admin.token", "")?;
    std::fs::remove_file(&token)?;
    world.ask(from, &["token", "admin", "--name", "far", "--save", &token.to_string_lossy()])?;
    let public = world.host(at)?.public.context("a public address")?;
    eventually("the API does not answer across", PATIENCE, || {
        let mut command = world.host(from)?.namespace.command(binary::selvedge()?);
        command.args(["--api", &format!("https://{public}:7443"), "--token-file"]).arg(&token);
        command.arg("--ca-file").arg(world.ca_file()?).args(["get", "contract", "-o", "json"]);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })?;
    Ok(())
}

/// The nodes on the way from the buyer to the front, by their places.
fn way(world: &World) -> anyhow::Result<Vec<String>> {
    let words = ["explain", "--from", "buyer@shop", "--to", "front@shop", "--port", "tcp/80"];
    let explained = world.ask("aws-w", &words)?;
    let hops = explained["hops"].as_array().into_iter().flatten();
    Ok(hops.filter_map(|hop| Some(hop["node"].as_str()?.to_owned())).collect())
}

/// Nothing but what the fabric says, sealed, and what finds neighbours.
fn judge(capture: &Capture) -> anyhow::Result<()> {
    println!("between clouds: {:?}", capture.counts());
    ensure!(capture.missed() == 0, "{} frames were not kept", capture.missed());
    let odd = |frame: &&Frame| match frame.kind {
        Kind::Arp | Kind::NeighbourDiscovery | Kind::Quic | Kind::ApiTls => false,
        Kind::Error | Kind::Foreign => true,
    };
    let odd = capture.frames().iter().find(odd);
    ensure!(odd.is_none(), "{}", odd.map(Frame::describe).unwrap_or_default());
    for kind in [Kind::Arp, Kind::Quic, Kind::ApiTls] {
        ensure!(capture.counts().contains_key(&kind), "no {kind:?}: {:?}", capture.counts());
    }
    // The name of the server in a TLS greeting is the same for all: it tells nothing.
    let clear: [&[u8]; 6] =
        [&MARK[..20], b"front@shop", b"web.shop", b"HTTP/1.1", b"spiffe://", b"selvedge-join-"];
    for clear in clear {
        let told = capture.find(clear);
        let text = String::from_utf8_lossy(clear);
        ensure!(told.is_none(), "{text} in clear: {}", told.map(Frame::describe).unwrap_or_default());
    }
    Ok(())
}

fn drill() -> anyhow::Result<()> {
    let mut world = World::new(&CLOUDS, SEED, Conditions::ORDINARY)?;
    world.clouds.watch(Ports::default());
    start(&mut world).with_context(|| world.logs())?;
    pass(&world).with_context(|| world.logs())?;
    judge(&world.clouds.captured().context("a capture")?)
}

fn pass(world: &World) -> anyhow::Result<()> {
    let graph =
        shop(&[("web", "tcp/80, udp/80, tcp/81")], &[("front", "server:web"), ("buyer", "client:web")]);
    let graph = world.file("graph.yaml", &graph)?.to_string_lossy().into_owned();
    world.ask("azr-1", &["apply", "-f", &graph, "--wait"])?;
    let mut server = world.workload("gcp-w", "front", "front@shop", &["tcp/80", "udp/80", "tcp/81"])?;
    server.serve(80)?;
    let client = world.workload("aws-w", "buyer", "buyer@shop", &[])?;

    eventually("a name does not lead there", PATIENCE, || {
        for address in resolve(&client, "web.shop.fabric.internal")? {
            ensure!(server.addresses.contains(&address), "{address} is not {:?}", server.addresses);
            ensure!(client.reaches(address, Probe::Tcp(80), ANSWER)?, "{address} does not answer");
        }
        Ok(())
    })?;
    for address in &server.addresses {
        talk(&client, &server, (*address, 81).into()).with_context(|| format!("with {address}"))?;
    }
    println!("the way: {:?}", way(world)?);
    administer(world, "aws-1", "gcp-1")?;

    world.clouds.cut("aws", "gcp", true)?;
    let cut = std::time::Instant::now();
    eventually("nothing goes around the cut", PATIENCE, || {
        for address in &server.addresses {
            ensure!(client.reaches(*address, Probe::Udp(80), SOON)?, "{address} does not answer");
        }
        Ok(())
    })?;
    println!("around the cut after {:?}, by {:?}", cut.elapsed(), way(world)?);
    eventually("the way does not lead around the cut", PATIENCE, || {
        let way = way(world)?;
        ensure!(way.iter().any(|node| node.starts_with("azr")), "{way:?}");
        Ok(())
    })?;
    for address in &server.addresses {
        talk(&client, &server, (*address, 81).into()).with_context(|| format!("with {address}"))?;
    }
    Ok(())
}

#[test]
fn a_fabric_over_far_clouds_carries_what_may_pass_and_shows_nothing() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
