//! A contract that is withdrawn cuts established connections by the time that `apply --wait` returns; one
//! that is added lets new ones through without anything being started again. A node that cannot enforce
//! it is named.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, eventually,
    islands::{Island, Islands},
    kernel::{Own, with_own},
    shop,
    workload::{Probe, Workload},
};

/// How long nothing must arrive on a connection that was cut; TCP sends again several times meanwhile.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends a byte and waits for it to come back.
fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

fn drill() -> anyhow::Result<()> {
    let names = ["hub", "left", "right"];
    let mut islands = Islands::new(&names, &[("hub", "left"), ("hub", "right")])?;
    for (name, role, zone) in
        [("hub", "processor", "aws"), ("left", "workload", "azr"), ("right", "workload", "gcp")]
    {
        islands.start(Island { name, role, zone })?;
    }
    let graph = |roles| shop(&[("web", "tcp/80")], &[("front", "server:web"), ("buyer", roles)]);
    let with = islands.file("with.yaml", &graph("client:web"))?;
    let without = islands.file("without.yaml", &graph(""))?;
    let apply = |file: &str| islands.ask("hub", &["apply", "-f", file, "--wait"]);
    apply(&with)?;
    let server = islands.workload("right", "front", "front@shop", &["tcp/80"])?;
    let client = islands.workload("left", "buyer", "buyer@shop", &[])?;
    for &address in &server.addresses {
        cut_and_mended(&client, &server, address, &|| apply(&without).map(drop), &|| apply(&with).map(drop))
            .with_context(|| names.map(|name| islands.log(name)).join("\n"))?;
    }

    // A node that is not there is named, and does not hold up those who leave it out.
    islands.stop("right")?;
    let refused = islands.run("hub", &["apply", "-f", &without, "--wait", "--timeout", "3s"])?;
    ensure!(refused.code == 5 && refused.stdout.contains("right"), "{refused:?}");
    eventually("it waits for a node that is down", PATIENCE, || {
        let live = islands.run("hub", &["apply", "-f", &with, "--wait=live", "--timeout", "3s"])?;
        ensure!(live.code == 0, "{live:?}");
        Ok(())
    })?;
    Ok(())
}

fn cut_and_mended(
    client: &Workload,
    server: &Workload,
    address: IpAddr,
    withdraw: &dyn Fn() -> anyhow::Result<()>,
    grant: &dyn Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let to = SocketAddr::new(address, 80);
    let listener = server.run(|| TcpListener::bind(to))??;
    // Two connections, which both end with this test.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(2).flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    let connect = || client.run(|| TcpStream::connect_timeout(&to, SILENCE))?.context("no connection");
    let mut stream = None;
    eventually("no connection", PATIENCE, || {
        stream = Some(connect()?);
        Ok(())
    })?;
    let mut stream = stream.context("a connection")?;
    stream.set_read_timeout(Some(SILENCE))?;
    echo(&mut stream).context("before")?;

    withdraw()?;
    ensure!(echo(&mut stream).is_err(), "{to}: the contract is withdrawn, and its connection goes on");
    ensure!(!client.reaches(address, Probe::Tcp(80), SILENCE)?, "{to}: a new connection without a contract");

    grant()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut fresh = connect().context("granted again")?;
    fresh.set_read_timeout(Some(PATIENCE))?;
    echo(&mut fresh).context("granted again")?;
    // The old one was silent, not reset: it takes up where it was.
    stream.read_exact(&mut [0]).context("the old connection")
}

#[test]
fn a_withdrawn_contract_cuts_and_a_granted_one_lets_through() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
