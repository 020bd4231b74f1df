//! Programs under different services: they meet by contract alone, over the loopback device of one host and
//! over the overlay.

mod overlay;
mod tasks;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, TcpListener},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_chaos_tests::lab::{
    PATIENCE, ask, binary, eventually,
    founder::Founder,
    kernel::{self, Own, with_own},
    run, shop,
};
use serde_json::Value;

use self::tasks::{ARGUMENTS, CODE, NOBODY, TASK, answers, ask_task, printed};

/// Not the addresses of other tests: before Linux 6.16 the guard of process trees does not tell network
/// namespaces apart.
const POOL: [&str; 2] = ["--ipv4-pool", "198.19.0.0/16"];

/// `web` serves, `client` may ask it, and `stranger` may do nothing.
fn graph() -> String {
    shop(
        &[("front", "tcp/80, udp/80")],
        &[("web", "server:front"), ("client", "client:front"), ("stranger", "")],
    )
}

/// `selvedge run` of a task.
fn run_as(founder: &Founder, service: &str, more: &[&str], task: &str) -> anyhow::Result<Command> {
    with_task(run_command(founder, service, more)?, task)
}

/// Two shells deep.
fn with_task(mut command: Command, task: &str) -> anyhow::Result<Command> {
    // The last command of a shell would replace it, so there is another after it.
    let inner = format!("\"$0\" {ARGUMENTS}; exit $?");
    command.args(["sh", "-c", &format!("sh -c '{inner}' \"$0\"; exit $?")]);
    command.arg(std::env::current_exe()?).env(TASK, task);
    Ok(command)
}

/// `selvedge run`, of which only the command is missing.
fn run_command(founder: &Founder, service: &str, more: &[&str]) -> anyhow::Result<Command> {
    run_at(&founder.node.socket, service, &founder.service_token(service)?, more)
}

fn run_at(socket: &Path, service: &str, token: &Path, more: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binary::selvedge()?);
    command.args([Path::new("--socket"), socket]).args(["run", "--service", service]);
    command.arg("--token-file").arg(token).args(more).arg("--");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

/// Whom the server saw, when a new process tree asked.
fn asked_as(founder: &Founder, service: &str, to: IpAddr, expected: bool) -> anyhow::Result<[String; 3]> {
    answers(&printed(run_as(founder, service, &[], &ask_task(to, None, expected))?)?)
}

/// The same, of a process that enters a control group, or none; it may claim an address.
fn asked_in(
    group: Option<&Path>,
    to: IpAddr,
    claim: Option<IpAddr>,
    expected: bool,
) -> anyhow::Result<[String; 3]> {
    let enter = group.map_or(String::new(), |group| format!("echo $$ > {}/cgroup.procs;", group.display()));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{enter} exec \"$0\" {ARGUMENTS}")]);
    command.arg(std::env::current_exe()?).env(TASK, ask_task(to, claim, expected));
    answers(&printed(command)?)
}

/// The client was seen, as itself, and on the contract's port alone.
fn is_seen(answers: &[String; 3], by: IpAddr, not: &[IpAddr]) -> anyhow::Result<()> {
    let [datagram, stream, forbidden] = answers;
    for answer in [datagram, stream] {
        let seen: IpAddr = answer.parse().with_context(|| format!("{by} is not reached: {answers:?}"))?;
        ensure!(seen != by && !not.contains(&seen), "seen as {seen}");
    }
    ensure!(forbidden == NOBODY, "{by}: passed, and no contract allows it");
    Ok(())
}

fn is_refused(answers: &[String; 3], who: &str) -> anyhow::Result<()> {
    ensure!(*answers == [NOBODY; 3], "{who} got in: {answers:?}");
    Ok(())
}

/// What is attached as a service.
struct Attached {
    endpoint: String,
    addresses: Vec<IpAddr>,
    group: PathBuf,
}

fn attached(all: &Value, service: &str) -> anyhow::Result<Attached> {
    let mut all = all.as_array().into_iter().flatten();
    let found = all.find(|a| a["service"] == service).with_context(|| format!("{service} is not there"))?;
    let addresses = found["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Attached {
        endpoint: found["endpoint"].as_str().unwrap_or_default().to_owned(),
        addresses: addresses.map(str::parse).collect::<Result<_, _>>()?,
        group: found["group"].as_str().context("a group")?.into(),
    })
}

/// A process that is killed with the test.
struct Running(Child);

