//! As people ask: `dig` (BIND) and `kdig` (Knot), whose reading of the standards is not ours.
//!
//! Without these programs the tests say that they were skipped; with `SELVEDGE_REQUIRE_KERNEL=1`, as in
//! continuous integration, they fail.

use std::{io, net::SocketAddr};

use tokio::process::Command;

use crate::{
    client::start,
    fixture::{crowd, reverse_of, v4, v6},
};

/// What `program` prints; `None` when it is not installed.
async fn run(program: &str, server: SocketAddr, args: &str) -> Option<String> {
    let at = format!("@{}", server.ip());
    let fixed = [at.as_str(), "-p", &server.port().to_string(), "+time=5", "+retry=2"].map(str::to_owned);
    match Command::new(program).args(fixed).args(args.split_whitespace()).kill_on_drop(true).output().await {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let required = std::env::var_os("SELVEDGE_REQUIRE_KERNEL").is_some_and(|value| value == "1");
            assert!(!required, "{program} is not installed, and SELVEDGE_REQUIRE_KERNEL=1");
            eprintln!("SKIPPED: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

async fn check(program: &str) {
    let site = start(|_| {}, crowd(60)).await;
    let (of_v4, of_v6) = (reverse_of(v4(102).unwrap()), reverse_of(v6(1).unwrap()));
    for (args, expected) in [
        ("web.shop.fabric.internal A", "100.64.1.1\n100.64.1.2\n"),
        ("WEB.shop.fabric.internal AAAA", "fd12:3456:789a:1::1\n"),
        ("_web._udp.shop.fabric.internal SRV", "20 100 80 web-2.ep.fabric.internal.\n"),
        (&format!("{of_v4} PTR"), "far.node.fabric.internal.\n"),
        (&format!("{of_v6} PTR"), "web-1.ep.fabric.internal.\n"),
        ("fabric.internal NS", "near.node.fabric.internal.\n"),
        ("fabric.internal SOA", "near.node.fabric.internal. hostmaster.fabric.internal. 7 1 1 1 1\n"),
        ("web.shop.fabric.internal ANY +notcp", "\"RFC8482\" \"\"\n"),
        ("web.shop.fabric.internal MX", ""),
    ] {
        for transport in ["+notcp", "+tcp"] {
            let Some(printed) = run(program, site.address(), &format!("+short {args} {transport}")).await
            else {
                return;
            };
            assert_eq!(printed, expected, "{program} {args} {transport}");
        }
    }
    for (args, expected) in [
        ("nope.shop.fabric.internal A", &["NXDOMAIN", "SOA", "aa"][..]),
        ("shop.fabric.internal A", &["NOERROR", "SOA", "aa"]),
        ("web.shop.fabric.internal A +edns=1", &["BADVERS"]),
        ("example.org A", &["REFUSED"]),
        ("many.shop.fabric.internal A +noedns +notcp +ignore", &["NOERROR", " tc", "100.64.1.1\n"]),
        ("many.shop.fabric.internal A +tcp", &["ANSWER: 60"]),
    ] {
        // dig would ask again with the version that we speak.
        let args = if program == "dig" { format!("{args} +noednsnegotiation") } else { args.to_owned() };
        let Some(printed) = run(program, site.address(), &args).await else { return };
        for part in expected {
            assert!(printed.contains(part), "{program} {args}: no {part} in\n{printed}");
        }
    }
    site.dns.shutdown().await;
}

#[tokio::test]
async fn dig_reads_our_answers() {
    check("dig").await;
}

#[tokio::test]
async fn kdig_reads_our_answers() {
    check("kdig").await;
}
