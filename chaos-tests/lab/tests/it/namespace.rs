//! Namespaces: what is inside, and that they end with their owner.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use selvedge_lab::{LabError, Namespace};

use crate::as_root;

/// Tells the test that is run by another to hold a namespace, and with what to join it.
const HOLD: &str = "SELVEDGE_LAB_HOLD";
/// By when the kernel has taken a dead namespace apart.
const PATIENCE: Duration = Duration::from_secs(60);

fn interfaces(namespace: &Namespace) -> String {
    let output = namespace.command("ip").args(["-br", "link"]).output().expect("ip runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn commands_and_threads_are_inside() {
    as_root(|| {
        let (one, two) = (Namespace::new().expect("one"), Namespace::new().expect("another"));
        let shown = interfaces(&one);
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.starts_with("lo"), "{shown}");
        // The same port at a time, twice.
        let bind = || TcpListener::bind("127.0.0.1:7443");
        let first = one.run(bind).expect("inside").expect("a port");
        let second = two.run(bind).expect("inside").expect("the same port of another network");
        drop((first, second));

        let pin = |namespace: &Namespace, word| {
            namespace.command(word).arg("/sys/fs/bpf/ours").output().expect("it runs").status.success()
        };
        assert!(pin(&one, "mkdir") && pin(&one, "ls") && !pin(&two, "ls"));
        let error = one.ip(["link set there-is-none up"]).expect_err("no such interface");
        assert!(matches!(&error, LabError::Ip { words, .. } if words.contains("there-is-none")), "{error}");
        let error = one.set("ipv4/there-is-none", "1").expect_err("no such parameter");
        assert!(error.to_string().contains("ipv4/there-is-none"), "{error}");
    });
}

/// No test of its own: what [`nothing_stays_behind_when_the_owner_is_killed`] starts and kills.
#[test]
#[ignore = "run by another test"]
fn holder() {
    let Ok(door) = env::var(HOLD) else { return };
    let namespace = Namespace::new().expect("a namespace");
    let line = format!("link add here type veth peer name there netns {door}");
    namespace.ip([line]).expect("a cable");
    println!("held");
    std::thread::sleep(PATIENCE);
}

#[test]
fn nothing_stays_behind_when_the_owner_is_killed() {
    as_root(|| {
        let ours = Namespace::new().expect("a namespace");
        let mut holder = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "namespace::holder", "--ignored", "--nocapture"])
            .env(HOLD, ours.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(holder.stdout.take().expect("its output")).lines();
        let held = lines.map_while(Result::ok).any(|line| line.ends_with("held"));
        let before = interfaces(&ours);
        holder.kill().expect("a signal");
        holder.wait().expect("its end");
        assert!(held && before.contains("there@"), "{before}");

        // A cable goes when either end does.
        let deadline = Instant::now() + PATIENCE;
        while interfaces(&ours).contains("there@") {
            assert!(Instant::now() < deadline, "the namespace of a dead process is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}
