//! Every node is killed, and one is started alone: it answers from its disk.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, ask, dns, eventually, limit};

const NAMES: usize = 1_000;
/// Contracts that one service serves; a service may play 256 roles.
const NAMES_PER_SERVICE: usize = 250;

fn graph() -> String {
    let mut text = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: many}\nspec: {}\n".to_owned();
    let document = "---\napiVersion: selvedge/v1\n";
    for number in 0..NAMES {
        let _ = write!(
            text,
            "{document}kind: Contract\nmetadata: {{name: c{number}, domain: many}}\n\
             spec: {{template: client-server, roles: {{server: {{ports: [tcp/8080]}}}}}}\n"
        );
    }
    for service in 0..NAMES / NAMES_PER_SERVICE {
        let first = service * NAMES_PER_SERVICE;
        let roles: Vec<_> = (first..first + NAMES_PER_SERVICE).map(|n| format!("server:c{n}")).collect();
        let _ = write!(
            text,
            "{document}kind: Service\nmetadata: {{name: s{service}, domain: many}}\nspec: {{roles: [{}]}}\n",
            roles.join(", ")
        );
    }
    text
}

fn drill() -> anyhow::Result<()> {
    let mut lab = Lab::start(&Options { graph: Some(graph()), ..Options::default() })?;
    ensure!(lab.contracts.len() == NAMES, "{} names", lab.contracts.len());
    lab.settle()?;
    for node in &mut lab.nodes {
        node.kill()?;
    }
    let names: Vec<_> = lab.contracts.iter().map(|name| lab.fqdn(name)).collect();
    let alone = lab.nodes.first_mut().context("a node")?;
    let exec = Instant::now();
    alone.restart()?;
    let alone = &*alone;
    let answered = |name: &str| -> anyhow::Result<()> {
        let found = dns::addresses(alone.dns, name)?;
        ensure!(!found.is_empty(), "{name} has no address");
        Ok(())
    };
    eventually("it does not answer", PATIENCE, || answered(&names[0]))?;
    for name in &names {
        answered(name)?;
    }
    let took = exec.elapsed();
    println!("{NAMES} names answered {took:?} after exec");
    ensure!(took < limit(Duration::from_secs(1)), "only after {took:?}");

    eventually("its status does not show how stale it is", PATIENCE, || {
        let status = ask(alone, &["status"])?;
        let stale = status["stale_nodes"].as_array().map_or(0, Vec::len);
        ensure!(stale > 0 && status["oldest_fact_ms"].as_u64().is_some(), "{status}");
        Ok(())
    })?;
    lab.close()
}

#[test]
fn one_node_alone_answers_from_its_disk() {
    drill().expect("the drill passes");
}
