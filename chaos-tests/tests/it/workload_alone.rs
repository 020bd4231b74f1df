//! A workload node that reaches no processor enforces its last policy and answers names from the first
//! second on; and one that reaches only a dishonest processor is not lied to.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use selvedge_chaos_tests::lab::{
    PATIENCE, dns, eventually,
    flood::{Flood, Flow, Guest},
    islands::{Island, Islands},
    kernel::{Own, with_own},
    limit, pins, shop,
    workload::{Probe, Workload},
    write_domain_at,
};
use selvedge_fabric::{
    id::NodeName,
    policy::PolicyState,
    statement::{Bundle, Claim, Statement, Succession, VoterSet},
};
use selvedge_transport::{Alpn, Handler, PeerIdentity, Transport};

use crate::rogue::{Rogue, Stolen};

const ISLANDS: [&str; 4] = ["hub", "west", "south", "edge"];
const CABLES: [(&str, &str); 4] = [("hub", "west"), ("hub", "south"), ("west", "south"), ("hub", "edge")];
const PROCESSORS: [(&str, &str); 3] = [("hub", "aws"), ("west", "azr"), ("south", "gcp")];
const PORT: u16 = 5000;
/// Long enough for a packet that may pass.
const SILENCE: Duration = Duration::from_millis(700);
/// How long to wait for what is asked again and again.
const SOON: Duration = Duration::from_millis(100);
/// Longest time that a rogue waits for who is to be lied about.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What is attached to the edge: `a` may ask `b`, `c` may not.
struct Scene {
    a: Workload,
    b: Workload,
    c: Workload,
    gateway: IpAddr,
}

impl Scene {
    fn set(islands: &Islands) -> anyhow::Result<Self> {
        let graph = shop(&[("ask", "udp/5000")], &[("a", "client:ask"), ("b", "server:ask"), ("c", "")]);
        islands.ask("hub", &["apply", "-f", &islands.file("graph.yaml", &graph)?, "--wait"])?;
        let b = islands.workload("edge", "b", "b@shop", &["udp/5000"])?;
        let a = islands.workload("edge", "a", "a@shop", &[])?;
        let c = islands.workload("edge", "c", "c@shop", &[])?;
        let names = fs::read_to_string("/etc/netns/a/resolv.conf")?;
        let gateway = names.lines().find_map(|line| line.strip_prefix("nameserver "));
        Ok(Self { a, b, c, gateway: gateway.context("no name server")?.parse()? })
    }

    /// Where b is, as one of them is told.
    fn told(&self, who: &Workload) -> anyhow::Result<Vec<String>> {
        let server = SocketAddr::new(self.gateway, 53);
        // A question that is lost is asked again soon.
        who.run(|| dns::addresses_within(server, "ask.shop.fabric.internal", SOON))?
    }

    /// Whether `b` answers `a`.
    fn passes(&self) -> anyhow::Result<bool> {
        self.a.reaches(self.b.addresses[0], Probe::Udp(PORT), SOON)
    }

    fn names_answer(&self) -> anyhow::Result<()> {
        let told = self.told(&self.a)?;
        ensure!(told == [self.b.addresses[0].to_string()], "a is told {told:?}");
        Ok(())
    }
}

fn three_voters(islands: &Islands) -> anyhow::Result<()> {
    eventually("no three voters", PATIENCE, || {
        let voters = islands.ask("hub", &["quorum", "status"])?["voters"].clone();
        ensure!(voters.as_array().is_some_and(|all| all.len() == 3), "{voters}");
        Ok(())
    })?;
    Ok(())
}

fn revision(islands: &Islands, island: &str) -> anyhow::Result<u64> {
    islands.ask(island, &["status"])?["revision"].as_u64().context("no revision")
}

fn drill() -> anyhow::Result<()> {
    let mut islands = Islands::new(&ISLANDS, &CABLES)?;
    let passed = pass(&mut islands);
    passed.with_context(|| ["hub", "edge"].map(|island| islands.log(island)).join("\n"))
}

