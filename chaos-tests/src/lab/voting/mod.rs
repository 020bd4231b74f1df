//! The voting application with the software that people run: nginx, PostgreSQL and Redis of the
//! distribution, a page for votes, a page for results, and a worker. They find each other by DNS name only.
//!
//! A vote goes from nginx (`http-proxy`) over a page (`voting-svc`) into PostgreSQL (`voting-db`), which
//! tells Redis on the same host; the worker takes it from there and counts it in another PostgreSQL
//! (`result-db`), where the page of results (`result-svc`) finds it, again asked by nginx. Every arrow
//! between two services is one contract of `configs/graphs/voting-app.yaml`.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{
    PATIENCE, eventually,
    kernel::run,
    program::{Program, own_dir, run_in},
    workload::Workload,
};

/// TCP ports that the software holds, by service; it does so on every address.
pub const HELD: [(&str, u16); 6] =
    [(PROXY, 80), (VOTING, 80), (VOTES, 5432), (VOTES, 6379), (RESULT, 80), (RESULTS, 5432)];

const PROXY: &str = "http-proxy@voting-app";
const VOTING: &str = "voting-svc@voting-app";
const VOTES: &str = "voting-db@voting-app";
const RESULT: &str = "result-svc@voting-app";
const RESULTS: &str = "result-db@voting-app";
const WORKER: &str = "worker@voting-app";

/// Where Debian keeps each release of PostgreSQL.
const POSTGRESQL: &str = "/usr/lib/postgresql";
/// The distribution's own, also where others come first in the path.
const PYTHON: &str = "/usr/bin/python3";
/// How long one request may take on a busy machine.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// The statement of the page for votes: the answer is the family over which the database was reached.
const VOTE: &str = "INSERT INTO votes (choice) VALUES (:'said') RETURNING vote";
/// That of the page for results: a line for each choice and the families on the way of its votes.
const COUNT: &str = "SELECT choice, vote, work, result, family(inet_client_addr()), count(*) FROM results \
                     GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4, found by A records.
    V4,
    /// IPv6, found by AAAA records.
    V6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    const fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// The application, until it is dropped.
#[derive(Debug)]
pub struct Voting<'a> {
    workloads: &'a BTreeMap<String, Workload>,
    programs: Vec<Program>,
    dir: tempfile::TempDir,
}

/// What of the software is not installed; nothing when all is there.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    for (program, args) in [("nginx", ["-v"]), ("redis-server", ["--version"]), (PYTHON, ["--version"])] {
        if run(program, &args).is_err() {
            missing.push(program);
        }
    }
    if postgresql("postgres").is_err() {
        missing.push("postgresql");
    }
    missing
}

impl<'a> Voting<'a> {
    /// Starts everything in workloads that are attached as the services of the graph, by service.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(workloads: &'a BTreeMap<String, Workload>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Those who are not root have to get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let mut voting = Self { workloads, programs: Vec::new(), dir };
        for service in [PROXY, VOTING, VOTES, RESULT, RESULTS] {
            // Port 80 without privileges.
            let all = || fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
            voting.workload(service)?.run(all)??;
        }
        let redis =
            ["redis-server", "--port", "6379", "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""];
        voting.program(VOTES, "redis", "redis", &redis)?;
        voting.database(VOTES, "votes", include_str!("votes.sql"))?;
        voting.database(RESULTS, "results", include_str!("results.sql"))?;
        let (page, worker) = (voting.script("page.py", include_str!("page.py"))?, "worker.py");
        let worker = voting.script(worker, include_str!("worker.py"))?;
        let (votes, results) = (name("voting-backend"), name("result-backend"));
        voting.program(VOTING, "daemon", "voting-svc", &[PYTHON, &page, &votes, VOTE])?;
        voting.program(RESULT, "daemon", "result-svc", &[PYTHON, &page, &results, COUNT])?;
        let words = [PYTHON, &worker, &name("voting-worker"), &name("result-worker")];
        voting.program(WORKER, "daemon", "worker", &words)?;
        // It looks names up once, when it starts.
        for contract in ["voting-frontend", "result-frontend"] {
            voting.resolves(PROXY, &name(contract))?;
        }
        let conf = voting.script("nginx.conf", include_str!("nginx.conf"))?;
        let own = own_dir("www-data", voting.dir.path(), "nginx")?;
        let words = ["nginx", "-e", "stderr", "-p", &own.to_string_lossy(), "-c", &conf];
        voting.program(PROXY, "www-data", "nginx", &words)?;
        Ok(voting)
    }

    /// Votes through nginx; returns by which addresses nginx went on, and over which family the page found
    /// its database.
    ///
    /// # Errors
    /// When the vote is not taken.
    pub fn vote(&self, choice: &str) -> anyhow::Result<(Vec<IpAddr>, String)> {
        self.request("POST", "/vote", choice)
    }

