//! Everything that can happen to a node while a flood of forbidden packets goes on: none of them arrives,
//! and what may pass goes on.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    Newcomer, PATIENCE, ask, binary, event, eventually,
    flood::{Flood, Flow, Guest},
    founder::Founder,
    kernel::{self, Own, mount_memory, with_own},
    pins, shop,
    workload::Workload,
};

/// `a` may ask `b` at udp/5000. `c` may ask nobody.
fn graph() -> String {
    shop(&[("ask", "udp/5000, tcp/80")], &[("a", "client:ask"), ("b", "server:ask"), ("c", "")])
}

const OPEN_PORT: u16 = 5000;
const CLOSED_PORT: u16 = 9999;
/// Forbidden datagrams of the whole siege, at least.
const FORBIDDEN: u64 = 1_000_000;
/// Room for the node, so that its disk is soon full.
const DISK_MEBIBYTES: u32 = 64;
/// How long things are left broken.
const A_WHILE: Duration = Duration::from_secs(1);
const TUN: &str = "selvedge0";

/// A host with three workloads, under attack.
struct Siege {
    flood: Flood,
    flow: Flow,
    /// At a port that no contract states, and at one that one states for others.
    guests: [Guest; 2],
    b: Workload,
    others: [Workload; 2],
    founder: Founder,
}

fn attached(founder: &Founder, name: &str) -> anyhow::Result<Workload> {
    let ports: &[&str] = if name == "b" { &["udp/5000", "tcp/80"] } else { &[] };
    founder.workload(name, &format!("{name}@shop"), ports)
}

impl Siege {
    fn begin(founder: Founder) -> anyhow::Result<Self> {
        founder.apply(&graph())?;
        let (a, b) = (attached(&founder, "a")?, attached(&founder, "b")?);
        let c = attached(&founder, "c")?;
        let guests = [Guest::listen(&b, CLOSED_PORT, &[])?, Guest::listen(&b, OPEN_PORT, &a.addresses)?];
        let (to_v4, to_v6) = (b.addresses[0], b.addresses[1]);
        let flow = Flow::start(&a, (to_v4, OPEN_PORT).into())?;
        eventually("the flow does not begin", PATIENCE, || {
            ensure!(flow.answered() > 0, "no answer");
            Ok(())
        })?;
        let mut flood = Flood::default();
        flood.add(&a, (to_v4, CLOSED_PORT).into())?;
        flood.add(&a, (to_v6, CLOSED_PORT).into())?;
        flood.add(&c, (to_v4, OPEN_PORT).into())?;
        flood.add(&c, (to_v6, OPEN_PORT).into())?;
        Ok(Self { flood, flow, guests, b, others: [a, c], founder })
    }

    /// Does something, and expects that nothing forbidden arrived until now.
    fn while_sieged(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (before, lost) = (self.flow.answered(), self.flow.lost());
        let overflow = overflowed()?;
        act(self).with_context(|| what.to_owned())?;
        let arrived: Vec<_> = self.guests.iter().map(Guest::arrived).collect();
        let (answered, lost) = (self.flow.answered() - before, self.flow.lost() - lost);
        println!(
            "{what}: {} forbidden sent so far, {arrived:?} arrived; the flow: {answered} answered, {lost} lost, \
             {} overflows",
            self.flood.sent(),
            overflowed()? - overflow,
        );
        ensure!(arrived == [0, 0], "{what}: {arrived:?} forbidden datagrams arrived");
        Ok(())
    }

    /// The same, and the flow loses nothing.
    fn without_loss(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (before, lost) = (self.flow.answered(), self.flow.lost());
        self.while_sieged(what, act)?;
        self.goes_on()?;
        ensure!(self.flow.lost() == lost, "{what}: the flow lost {} packets", self.flow.lost() - lost);
        ensure!(self.flow.answered() > before + 10, "{what}: the flow stood still");
        Ok(())
    }

