//! Real processes, ended with SIGKILL and paused with SIGSTOP: what no instance in this process can show.
//!
//! The test binary starts itself once more for each node; [`node_process`] is what then runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_fabric::view::Liveness;
use selvedge_transport::{Credentials, testing::TestCa};
use tokio::sync::watch;

use crate::{
    fabric::{name, policy},
    instance::{Instance, credentials, until},
};

const NODE: &str = "SELVEDGE_TEST_NODE";
const DIR: &str = "SELVEDGE_TEST_DIR";
/// The first four run as processes of their own, the last one in the test itself.
const CLOUDS: [&str; 5] = ["a", "b", "c", "c", "a"];
const ME: usize = 4;

/// A node in a process of its own. Ends it however the test ends.
struct Process(Child);

impl Process {
    fn start(ca: &TestCa, dir: &Path, n: usize) -> Self {
        let Credentials { chain, key, root, issuing } = credentials(ca, n);
        let file = |what: &str| dir.join(format!("{what}{n}.der"));
        fs::write(file("leaf"), &chain[0]).unwrap();
        fs::write(file("key"), key.secret_der()).unwrap();
        fs::write(file("root"), &root).unwrap();
        fs::write(file("issuing"), &issuing).unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process::node_process", "--nocapture"])
            .env(NODE, n.to_string())
            .env(DIR, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: &str) {
        // The shell's own `kill`: the program of that name is not on every machine.
        let sent = Command::new("sh").args(["-c", &format!("kill {signal} {}", self.0.id())]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Not a test by itself: what a [`Process`] runs. It ends when it is killed, or after two minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_process() {
    let (Ok(n), Ok(dir)) = (env::var(NODE), env::var(DIR).map(PathBuf::from)) else { return };
    let n: usize = n.parse().unwrap();
    let file = |what: &str| fs::read(dir.join(format!("{what}{n}.der"))).unwrap();
    let issuing = file("issuing");
    let credentials = Credentials {
        chain: vec![file("leaf").into(), issuing.clone().into()],
        key: file("key").try_into().unwrap(),
        root: file("root").into(),
        issuing: issuing.into(),
    };
    let policy = watch::Sender::new(Arc::new(policy(&CLOUDS)));
    let node = Instance::start_with("fab", credentials, n, &dir, &policy, ([127, 0, 0, 1], 0).into()).await;
    let hub = until_read(&dir.join("hub")).await;
    node.membership.set_gossip_seeds([(crate::fabric::node_name(ME), vec![hub])].into());
    tokio::time::sleep(Duration::from_secs(120)).await;
}

async fn until_read(path: &Path) -> std::net::SocketAddr {
    loop {
        if let Some(address) = fs::read_to_string(path).ok().and_then(|text| text.parse().ok()) {
            return address;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_no_death_and_a_killed_cloud_is_gone_at_once() {
    let (ca, dir) = (TestCa::new("fab"), tempfile::tempdir().unwrap());
    let policy = watch::Sender::new(Arc::new(policy(&CLOUDS)));
    let me = Instance::start(&ca, ME, dir.path(), &policy).await;
    fs::write(dir.path().join("hub.new"), me.membership.gossip_addr().to_string()).unwrap();
    fs::rename(dir.path().join("hub.new"), dir.path().join("hub")).unwrap();
    let mut processes: Vec<Process> = (0..ME).map(|n| Process::start(&ca, dir.path(), n)).collect();
    let all_alive = || (0..ME).all(|n| me.state(n) == Liveness::Alive);
    until("all are alive", all_alive).await;

    let mut views = me.membership.view();
    for _ in 0..2 {
        processes[1].signal("-STOP");
        tokio::time::sleep(Duration::from_secs(3)).await;
        processes[1].signal("-CONT");
        let resumed = Instant::now();
        while resumed.elapsed() < Duration::from_secs(3) {
            let view = views.borrow_and_update().clone();
            assert!(view.nodes.values().all(|node| node.state != Liveness::Down), "{view:#?}");
            assert!(!view.isolated);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    until("all are alive again", all_alive).await;

    for process in processes.drain(2..) {
        drop(process);
    }
    let killed = Instant::now();
    until("the cloud is down", || me.view().clouds_down.contains_key(&name("c"))).await;
    println!("killed cloud seen down after {:?}", killed.elapsed());
    assert!([2, 3].iter().all(|&n| me.state(n) == Liveness::Down));
    assert!([0, 1].iter().all(|&n| me.state(n) == Liveness::Alive));

    // Stopped for good: no port refuses, only silence tells.
    processes[1].signal("-STOP");
    let stopped = Instant::now();
    until("the silent one is down", || me.state(1) == Liveness::Down).await;
    println!("silent node seen down after {:?}", stopped.elapsed());
    drop(processes);
    me.kill().await;
}
