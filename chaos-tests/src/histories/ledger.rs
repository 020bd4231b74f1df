//! Rounds after rounds, with a ledger that says what was done and from where to go on.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use selvedge_history::{Operation, Verdict};
use serde::{Deserialize, Serialize};

use super::{Played, Round, play};
use crate::lab::kernel::{Own, with_own};

/// How long one round has load and faults.
const ROUND: Duration = Duration::from_secs(240);

/// A long run.
#[derive(Debug, Clone)]
pub struct Soak {
    /// Minutes of load and faults in all, those in the ledger included.
    pub minutes: u32,
    /// Operations that must have been judged, those in the ledger included.
    pub operations: usize,
    /// The first round's seed; the next one's is one more, and so on.
    pub seed: u64,
    /// Where the ledger is, and what is kept of rounds that went wrong.
    pub dir: PathBuf,
}

/// One line of the ledger: one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    commit: String,
    seed: u64,
    round: u64,
    wide: bool,
    seconds: f64,
    operations: usize,
    checked: usize,
    unknown: usize,
    keys: usize,
    faults: BTreeMap<String, u32>,
    result: String,
}

/// Plays rounds until the ledger holds enough minutes and operations of this seed. Started again, it goes on where it was.
///
/// # Errors
/// With the first round that is not linearizable, is undecided, or breaks off. What is needed to look into it
/// is kept beside the ledger.
pub fn soak(soak: &Soak) -> anyhow::Result<()> {
    fs::create_dir_all(&soak.dir).with_context(|| format!("cannot make {}", soak.dir.display()))?;
    let ledger = soak.dir.join("ledger.jsonl");
    let wanted = f64::from(soak.minutes) * 60.0;
    loop {
        let entries = read(&ledger)?;
        let mine: Vec<_> = entries.into_iter().filter(|entry| entry.seed == soak.seed).collect();
        let done = mine.iter().fold(0.0, |sum, entry| sum + entry.seconds);
        let checked: usize = mine.iter().map(|entry| entry.checked).sum();
        if done >= wanted && checked >= soak.operations {
            report(&mine);
            return Ok(());
        }
        let number = mine.iter().map(|entry| entry.round + 1).max().unwrap_or(0);
        let round = Round { seed: soak.seed.wrapping_add(number), length: ROUND, wide: number % 2 == 1 };
        let (seed, operations) = (round.seed, soak.operations);
        println!(
            "round {number}, seed {seed}, {done:.0} of {wanted:.0} s, {checked} of {operations} operations"
        );
        one(soak, &ledger, number, round)?;
    }
}

fn one(soak: &Soak, ledger: &Path, number: u64, round: Round) -> anyhow::Result<()> {
    let mut played = None;
    let ran = with_own(Own::Host, || {
        played = Some(play(round));
        Ok(())
    })?;
    ensure!(ran, "this needs root");
    let trace = soak.dir.join(format!("round-{}-{number}", soak.seed));
    let played = match played.context("no round was played")? {
        Ok(played) => played,
        Err(error) => {
            fs::write(trace.with_extension("log"), format!("{error:?}"))?;
            return Err(error.context(format!("round {number} broke off; see {}.log", trace.display())));
        }
    };
    let entry = entry(soak, number, round, &played);
    let (checked, unknown, result) = (entry.checked, entry.unknown, &entry.result);
    println!("  {checked} checked, {unknown} unknown, {:?}: {result}", entry.faults);
    append(ledger, &entry)?;
    if played.report.verdict != Verdict::Linearizable {
        keep(&trace.with_extension("history"), &played.history)?;
        fs::write(trace.with_extension("log"), played.logs.unwrap_or_default())?;
        anyhow::bail!("round {number} is not linearizable; see {}.history: {result}", trace.display());
    }
    Ok(())
}

fn entry(soak: &Soak, round: u64, played_as: Round, played: &Played) -> Entry {
    let report = &played.report;
    let result = match &report.verdict {
        Verdict::Linearizable => "linearizable".to_owned(),
        Verdict::Undecided { key, why } => format!("undecided: {key}: {why}"),
        Verdict::Violated(violation) => format!("VIOLATED: {violation}"),
    };
    Entry {
        commit: commit(),
        seed: soak.seed,
        round,
        wide: played_as.wide,
        seconds: played.length.as_secs_f64(),
        operations: played.history.len(),
        checked: report.checked,
        unknown: report.unknown,
        keys: report.keys,
        faults: played.faults.clone(),
        result,
    }
}

fn report(entries: &[Entry]) {
    let sum = |of: fn(&Entry) -> usize| entries.iter().map(of).sum::<usize>();
    let seconds: f64 = entries.iter().map(|entry| entry.seconds).sum();
    let mut faults: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, count) in entries.iter().flat_map(|entry| &entry.faults) {
        *faults.entry(name).or_default() += count;
    }
    let (checked, unknown) = (sum(|e| e.checked), sum(|e| e.unknown));
    println!(
        "{} rounds, {seconds:.0} s, {checked} operations checked, {unknown} of them of unknown outcome",
        entries.len()
    );
    println!("{faults:?}");
    let bad = entries.iter().filter(|entry| entry.result != "linearizable").count();
    println!("{bad} rounds not linearizable");
}

fn read(ledger: &Path) -> anyhow::Result<Vec<Entry>> {
    let Ok(text) = fs::read_to_string(ledger) else { return Ok(Vec::new()) };
    let line = |line: &str| serde_json::from_str(line).with_context(|| format!("a bad line: {line}"));
    text.lines().map(line).collect::<anyhow::Result<_>>().with_context(|| format!("{}", ledger.display()))
}

fn append(ledger: &Path, entry: &Entry) -> anyhow::Result<()> {
    let mut file = File::options().append(true).create(true).open(ledger)?;
    writeln!(file, "{}", serde_json::to_string(entry)?)?;
    Ok(file.sync_all()?)
}

fn keep(path: &Path, history: &[Operation]) -> anyhow::Result<()> {
    let lines: Result<Vec<_>, _> = history.iter().map(serde_json::to_string).collect();
    Ok(fs::write(path, lines?.join("\n"))?)
}

/// The commit that is run, with a mark where files differ from it.
fn commit() -> String {
    let git = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=7",
            "--exclude=*",
        ])
        .output();
    git.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}