fn pass(islands: &mut Islands) -> anyhow::Result<()> {
    for (name, zone) in PROCESSORS {
        islands.start(Island { name, role: "processor", zone })?;
    }
    islands.start(Island { name: "edge", role: "workload", zone: "aws" })?;
    three_voters(islands)?;
    let scene = Scene::set(islands)?;
    let tokens = [("a@shop", islands.service_token("a@shop")?), ("c@shop", islands.service_token("c@shop")?)];
    let guest = Guest::listen(&scene.b, PORT, &scene.a.addresses)?;
    let mut flood = Flood::default();
    let to = SocketAddr::new(scene.b.addresses[0], PORT);
    flood.add(&scene.c, to)?;
    let flow = Flow::start(&scene.a, to)?;
    eventually("the names do not answer at first", PATIENCE, || scene.names_answer())?;

    eventually("the edge has not the newest policy", PATIENCE, || {
        let [hub, edge] = ["hub", "edge"].map(|island| revision(islands, island));
        let (hub, edge) = (hub?, edge?);
        ensure!(hub == edge, "revision {edge}, the hub has {hub}");
        Ok(())
    })?;
    for (processor, _) in PROCESSORS {
        islands.stop(processor)?;
    }
    starts_alone(islands, &scene, || Ok(()))?;
    ensure!(flow.lost() == 0, "the flow on its host lost {} packets", flow.lost());
    // Once more, with nothing left in the kernel of the life before: what is enforced comes from its disk.
    drop(flow);
    starts_alone(islands, &scene, || {
        let mut mine = pins::links()?.into_iter().filter(|pin| pin.iter().any(|part| part == "edge"));
        mine.try_for_each(fs::remove_file)?;
        eventually("packets pass that nobody judges", PATIENCE, || {
            ensure!(!scene.passes()?, "one did");
            Ok(())
        })?;
        Ok(())
    })?;
    ensure!(guest.arrived() == 0, "{} forbidden datagrams arrived", guest.arrived());
    drop(guest);
    let guest = attaches_alone(islands, &scene, tokens)?;
    is_not_lied_to(islands, &scene)?;
    println!("{} forbidden datagrams sent, {} arrived", flood.sent(), guest.arrived());
    ensure!(guest.arrived() == 0, "{} forbidden datagrams arrived", guest.arrived());
    Ok(())
}

/// Killed and started, with something done in between: all is as it was, soon.
fn starts_alone(
    islands: &mut Islands,
    scene: &Scene,
    between: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    islands.stop("edge")?;
    between()?;
    let exec = Instant::now();
    islands.start_again("edge")?;
    eventually("names do not answer", PATIENCE, || scene.names_answer())?;
    let named = exec.elapsed();
    eventually("what is allowed does not pass", PATIENCE, || {
        ensure!(scene.passes()?, "no answer");
        Ok(())
    })?;
    let passed = exec.elapsed();
    println!("alone: names answered {named:?} and packets passed {passed:?} after exec");
    ensure!(named.max(passed) < limit(Duration::from_secs(1)), "only after {:?}", named.max(passed));
    ensure!(scene.told(&scene.c)?.is_empty(), "c may not ask, and is told whom");
    islands.is_ready("edge")
}

/// The policy is in force, not only what an earlier life left in the kernel: who comes now is decided by it.
fn attaches_alone(islands: &Islands, scene: &Scene, tokens: [(&str, String); 2]) -> anyhow::Result<Guest> {
    let mut late = Vec::new();
    for (name, (service, token)) in ["d", "e"].into_iter().zip(tokens) {
        let mut workload = Workload::new(name)?;
        workload.attach(&islands.socket("edge"), service, token.as_ref(), &[])?;
        late.push(workload);
    }
    let welcome = [&scene.a.addresses[..], &late[0].addresses].concat();
    let guest = Guest::listen(&scene.b, PORT, &welcome)?;
    let to = scene.b.addresses[0];
    eventually("who came alone and may pass does not", PATIENCE, || {
        ensure!(late[0].reaches(to, Probe::Udp(PORT), SILENCE)?, "no answer");
        Ok(())
    })?;
    let _ = late[1].reaches(to, Probe::Udp(PORT), SILENCE)?;
    ensure!(guest.arrived() == 0, "{} forbidden datagrams arrived", guest.arrived());
    Ok(guest)
}

/// Hands policy from an honest processor on, altered.
struct Liar {
    transport: Transport,
    honest: NodeName,
    lie: Mutex<Option<Lie>>,
    key: ed25519_dalek::SigningKey,
}

/// What a single processor could try.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// Another policy under the signatures of the true one.
    Altered,
    /// Its own signature over another policy, beside those over the true one.
    Signed,
    /// Its own signature alone.
    Alone,
    /// A set of voters that it alone appointed, and is.
    Voters,
}

const LIES: [(Lie, &str); 4] = [
    (Lie::Altered, "another hash"),
    (Lie::Signed, "signature"),
    (Lie::Alone, "1 of 3 voters signed, which is no majority"),
    (Lie::Voters, "the chain of voter sets is broken"),
];

impl Liar {
    fn says(&self, lie: Option<Lie>) {
        *self.lie.lock().unwrap_or_else(PoisonError::into_inner) = lie;
    }

    /// `c` may what `a` may.
    fn bend(mut policy: PolicyState) -> PolicyState {
        let key = |name| policy.objects.keys().find(|key| key.name == name).cloned().expect("it is there");
        let (a, c) = (key("a"), key("c"));
        let spec = policy.objects[&a].clone();
        policy.objects.insert(c, spec);
        policy
    }