    /// The flow is answered, from now on.
    fn goes_on(&self) -> anyhow::Result<()> {
        let now = self.flow.answered();
        let goes_on = || {
            ensure!(self.flow.answered() > now + 10, "{} answered since", self.flow.answered() - now);
            Ok(())
        };
        eventually("the flow does not go on", PATIENCE, goes_on).map(drop)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.founder.node.restart()?;
        self.founder.is_ready()
    }

    fn killed_and_restarted(&mut self) -> anyhow::Result<()> {
        self.founder.node.kill()?;
        std::thread::sleep(A_WHILE);
        self.restart()
    }

    fn stopped_and_restarted(&mut self) -> anyhow::Result<()> {
        self.founder.node.stop()?;
        std::thread::sleep(A_WHILE);
        self.restart()
    }

    /// The disk is full, and the node dies on it.
    fn disk_full(&mut self) -> anyhow::Result<()> {
        let ballast = self.founder.node.dir.join("ballast");
        let full = std::io::copy(&mut std::io::repeat(7), &mut fs::File::create(&ballast)?);
        ensure!(full.is_err(), "the disk does not get full");
        std::thread::sleep(A_WHILE);
        self.founder.node.kill()?;
        // Whether it can start on a full disk is its own affair; here it is about packets.
        self.founder.node.restart()?;
        std::thread::sleep(A_WHILE);
        self.founder.node.kill()?;
        fs::remove_file(&ballast)?;
        self.restart()
    }

    /// A file of the node is damaged: it says so and does not start.
    fn damaged(&mut self, name: &str) -> anyhow::Result<()> {
        self.founder.node.kill()?;
        let file = self.founder.node.data().join(name);
        let good = fs::read(&file).with_context(|| file.display().to_string())?;
        fs::write(&file, &good[..good.len() / 2])?;
        let ended = Newcomer::run(&self.founder.node.config())?.ends()?;
        ensure!(ended.code == 1 && !ended.stderr.contains("panicked"), "{}: {}", ended.code, ended.stderr);
        let error = ended.stderr.split("error:").nth(1).context("no error")?;
        for word in [name, "damaged", "move it away"] {
            ensure!(error.contains(word), "no {word:?} in {error:?}");
        }
        fs::write(&file, good)?;
        self.restart()
    }

    /// Every file of the replica is overwritten: the node says so and does not start.
    fn replica_overwritten(&mut self) -> anyhow::Result<()> {
        self.founder.node.kill()?;
        let (raft, aside) = (self.founder.node.data().join("raft"), self.founder.node.dir.join("aside"));
        kernel::run("cp", &["-a", &raft.to_string_lossy(), &aside.to_string_lossy()])?;
        overwrite(&raft)?;
        let ended = Newcomer::run(&self.founder.node.config())?.ends()?;
        ensure!(ended.code == 1 && ended.stderr.contains("raft"), "{}: {}", ended.code, ended.stderr);
        fs::remove_dir_all(&raft)?;
        fs::rename(&aside, &raft)?;
        self.restart()
    }

    /// Every file of the facts is overwritten: the node sets them aside and starts.
    fn facts_overwritten(&mut self) -> anyhow::Result<()> {
        self.founder.node.kill()?;
        overwrite(&self.founder.node.data().join("facts"))?;
        self.restart()?;
        event(&self.founder.node, "facts-set-aside", &[])
    }

    /// The links' pins are removed while the node runs.
    fn unpinned(&mut self) -> anyhow::Result<()> {
        let links = pins::links()?;
        ensure!(links.len() == 6, "{links:?}");
        links.iter().try_for_each(fs::remove_file)?;
        event(&self.founder.node, "enforcement-removed", &["pin"])?;
        eventually("the pins do not come back", PATIENCE, || {
            ensure!(pins::links()? == links, "{:?}", pins::links()?);
            Ok(())
        })?;
        Ok(())
    }

