//! Who must not get in does not: refused with exit code 1 and a reason, and seen as an event by the
//! processor that was asked.

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, LabNode, Newcomer, Options, ask, event, run};
use selvedge_fabric::{
    key::{FabricId, Hash},
    token::{JoinTokenText, Secret},
};

/// Exit code of a refusal.
const REFUSED: i32 = 1;
/// One hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// Makes a join token for a processor in gcp; returns its id and its text.
fn fresh(node: &LabNode, ttl: &str) -> anyhow::Result<(String, String)> {
    let created = ask(node, &["token", "join", "--role", "processor", "--zone", "gcp", "--ttl", ttl])?;
    let field = |name: &str| created[name].as_str().map(str::to_owned).context("no token");
    Ok((field("id")?, field("token")?))
}

/// A good token, changed by somebody who knows its format: what it says of itself is only a hint, and
/// the processor must not believe it.
fn forged(node: &LabNode, change: impl FnOnce(&mut JoinTokenText)) -> anyhow::Result<String> {
    let mut token = JoinTokenText::parse(&fresh(node, "1h")?.1)?;
    change(&mut token);
    Ok(token.expose()?)
}

fn refused(name: &str, newcomer: Newcomer, words: &[&str]) -> anyhow::Result<()> {
    let ended = newcomer.ends()?;
    ensure!(ended.code == REFUSED, "{name}: exit code {}\n{}", ended.code, ended.stderr);
    let error = ended.stderr.lines().find(|line| line.contains("error:")).unwrap_or_default();
    for word in words {
        ensure!(error.contains(word), "{name}: no {word:?} in {error:?}\n{}", ended.stderr);
    }
    println!("{name}: {error}");
    Ok(())
}

/// Refused by the processor, for everybody to see.
fn refused_there(node: &LabNode, name: &str, token: &str, words: &[&str]) -> anyhow::Result<()> {
    refused(name, Newcomer::join(name, token, &[])?, words)?;
    event(node, "join-refused", words)
}

fn by_the_processor(node: &LabNode, used_up: &str) -> anyhow::Result<()> {
    refused_there(node, "used-up", used_up, &["used"])?;
    refused_there(node, "azr-p1", &fresh(node, "1h")?.1, &["azr-p1", "key"])?;

    let (id, token) = fresh(node, "1h")?;
    ask(node, &["token", "revoke", &id])?;
    refused_there(node, "revoked-token", &token, &[&id, "unknown or revoked"])?;

    let guessed = forged(node, |t| t.secret = Secret::new([7; 32]))?;
    refused_there(node, "wrong-secret", &guessed, &["wrong secret"])?;
    let moved = forged(node, |t| t.zone = "azr".parse().expect("a zone"))?;
    refused_there(node, "other-zone", &moved, &["zone gcp, not azr"])?;
    let foreign = forged(node, |t| t.fabric = FabricId([9; 16]))?;
    refused_there(node, "other-fabric", &foreign, &["the token is of another"])
}

/// Expired for the processor, although its text says otherwise; and without a processor being asked.
fn expired(node: &LabNode) -> anyhow::Result<()> {
    let (_, token) = fresh(node, "1s")?;
    let mut prolonged = JoinTokenText::parse(&token)?;
    prolonged.not_after_ms += HOUR_MS;
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    refused("expired", Newcomer::join("expired", &token, &[])?, &["expired", "token join"])?;
    refused_there(node, "prolonged", &prolonged.expose()?, &["has expired"])
}

fn drill() -> anyhow::Result<()> {
    let clouds = Some("aws,azr".to_owned());
    let lab = Lab::start(&Options { clouds, processors: 1, ..Options::default() })?;
    let first = lab.nodes.first().context("a node")?;
    let before = run(first, &["members"])?;

    // Somebody else's fabric answers where the token's should. It may be but one of its seeds, so
    // joining goes on for a while: meanwhile, the others.
    let wrong_ca = forged(first, |t| t.ca_pin = Hash([1; 32]))?;
    let wrong_ca = Newcomer::join("wrong-ca", &wrong_ca, &[])?;

    let used_up = std::fs::read_to_string(lab.nodes[1].dir.join("join.token"))?;
    by_the_processor(first, &used_up)?;
    expired(first)?;
    let elsewhere = Newcomer::join("elsewhere", &fresh(first, "1h")?.1, &["--zone", "aws"])?;
    refused("elsewhere", elsewhere, &["zone gcp", "zone aws"])?;
    refused("wrong-ca", wrong_ca, &["no seed admitted", "CA is not the one"])?;
    event(first, "peer-refused", &["does not accept the certificate of this node", "pins another CA"])?;

    let after = run(first, &["members"])?;
    let count = |text: &str| text.lines().count();
    ensure!(count(&before.stdout) == count(&after.stdout), "somebody got in:\n{}", after.stdout);
    lab.close()
}

#[test]
fn who_must_not_join_does_not_and_is_seen() {
    drill().expect("the drill passes");
}