    /// `sequence`: of the voters that are trusted.
    fn alter(&self, genuine: Bundle, lie: Lie, sequence: u64) -> Bundle {
        let policy = Self::bend(PolicyState::decode(&genuine.policy).expect("a policy"));
        let keys = PROCESSORS.map(|(name, _)| policy.nodes[&name.parse().expect("a name")].key);
        let voters = VoterSet { epoch: genuine.claim.epoch, sequence, voters: keys.into() };
        assert_eq!(voters.hash(&genuine.claim.fabric), genuine.claim.voters, "not the trusted voters");
        let bent = Bundle { policy: Bundle::policy_bytes(&policy), ..genuine.clone() };
        let claim = Claim { policy: policy.intent_hash(), ..genuine.claim };
        let mine = Statement::sign(claim, &self.key);
        match lie {
            Lie::Altered => bent,
            Lie::Signed => {
                let mut signatures = genuine.signatures;
                signatures.insert(mine.voter, mine.signature);
                Bundle { claim, signatures, ..bent }
            }
            Lie::Alone => Bundle { claim, signatures: [(mine.voter, mine.signature)].into(), ..bent },
            Lie::Voters => self.usurp(bent, claim, &voters),
        }
    }

    /// The next set of voters is this node.
    fn usurp(&self, bent: Bundle, claim: Claim, trusted: &VoterSet) -> Bundle {
        let sequence = trusted.sequence + 1;
        let set = VoterSet { sequence, voters: [self.me()].into(), ..trusted.clone() };
        let signature = trusted.sign_successor(&set, &claim.fabric, &self.key);
        let claim = Claim { voters: set.hash(&claim.fabric), ..claim };
        let mine = Statement::sign(claim, &self.key);
        let chain = vec![Succession { set, signatures: [(self.me(), signature)].into() }];
        Bundle { claim, signatures: [(mine.voter, mine.signature)].into(), chain, ..bent }
    }

    fn me(&self) -> selvedge_fabric::key::PublicKey {
        selvedge_fabric::key::Signer::public_key(&self.key)
    }
}

#[async_trait]
impl Handler for Liar {
    async fn request(&self, _: Option<PeerIdentity>, _: SocketAddr, body: Bytes) -> Result<Bytes, String> {
        // A version and the kind of question; for policy the revision that is there, and whose voters.
        let asked = postcard::take_from_bytes::<(u8, u8, u64, u64)>(&body).map(|(asked, _)| asked);
        let answer = self.transport.request(&self.honest, Alpn::Fabric, body.clone(), ASK_LIMIT).await;
        let answer = answer.map_err(|e| e.to_string())?;
        let lie = *self.lie.lock().unwrap_or_else(PoisonError::into_inner);
        let held = postcard::take_from_bytes::<(u8, u8, Option<Vec<u8>>)>(&answer);
        let (Some(lie), Ok((1, 0, _, sequence)), Ok(((1, 0, Some(bundle)), rest))) = (lie, asked, held)
        else {
            return Ok(answer);
        };
        let genuine = Bundle::decode(&bundle).map_err(|e| e.to_string())?;
        let altered = self.alter(genuine, lie, sequence);
        let mut told =
            postcard::to_stdvec(&(1_u8, 0_u8, Some(altered.encode()))).map_err(|e| e.to_string())?;
        told.extend_from_slice(rest);
        Ok(told.into())
    }
}

/// The only processor that it reaches is dishonest: what that altered is refused, and what it did not is not.
fn is_not_lied_to(islands: &mut Islands, scene: &Scene) -> anyhow::Result<()> {
    for honest in ["west", "south"] {
        islands.start_again(honest)?;
    }
    for honest in ["west", "south"] {
        islands.is_ready(honest)?;
    }
    let had = revision(islands, "edge")?;
    eventually("no write without the hub", PATIENCE, || {
        let done = write_domain_at(&islands.socket("west"), "news")?;
        ensure!(done.code == 0, "{}", done.stderr);
        Ok(())
    })?;
    let stolen = Stolen::from(&islands.data("hub"))?;
    let rogue = Rogue::start(islands, &stolen, &["west"])?;
    let liar = Arc::new(Liar {
        transport: rogue.transport.clone(),
        honest: "west".parse()?,
        lie: Mutex::new(Some(Lie::Altered)),
        key: stolen.key.clone(),
    });
    rogue.handle(Alpn::Fabric, liar.clone());
    for (lie, words) in LIES {
        liar.says(Some(lie));
        eventually(&format!("{lie:?} is not refused"), PATIENCE, || {
            let events = islands.ask("edge", &["events"])?;
            let refused = events.as_array().into_iter().flatten().filter(|e| e["code"] == "policy-refused");
            let said: Vec<_> = refused.map(|e| (e["subject"].clone(), e["message"].to_string())).collect();
            ensure!(said.iter().any(|(who, why)| who == "hub" && why.contains(words)), "{said:?}");
            Ok(())
        })?;
        let now = revision(islands, "edge")?;
        ensure!(now == had, "{lie:?}: from revision {had} to {now}");
    }
    ensure!(scene.told(&scene.c)?.is_empty(), "c may not ask, and is told whom");
    liar.says(None);
    eventually("what was not altered is not taken", PATIENCE, || {
        let now = revision(islands, "edge")?;
        ensure!(now > had, "revision {now}");
        Ok(())
    })?;
    println!("{} altered bundles refused, and the genuine one taken", LIES.len());
    Ok(())
}

#[test]
fn a_workload_node_alone_enforces_its_last_policy_and_believes_no_single_processor() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