    /// Programs are taken from their interfaces, of each hook in turn.
    fn detached(&mut self) -> anyhow::Result<()> {
        for hook in ["leave", "arrive"] {
            let mine: Vec<_> = pins::links()?.into_iter().filter(|pin| ends_with(pin, hook)).collect();
            ensure!(mine.len() == 3, "{mine:?}");
            let before = told(&self.founder, "enforcement-removed")?;
            mine.iter().try_for_each(|pin| pins::detach(pin))?;
            eventually("it is not noticed", PATIENCE, || {
                let now = told(&self.founder, "enforcement-removed")?;
                ensure!(now >= before + mine.len(), "{now} events, {before} before");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Every program is taken from its interface at once.
    fn all_detached(&mut self) -> anyhow::Result<()> {
        let before = told(&self.founder, "enforcement-removed")?;
        pins::links()?.iter().try_for_each(|pin| pins::detach(pin))?;
        eventually("it is not noticed", PATIENCE, || {
            let now = told(&self.founder, "enforcement-removed")?;
            ensure!(now >= before + 3, "{now} events, {before} before");
            Ok(())
        })?;
        self.goes_on()
    }

    /// Nobody is there to put back what is taken away: the pins, and so the programs.
    fn unpinned_while_dead(&mut self) -> anyhow::Result<()> {
        self.founder.node.kill()?;
        pins::links()?.iter().try_for_each(fs::remove_file)?;
        std::thread::sleep(A_WHILE);
        self.restart()?;
        self.goes_on()
    }

    /// The binary of another version follows, whose maps have another layout: it finds none that it may adopt.
    fn changed_to(&mut self, binary: PathBuf) -> anyhow::Result<()> {
        self.founder.node.kill()?;
        self.founder.node.binary = Some(binary);
        let (former, before) = (pins::maps()?, pins::links()?);
        std::thread::sleep(A_WHILE);
        self.restart()?;
        eventually("the maps of the version before stay", PATIENCE, || {
            ensure!(!former.exists() && pins::maps()? != former, "they are there");
            Ok(())
        })?;
        ensure!(pins::links()? == before, "{:?}, {before:?} before", pins::links()?);
        self.goes_on()
    }

    /// Routes, neighbours and addresses of a workload are deleted, and its settings changed.
    fn unwired(&mut self) -> anyhow::Result<()> {
        let listed = ask(&self.founder.node, &["attachments"])?;
        let mine = listed.as_array().into_iter().flatten().find(|a| a["endpoint"] == self.b.endpoint);
        let interface = mine.and_then(|a| a["interface"].as_str()).context("its interface")?.to_owned();
        let (v4, v6) = (self.b.addresses[0].to_string(), self.b.addresses[1].to_string());
        let dev = ["dev", &interface];
        let steps: [(&str, Vec<&str>); 5] = [
            ("the route to", [&["route", "del", &v4][..], &dev].concat()),
            ("the route to", [&["-6", "route", "del", &v6][..], &dev].concat()),
            ("the neighbour", [&["neigh", "del", &v4][..], &dev].concat()),
            ("the gateway's address", [&["addr", "flush"][..], &dev].concat()),
            ("the route to", vec!["link", "set", &interface, "down"]),
        ];
        for (what, words) in steps {
            let before = told(&self.founder, "wiring-restored")?;
            kernel::run("ip", &words)?;
            eventually(&format!("{words:?} is not noticed"), PATIENCE, || {
                ensure!(told(&self.founder, "wiring-restored")? > before, "no event");
                Ok(())
            })?;
            event(&self.founder.node, "wiring-restored", &[what])?;
            self.goes_on()?;
        }
        Ok(())
    }

    /// The TUN is deleted, and its address taken away.
    fn without_tun(&mut self) -> anyhow::Result<()> {
        for words in [&["link", "del", TUN][..], &["addr", "flush", "dev", TUN]] {
            let before = told(&self.founder, "tun-restored")?;
            kernel::run("ip", words)?;
            eventually(&format!("{words:?} is not noticed"), PATIENCE, || {
                ensure!(told(&self.founder, "tun-restored")? > before, "no event");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Overwrites every file below a directory.
fn overwrite(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            overwrite(&path)?;
        } else {
            let length = usize::try_from(fs::metadata(&path)?.len())?;
            fs::write(&path, vec![0x5a; length.max(4_096)])?;
        }
    }
    Ok(())
}

fn ends_with(pin: &Path, word: &str) -> bool {
    pin.to_string_lossy().ends_with(word)
}

/// Packets that CPUs dropped because too many waited, since the machine started: in the second column
/// of each CPU's line. They are no packets that a data plane lost.
fn overflowed() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat")?;
    let columns = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    Ok(columns.map(|column| u64::from_str_radix(column, 16)).sum::<Result<_, _>>()?)
}

/// How many events of this code a node shows.
fn told(founder: &Founder, code: &str) -> anyhow::Result<usize> {
    let events = ask(&founder.node, &["events"])?;
    Ok(events.as_array().into_iter().flatten().filter(|e| e["code"] == code).count())
}

/// A directory on a small disk in memory, which goes with the value.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = kernel::run("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

#[test]
fn nothing_forbidden_arrives_whatever_happens_to_the_node() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let dir = tempfile::tempdir()?;
        let place = dir.path().join("n1");
        fs::create_dir(&place)?;
        mount_memory(&place, DISK_MEBIBYTES)?;
        let _disk = SmallDisk(place);
        let mut siege = Siege::begin(Founder::start_in(dir, "[overlay]\nenabled = \"auto\"")?)?;
        let sieged = besiege(&mut siege);
        sieged.with_context(|| siege.founder.node.log_tail())
    })?;
    Ok(())
}

fn besiege(siege: &mut Siege) -> anyhow::Result<()> {
    siege.without_loss("kill -9 and restart", Siege::killed_and_restarted)?;
    siege.without_loss("stop and restart", Siege::stopped_and_restarted)?;
    siege.without_loss("full disk", Siege::disk_full)?;
    siege.without_loss("damaged attachments", |s| s.damaged("attachments.json"))?;
    siege.without_loss("damaged endpoints", |s| s.damaged("endpoints.json"))?;
    siege.without_loss("replica overwritten", Siege::replica_overwritten)?;
    siege.without_loss("facts overwritten", Siege::facts_overwritten)?;
    siege.without_loss("pins removed", Siege::unpinned)?;
    siege.while_sieged("programs detached", Siege::detached)?;
    siege.goes_on()?;
    siege.while_sieged("all programs detached at once", Siege::all_detached)?;
    siege.while_sieged("pins removed while the node is dead", Siege::unpinned_while_dead)?;
    let (now, next) = (binary::selvedge()?, binary::next()?);
    siege.while_sieged("upgraded to the next version", |s| s.changed_to(next))?;
    siege.while_sieged("put back to the version before", |s| s.changed_to(now))?;
    siege.while_sieged("wires cut", Siege::unwired)?;
    siege.without_loss("TUN deleted", Siege::without_tun)?;
    siege.while_sieged("the rest of the flood", |siege| {
        eventually("the flood is too slow", PATIENCE, || {
            ensure!(siege.flood.sent() >= FORBIDDEN, "{} sent", siege.flood.sent());
            Ok(())
        })
        .map(drop)
    })?;
    // The count counts: what b sends to itself passes no gate.
    for (guest, port) in siege.guests.iter().zip([CLOSED_PORT, OPEN_PORT]) {
        let mut own = Flood::default();
        own.add(&siege.b, SocketAddr::new(siege.b.addresses[0], port))?;
        eventually("what arrives is not counted", PATIENCE, || {
            ensure!(guest.arrived() > 0, "nothing");
            Ok(())
        })?;
    }
    ensure!(siege.others.len() == 2);
    Ok(())
}