    /// What the page of results says, through nginx, and by which addresses nginx went on.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn results(&self) -> anyhow::Result<(Vec<IpAddr>, String)> {
        self.request("GET", "/result", "")
    }

    /// One vote with nothing but this family between the services: it is counted, comes back, and every
    /// hop says that it went so.
    ///
    /// # Errors
    /// When it is not counted within [`PATIENCE`], or otherwise.
    pub fn round(&mut self, family: Family, choice: &str) -> anyhow::Result<()> {
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        self.forbid(other, "add")?;
        let done = self.vote_and_see(family, choice);
        self.forbid(other, "del")?;
        done.with_context(|| format!("over {family:?}")).with_context(|| self.said())
    }

    fn vote_and_see(&mut self, family: Family, choice: &str) -> anyhow::Result<()> {
        let number = family.number();
        eventually("nobody can vote", PATIENCE, || {
            self.programs.iter_mut().try_for_each(Program::runs)?;
            let (upstream, database) = self.vote(choice)?;
            went(&upstream, family)?;
            ensure!(database.trim() == number.to_string(), "the database was reached over {database}");
            Ok(())
        })?;
        // Each of the four connections of its way, and that of the page of results.
        let line = format!("{choice}|{number}|{number}|{number}|{number}|");
        eventually("the vote is not counted", PATIENCE, || {
            let (upstream, results) = self.results()?;
            went(&upstream, family)?;
            ensure!(results.lines().any(|found| found.starts_with(&line)), "no {line} in\n{results}");
            Ok(())
        })?;
        Ok(())
    }

    /// What every program said, for people who search a fault.
    #[must_use]
    pub fn said(&self) -> String {
        self.programs.iter().map(Program::said).collect::<Vec<_>>().join("\n")
    }

    /// Makes a family unusable for those who open flows, or usable again: what they try fails at once, and
    /// ordinary programs take the other. Those who answer are left as they are.
    fn forbid(&self, family: Family, verb: &str) -> anyhow::Result<()> {
        for service in [PROXY, VOTING, RESULT, WORKER] {
            let name = &self.workload(service)?.name;
            // After the table of local addresses, which has 0, and before any other.
            run("ip", &["-n", name, family.flag(), "rule", verb, "unreachable", "pref", "10"])?;
        }
        Ok(())
    }

    fn request(&self, verb: &str, path: &str, body: &str) -> anyhow::Result<(Vec<IpAddr>, String)> {
        let text = self.workload(PROXY)?.run(|| {
            let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, 80).into(), REQUEST_LIMIT)?;
            stream.set_read_timeout(Some(REQUEST_LIMIT))?;
            let length = body.len();
            write!(
                stream,
                "{verb} {path} HTTP/1.1\r\nHost: vote\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        })??;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{text}");
        let upstream =
            head.lines().find_map(|line| line.strip_prefix("Upstream: ")).context("no upstream")?;
        let addresses = upstream.split(", ").map(|at| Ok(at.parse::<std::net::SocketAddr>()?.ip()));
        Ok((addresses.collect::<anyhow::Result<_>>()?, body.to_owned()))
    }

    /// A new PostgreSQL, in which whoever reaches it is let in: that nobody else does is the fabric's part.
    fn database(&mut self, service: &str, name: &str, schema: &str) -> anyhow::Result<()> {
        let own = own_dir("postgres", self.dir.path(), name)?;
        let data = own.join("data").to_string_lossy().into_owned();
        let sockets = own.to_string_lossy().into_owned();
        let workload = self.workload(service)?;
        let initdb = postgresql("initdb")?;
        run_in(
            workload,
            "postgres",
            &own,
            &[&initdb, "-D", &data, "--auth=trust", "--no-locale", "--no-sync"],
        )?;
        let admit = "host all voting all trust\n";
        let hba = own.join("data/pg_hba.conf");
        fs::write(&hba, fs::read_to_string(&hba)? + admit)?;
        let settings =
            format!("listen_addresses = '*'\nunix_socket_directories = '{sockets}'\nfsync = off\n");
        fs::write(own.join("data/postgresql.auto.conf"), settings)?;
        let schema = self.script(&format!("{name}.sql"), schema)?;
        self.program(service, "postgres", name, &[&postgresql("postgres")?, "-D", &data])?;
        let workload = self.workload(service)?;
        let psql = ["psql", "-Xq", "-h", &sockets, "-d", "postgres", "-v", "ON_ERROR_STOP=1"];
        eventually("PostgreSQL does not start", PATIENCE, || {
            run_in(workload, "postgres", &own, &[&psql[..], &["-c", "SELECT 1"]].concat()).map(drop)
        })
        .with_context(|| self.said())?;
        run_in(workload, "postgres", &own, &[&psql[..], &["-f", &schema]].concat()).map(drop)
    }

    fn resolves(&self, service: &str, name: &str) -> anyhow::Result<()> {
        let workload = self.workload(service)?;
        eventually(&format!("{service} does not find {name}"), PATIENCE, || {
            for kind in ["ahostsv4", "ahostsv6"] {
                run_in(workload, "daemon", self.dir.path(), &["getent", kind, name])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn program(&mut self, service: &str, user: &str, name: &str, words: &[&str]) -> anyhow::Result<()> {
        let program = Program::start(self.workload(service)?, user, self.dir.path(), name, words)?;
        self.programs.push(program);
        Ok(())
    }

    fn script(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn workload(&self, service: &str) -> anyhow::Result<&'a Workload> {
        self.workloads.get(service).with_context(|| format!("no workload is {service}"))
    }
}

/// That the last of these addresses, the one that answered, is of a family.
fn went(addresses: &[IpAddr], family: Family) -> anyhow::Result<()> {
    let last = addresses.last().context("no address")?;
    ensure!(last.is_ipv4() == (family == Family::V4), "it went to {last}");
    Ok(())
}

fn name(contract: &str) -> String {
    format!("{contract}.voting-app.fabric.internal")
}

/// A program of the latest PostgreSQL that is installed.
fn postgresql(program: &str) -> anyhow::Result<String> {
    let releases = fs::read_dir(POSTGRESQL)?.filter_map(|entry| Some(entry.ok()?.path()));
    let release = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let latest = releases.filter(|path| release(path).is_some()).max_by_key(release);
    let path = latest.context("no PostgreSQL")?.join("bin").join(program);
    ensure!(Path::new(&path).is_file(), "no {}", path.display());
    Ok(path.to_string_lossy().into_owned())
}
