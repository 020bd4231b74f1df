//! Writes by which a drill sees whether intent can be changed.

use std::fs;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::ground::Door;
use crate::playground::driver::{Finished, Selvedge};

/// A domain that holds nothing and is removed afterwards.
pub(crate) const PROBE_DOMAIN: &str = "drill-probe";

/// Changes the description of an otherwise empty domain, each time to another text.
pub(crate) struct ProbeWriter<'a> {
    selvedge: &'a Selvedge,
    dir: TempDir,
    count: u64,
}

impl<'a> ProbeWriter<'a> {
    pub(crate) fn new(selvedge: &'a Selvedge) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        Ok(Self { selvedge, dir, count: 0 })
    }

    /// One write through the node behind `door`, whatever comes of it.
    pub(crate) async fn attempt(&mut self, door: &Door) -> anyhow::Result<Finished> {
        self.count += 1;
        let file = self.dir.path().join("probe.yaml");
        let manifest = format!(
            "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {{name: {PROBE_DOMAIN}}}\n\
             spec: {{description: write {} of process {}}}\n",
            self.count,
            std::process::id()
        );
        fs::write(&file, manifest).with_context(|| format!("cannot write {}", file.display()))?;
        self.selvedge.through(door, &["apply", "-f", &file.to_string_lossy(), "-o", "json"]).await
    }

    /// One write that must be accepted.
    pub(crate) async fn write(&mut self, door: &Door) -> anyhow::Result<()> {
        accepted(&self.attempt(door).await?)
    }

    /// Removes the domain.
    pub(crate) async fn clean_up(self, door: &Door) -> anyhow::Result<()> {
        clean_up(self.selvedge, door).await
    }
}

/// Removes the domain that probes write, through the node behind `door`.
pub(crate) async fn clean_up(selvedge: &Selvedge, door: &Door) -> anyhow::Result<()> {
    let deleted = selvedge.through(door, &["delete", "domain", PROBE_DOMAIN, "-o", "json"]).await?;
    accepted(&deleted).with_context(|| format!("domain {PROBE_DOMAIN} is left over"))
}

fn accepted(finished: &Finished) -> anyhow::Result<()> {
    match finished.code {
        0 => Ok(()),
        code => bail!("the write was refused (exit code {code}): {}", finished.stderr.trim()),
    }
}