impl Running {
    /// Ends its input, which ends it, and says how it ended.
    fn end(mut self) -> anyhow::Result<Option<i32>> {
        drop(self.0.stdin.take());
        Ok(self.0.wait()?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server and waits until it serves.
fn start_serving(founder: &Founder, service: &str, more: &[&str]) -> anyhow::Result<Running> {
    until_ready(Running(run_as(founder, service, more, "serve")?.spawn()?)).context(service.to_owned())
}

fn until_ready(mut child: Running) -> anyhow::Result<Running> {
    let lines = BufReader::new(child.0.stdout.take().context("its output")?).lines();
    ensure!(lines.map_while(Result::ok).any(|line| line == "ready"), "it ended early");
    Ok(child)
}

/// Soon nothing of what was attached is left.
fn is_gone(founder: &Founder, gone: &Attached) -> anyhow::Result<()> {
    eventually("something of it is left", PATIENCE, || is_gone_now(founder, gone)).map(drop)
}

fn is_gone_now(founder: &Founder, gone: &Attached) -> anyhow::Result<()> {
    let endpoints = ask(&founder.node, &["endpoint", "list"])?;
    let mut endpoints = endpoints.as_array().into_iter().flatten();
    ensure!(endpoints.all(|e| e["id"] != *gone.endpoint), "{} is still there", gone.endpoint);
    ensure!(!gone.group.exists(), "{} is still there", gone.group.display());
    let kept = gone.addresses.iter().find(|address| TcpListener::bind((**address, 0)).is_ok());
    ensure!(kept.is_none(), "this host still has {kept:?}");
    Ok(())
}

/// A fabric of one node, and what is left of its control groups when a test fails.
struct Shop(Founder);

impl Shop {
    fn open() -> anyhow::Result<Self> {
        let founder = Founder::start_with(tempfile::tempdir()?, "", &POOL)?;
        founder.apply(&graph())?;
        Ok(Self(founder))
    }
}

/// Ends what is in the control groups of a node, and removes them, when a test fails before it is done.
struct Sweep(PathBuf);

impl Sweep {
    /// Of the node to which this is attached.
    fn after(attached: &Attached) -> Self {
        Self(attached.group.parent().map(Path::to_owned).unwrap_or_default())
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let groups = fs::read_dir(&self.0).into_iter().flatten().flatten();
        for group in groups.filter(|entry| entry.path().is_dir()) {
            let _ = (0..50).any(|_| {
                thread::sleep(Duration::from_millis(20));
                fs::remove_dir(group.path()).is_ok()
            });
        }
        // That of the node, and that of all nodes, unless another test's are in it.
        for directory in self.0.ancestors().take(2) {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[test]
fn process_trees_of_one_host_meet_by_contract_alone() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let Shop(founder) = &Shop::open()?;
        let server =
            start_serving(founder, "web@shop", &["--port", "tcp/80", "--port", "udp/80", "--check", "tcp"])?;
        let web = attached(&ask(&founder.node, &["attachments"])?, "web@shop")?;
        let _sweep = Sweep::after(&web);
        ensure!(web.addresses.len() == 2, "{:?}", web.addresses);

        // A client that stays, so that its address can be claimed.
        let _client = start_serving(founder, "client@shop", &["--id", "client-1"])?;
        let claimed = attached(&ask(&founder.node, &["attachments"])?, "client@shop")?;
        for to in web.addresses.iter().copied() {
            is_seen(&asked_as(founder, "client@shop", to, true)?, to, &claimed.addresses)?;
            is_refused(&asked_as(founder, "stranger@shop", to, false)?, "a stranger")?;
            is_refused(&asked_in(None, to, None, false)?, "a process outside")?;
        }
        let (to, claim) = (web.addresses[0], claimed.addresses[0]);
        is_refused(
            &asked_in(None, to, Some(claim), false)?,
            "a process outside that claims to be the client",
        )?;
        eventually("its health is not seen", PATIENCE, || {
            let endpoints = ask(&founder.node, &["endpoint", "list"])?;
            let mut endpoints = endpoints.as_array().into_iter().flatten();
            ensure!(endpoints.any(|e| e["id"] == *web.endpoint && e["health"] == "passing"), "not passing");
            Ok(())
        })?;

        // Names: the tree asks the node, which knows who asks.
        let found = format!("found [\"{to}\"]");
        let lines = printed(run_as(founder, "client@shop", &[], "resolve")?)?;
        ensure!(lines.contains(&found), "{lines:?} lacks {found}");
        let lines = printed(run_as(founder, "stranger@shop", &[], "resolve")?)?;
        ensure!(lines.contains(&"found []".to_owned()), "{lines:?}");

        // Signals are passed on.
        let mut trapping = run_command(founder, "client@shop", &[])?;
        trapping.args(["sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done"]);
        let mut trapping = until_ready(Running(trapping.spawn()?))?;
        kill_process(Pid::from_child(&trapping.0), Signal::TERM)?;
        ensure!(trapping.0.wait()?.code() == Some(42), "the signal was not passed on");
        // What cannot be started leaves nothing behind.
        let missing =
            run_command(founder, "client@shop", &["--id", "client-2"])?.arg("no-such-command").output()?;
        ensure!(missing.status.code() == Some(127), "{missing:?}");
        let attached = ask(&founder.node, &["attachments"])?;
        ensure!(attached.as_array().is_some_and(|all| all.len() == 2), "{attached}");

        // The command ends, and all that it had; its exit code is that of `run`.
        ensure!(server.end()? == Some(CODE), "another exit code");
        is_gone(founder, &web)
    })?;
    Ok(())
}

#[test]
fn a_process_tree_ends_with_its_endpoint_whoever_dies_first() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let Shop(mut founder) = Shop::open()?;
        let server = start_serving(&founder, "web@shop", &[])?;
        let web = attached(&ask(&founder.node, &["attachments"])?, "web@shop")?;
        let _sweep = Sweep::after(&web);
        let client = start_serving(&founder, "client@shop", &["--id", "client-1"])?;
        let known = attached(&ask(&founder.node, &["attachments"])?, "client@shop")?;
        let (to, claim) = (web.addresses[0], known.addresses[0]);

        // The node dies. What is pinned goes on deciding.
        founder.node.kill()?;
        is_seen(&asked_in(Some(&known.group), to, None, true)?, to, &[])?;
        is_refused(&asked_in(None, to, Some(claim), false)?, "a process outside")?;
        // A command that ends now passes its code on all the same; and one that nobody knows of stays behind.
        ensure!(server.end()? == Some(CODE), "another exit code");
        let left = web.group.with_file_name("left-behind");
        fs::create_dir(&left)?;
        let mut sleeper = Running(Command::new("sleep").arg("600").spawn()?);
        fs::write(left.join("cgroup.procs"), sleeper.0.id().to_string())?;
        founder.node.restart()?;
        founder.is_ready()?;
        ensure!(sleeper.0.wait()?.signal() == Some(9), "what was left behind goes on");
        is_gone(&founder, &web)?;
        ensure!(!left.exists(), "{} is still there", left.display());

        // The one that lived on is attached as before.
        let mut server = start_serving(&founder, "web@shop", &["--id", "left-behind"])?;
        let web = attached(&ask(&founder.node, &["attachments"])?, "web@shop")?;
        is_seen(&asked_in(Some(&known.group), web.addresses[0], None, true)?, web.addresses[0], &[])?;
        // Somebody takes an address from the host: it is put back.
        kernel::run("ip", &["address", "del", &format!("{}/32", web.addresses[0]), "dev", "lo"])?;
        eventually("its address is not put back", PATIENCE, || {
            TcpListener::bind((web.addresses[0], 0))?;
            Ok(())
        })?;

        // Nobody is left to tell that the command ends: the node sees it.
        kill_process(Pid::from_child(&client.0), Signal::KILL)?;
        ensure!(known.group.exists(), "the command goes on without its parent");
        drop(client);
        is_gone(&founder, &known)?;

        // Detached, a command does not go on without an identity.
        let detached = run(&founder.node, &["detach", &web.endpoint])?;
        ensure!(detached.code == 0, "{}", detached.stderr);
        ensure!(server.0.wait()?.code() == Some(128 + 9), "it goes on");
        is_gone(&founder, &web)
    })?;
    Ok(())
}

#[test]
fn a_command_is_not_started_where_its_packets_are_not_decided() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let Shop(mut founder) = Shop::open()?;
        founder.node.stop()?;
        let config = founder.node.dir.join("node.toml");
        let text = fs::read_to_string(&config)?;
        let off = text.replace("mode = \"required\"", "mode = \"off\"");
        ensure!(off != text, "{text}");
        fs::write(config, off)?;
        founder.node.restart()?;
        founder.is_ready()?;
        let marker = founder.node.dir.join("started");
        let ran = run_command(&founder, "web@shop", &[])?
            .arg("touch")
            .arg(&marker)
            .stderr(Stdio::piped())
            .output()?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(!ran.status.success() && said.contains("packets.mode"), "{said}");
        ensure!(!marker.exists(), "it was started");
        Ok(())
    })?;
    Ok(())
}
