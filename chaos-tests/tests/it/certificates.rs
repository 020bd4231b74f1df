//! A fabric that was off until all its certificates had expired comes back by itself.

use std::{thread::sleep, time::Duration};

use selvedge_chaos_tests::{
    lab::{Lab, Options},
    scenario::kill9::writes_go_on,
};

const LIFETIME: Duration = Duration::from_secs(20);

fn drill() -> anyhow::Result<()> {
    let node_config = format!("[certificates]\nlifetime = \"{}s\"\n", LIFETIME.as_secs());
    let mut lab = Lab::start(&Options { node_config: Some(node_config), ..Options::default() })?;
    // Longer than a lifetime: they have been renewed while it ran.
    sleep(LIFETIME + Duration::from_secs(5));
    lab.settle()?;
    for node in &mut lab.nodes {
        node.kill()?;
    }
    sleep(LIFETIME + Duration::from_secs(5));
    lab.restart_all()?;
    let back = lab.settle()?;
    println!("all nodes agree {back:?} after the restart");
    writes_go_on(&lab, "after-expiry")?;
    lab.close()
}

#[test]
fn a_fabric_with_expired_certificates_comes_back() {
    drill().expect("the drill passes");
}
