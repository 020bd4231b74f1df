//! What was run at which commit: one line for each chunk of seeds, so that a long run can be broken off and
//! reports can cite it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// Seeds that were run without a violation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first seed.
    pub(crate) from: u64,
    /// The seed after the last.
    pub(crate) to: u64,
    /// Packets that arrived.
    pub(crate) packets: u64,
    /// Virtual time, seconds.
    pub(crate) virtual_s: u64,
}

/// A file of tab-separated lines: kind, commit, first seed, seed after the last, packets, virtual seconds.
pub(crate) struct Ledger {
    path: PathBuf,
    kind: String,
    commit: String,
}

impl Ledger {
    /// The ledger at `path`, for runs of this kind at the present commit.
    pub(crate) fn open(path: PathBuf, kind: String) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(Self { path, kind, commit: commit() })
    }

    /// How many seeds, from 0 on without a gap, were run already.
    pub(crate) fn done(&self) -> Result<u64> {
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in self.entries()? {
            let end = ends.entry(entry.from).or_default();
            *end = entry.to.max(*end);
        }
        Ok(ends.into_iter().fold(0, |done, (from, to)| if from <= done { done.max(to) } else { done }))
    }

    pub(crate) fn add(&self, entry: &Entry) -> Result<()> {
        let Entry { from, to, packets, virtual_s } = entry;
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&self.path)?;
        writeln!(file, "{}\t{}\t{from}\t{to}\t{packets}\t{virtual_s}", self.kind, self.commit)?;
        Ok(())
    }

    pub(crate) fn summary(&self) -> Result<String> {
        let entries = self.entries()?;
        let sum = |of: fn(&Entry) -> u64| entries.iter().map(of).sum::<u64>();
        Ok(format!(
            "{}: {} seeds, {} packets, {} virtual hours at commit {}: no violation",
            self.kind,
            self.done()?,
            sum(|entry| entry.packets),
            sum(|entry| entry.virtual_s) / 3_600,
            self.commit
        ))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        if !Path::new(&self.path).exists() {
            return Ok(Vec::new());
        }
        let text = fs::read_to_string(&self.path)
            .with_context(|| format!("cannot read the ledger {}", self.path.display()))?;
        Ok(text.lines().filter_map(|line| self.entry(line)).collect())
    }

    /// A line that is of this kind and commit.
    fn entry(&self, line: &str) -> Option<Entry> {
        let mut fields = line.split('\t');
        let ours = (fields.next()?, fields.next()?) == (self.kind.as_str(), self.commit.as_str());
        let mut number = || fields.next()?.parse().ok();
        let entry = Entry { from: number()?, to: number()?, packets: number()?, virtual_s: number()? };
        ours.then_some(entry)
    }
}

/// The commit, marked when files differ from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    if changed { format!("{head}-changed") } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_without_a_gap_are_done_and_others_are_not() {
        let path = std::env::temp_dir().join(format!("selvedge-ledger-{}", std::process::id()));
        let ledger = |commit: &str| Ledger { path: path.clone(), kind: "sim".into(), commit: commit.into() };
        let (ours, theirs) = (ledger("a"), ledger("b"));
        for (from, to) in [(0, 50), (100, 150), (50, 100), (200, 250)] {
            ours.add(&Entry { from, to, packets: 7, virtual_s: 3_600 }).expect("written");
        }
        let (done, other, text) = (ours.done(), theirs.done(), ours.summary());
        fs::remove_file(&path).expect("it was there");
        assert_eq!((done.expect("read"), other.expect("read")), (150, 0));
        let expected = "sim: 150 seeds, 28 packets, 4 virtual hours at commit a: no violation";
        assert_eq!(text.expect("read"), expected);
    }
}
