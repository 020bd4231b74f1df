//! Two clouds of three are gone, and a node of the third is not to be trusted: the recovery key cuts it
//! off without a quorum, and the policy says so when the clouds are back.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, ask, dns, event, eventually, run, write_domain};

use crate::two_clouds::{register, service_token};

/// Exit code of a write without a quorum.
const NO_QUORUM: i32 = 4;
/// The node that stays, and the one of the same cloud that is cut off.
const STAYS: &str = "aws-p1";
const BAD: &str = "aws-p2";
/// Joins the fabric while it has a quorum, and is away when the revocation is made.
const AWAY: &str = "aws-w1";

/// The file that `fabric init` made; a playground leaves it with its first node.
fn recovery_key(lab: &Lab) -> anyhow::Result<PathBuf> {
    for node in &lab.nodes {
        for entry in std::fs::read_dir(node.data())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("recovery-") && name.ends_with(".key") {
                return Ok(entry.path());
            }
        }
    }
    anyhow::bail!("no recovery key in any data directory")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What cannot revoke: no key, a file that is none, one that others can read, another fabric's.
fn wrong_keys_are_refused(lab: &mut Lab, genuine: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let stays = lab.node(STAYS)?;
    let without = run(stays, &["node", "revoke", BAD])?;
    ensure!(without.code == NO_QUORUM, "exit code {}: {}", without.code, without.stderr);
    ensure!(without.stderr.contains("--recovery-key"), "{}", without.stderr);

    let other = dir.path().join("other");
    let data = text(&other);
    let made = run(
        stays,
        &["fabric", "init", "--name", "other", "--node", "o1", "--zone", "aws", "--data-dir", &data],
    )?;
    ensure!(made.code == 0, "{}", made.stderr);
    let exposed = dir.path().join("exposed.key");
    std::fs::copy(genuine, &exposed)?;
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644))?;
    let cases = [
        (other.join("recovery-other.key"), "does not hold the recovery key of this fabric"),
        (other.join("node.key"), "does not hold the recovery key of this fabric"),
        (exposed, "mode"),
        (dir.path().join("absent.key"), "no such file"),
    ];
    for (file, word) in cases {
        let refused = run(stays, &["node", "revoke", BAD, "--recovery-key", &text(&file)])?;
        ensure!(refused.code != 0, "{} revoked a node", file.display());
        ensure!(refused.stderr.contains(word), "{}: {}", file.display(), refused.stderr);
    }
    let members = ask(stays, &["members"])?;
    let bad = members.as_array().into_iter().flatten().find(|m| m["name"] == BAD).context("a member")?;
    ensure!(bad["admission"] == "active", "{bad}");
    Ok(())
}

fn is_out(lab: &mut Lab, on: &str, gone: &str) -> anyhow::Result<()> {
    let names: Vec<_> = lab.contracts.iter().map(|name| lab.fqdn(name)).collect();
    let node = lab.node(on)?;
    let members = ask(node, &["members"])?;
    let bad = members.as_array().into_iter().flatten().find(|m| m["name"] == BAD).context("a member")?;
    ensure!(bad["admission"] == "revoked" && bad["state"] != "alive", "{on} sees {bad}");
    for name in &names {
        let found = dns::addresses(node.dns, name)?;
        ensure!(!found.iter().any(|a| a == gone), "{on} names {gone} for {name}");
    }
    Ok(())
}

fn alarmed(lab: &mut Lab, on: &str, expected: bool) -> anyhow::Result<()> {
    let status = ask(lab.node(on)?, &["status"])?;
    let alarms = status["alarms"].as_array().into_iter().flatten();
    let found = alarms.into_iter().any(|a| a["code"] == "emergency-revocation");
    ensure!(found == expected, "{on}: {}", status["alarms"]);
    Ok(())
}

fn drill() -> anyhow::Result<()> {
    let mut lab = Lab::start(&Options { workloads: 1, ..Options::default() })?;
    let key = recovery_key(&lab)?;
    let dir = tempfile::tempdir()?;
    let token = service_token(lab.node(STAYS)?, dir.path())?;
    let gone = register(lab.node(BAD)?, &token)?;
    eventually("the endpoint of the bad node is not named", PATIENCE, || {
        let name = lab.fqdn("voting-frontend.voting-app");
        let found = dns::addresses(lab.node(STAYS)?.dns, &name)?;
        ensure!(found.contains(&gone), "{found:?}");
        Ok(())
    })?;
    lab.settle()?;

    let clouds = lab.clouds();
    for cloud in clouds.iter().filter(|c| *c != "aws") {
        lab.kill_cloud(cloud)?;
    }
    lab.node(AWAY)?.kill()?;
    eventually("writes are not refused", PATIENCE, || wrong_keys_are_refused(&mut lab, &key))?;

    let revoked = run(lab.node(STAYS)?, &["node", "revoke", BAD, "--recovery-key", &text(&key)])?;
    ensure!(revoked.code == 0, "{}", revoked.stderr);
    let took = eventually("the revoked node is still in", PATIENCE, || is_out(&mut lab, STAYS, &gone))?;
    println!("{BAD} is out on {STAYS} after {took:?}, without a quorum");
    alarmed(&mut lab, STAYS, true)?;
    event(lab.node(STAYS)?, "emergency-revocation", &[BAD])?;
    // It asks and asks, and is refused for this very reason.
    event(lab.node(STAYS)?, "peer-refused", &[BAD, "recovery key"])?;

    // Who was away hears of it, and a restart does not forget it.
    lab.node(AWAY)?.restart()?;
    let took = eventually("a node that was away lets it in", PATIENCE, || is_out(&mut lab, AWAY, &gone))?;
    println!("{BAD} is out on {AWAY}, a workload node that was away, after {took:?}");
    lab.node(STAYS)?.kill()?;
    lab.node(STAYS)?.restart()?;
    eventually("a restart forgets the revocation", PATIENCE, || {
        is_out(&mut lab, STAYS, &gone)?;
        alarmed(&mut lab, STAYS, true)
    })?;

    lab.restart_all()?;
    for on in [STAYS, AWAY, "azr-p1", "gcp-p2"] {
        let took = eventually("it does not become policy", PATIENCE, || {
            is_out(&mut lab, on, &gone)?;
            alarmed(&mut lab, on, false)
        })?;
        println!("{on} has it as policy after {took:?}");
    }
    let history = ask(lab.node("azr-p1")?, &["history"])?.to_string();
    ensure!(history.contains(&format!("{BAD} revoked")), "{history}");
    eventually("writes do not go on", PATIENCE, || {
        let written = write_domain(lab.node("azr-p1")?, "after-the-emergency")?;
        ensure!(written.code == 0, "{}", written.stderr);
        Ok(())
    })?;
    lab.close()
}

#[test]
fn the_recovery_key_cuts_a_node_off_without_a_quorum() {
    drill().expect("the drill passes");
}
