//! `snapshot save` and `snapshot restore`: the whole intent in one encrypted file.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use selvedge_fabric::Revision;
use selvedge_node::{
    api::{
        FILES_MEDIA_TYPE,
        types::{ApplyReply, Manifest, ManifestFile, ManifestFiles, Status, rfc3339},
    },
    clock,
    pki::{VaultKey, open_vault, read_recovery_key, read_secret, seal_vault, write_secret},
};
use serde::{Deserialize, Serialize};

use super::DONE;
use crate::{
    args::Global,
    client::{Ask, Client},
    failure::{Failure, Outcome},
};

/// Version of what is in the file.
const VERSION: u32 = 1;
/// Largest file that is read: what the largest answer of a node can become.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Text of manifests in one command of a restore: its JSON in the log may hold twice as much.
const MAX_STEP_BYTES: usize = 1 << 20;
/// Objects in one command of a restore.
const MAX_STEP_OBJECTS: usize = 2_000;
/// Kinds in the order in which they may refer to each other.
const ORDER: [&str; 8] =
    ["Domain", "Template", "Contract", "Zone", "Link", "Service", "External", "Guardrail"];

/// The whole intent in one encrypted file.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save all objects into an encrypted file
    #[command(after_help = "Examples:
  selvedge snapshot save intent.snap --passphrase-file words
  selvedge snapshot save intent.snap --recovery-key recovery-demo.key")]
    Save(SaveArgs),
    /// Bring all objects of a snapshot into a new fabric, which has its own keys
    #[command(after_help = "Examples:
  selvedge snapshot restore intent.snap --passphrase-file words
  selvedge snapshot restore intent.snap --recovery-key recovery-demo.key --replace")]
    Restore(RestoreArgs),
}

/// Where, and by which key.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// The file; written as a whole, mode 0600
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
}

/// From where, and by which key.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Also into a fabric that has objects already: those of the same names are replaced, others stay
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct KeyArgs {
    /// A file with a passphrase, mode 0600; its first line counts
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The recovery key of the fabric that was saved
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
}

impl KeyArgs {
    fn read(&self) -> Outcome<VaultKey> {
        if let Some(path) = &self.recovery_key {
            return read_recovery_key(path).map(VaultKey::Recovery).map_err(|error| {
                Failure::usage(format!("recovery key: {error}"))
                    .remedy("give the file that `selvedge fabric init` made, mode 0600 (recovery-FABRIC.key)")
            });
        }
        let path = self.passphrase_file.as_deref().unwrap_or(Path::new(""));
        let bad = |what: String| Failure::usage(format!("passphrase file {}: {what}", path.display()));
        let bytes = read_secret(path).map_err(|e| bad(e.to_string()))?;
        let bytes = bytes.ok_or_else(|| bad("there is no such file".to_owned()))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is no UTF-8 text".to_owned()))?;
        Ok(VaultKey::Passphrase(text.lines().next().unwrap_or_default().to_owned().into()))
    }
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    fabric: String,
    revision: Revision,
    time: String,
    objects: Vec<Manifest>,
}

/// What is told of it.
#[derive(Debug, Serialize)]
struct Told<'a> {
    file: String,
    fabric: &'a str,
    revision: Revision,
    time: &'a str,
    objects: usize,
}

pub(crate) async fn run(global: &Global, command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::Save(args) => save(global, args).await,
        SnapshotCommand::Restore(args) => restore(global, args).await,
    }
}

async fn save(global: &Global, args: SaveArgs) -> Outcome {
    let key = args.key.read()?;
    let client = global.client()?;
    let status: Status = client.ask(Ask::get("/v1/status")).await?;
    let objects: Vec<Manifest> = client.ask(Ask::get("/v1/objects")).await?;
    let (fabric, time) = (status.fabric, rfc3339(clock::unix_ms()));
    let snapshot = Snapshot { version: VERSION, fabric, revision: status.revision, time, objects };
    let text = serde_json::to_vec(&snapshot).map_err(|e| Failure::new(format!("cannot write JSON: {e}")))?;
    let at = |what: String| Failure::new(what).at(args.file.display().to_string());
    let sealed = seal_vault(&key, &text).map_err(|e| at(e.to_string()))?;
    write_secret(&args.file, &sealed).map_err(|e| at(e.to_string()))?;
    tell(global, &args.file, &snapshot, "saved")
}

async fn restore(global: &Global, args: RestoreArgs) -> Outcome {
    let key = args.key.read()?;
    let snapshot = read(&args.file, &key)?;
    let client = global.client()?;
    if !args.replace {
        check_new(&client).await?;
    }
    for step in steps(&snapshot.objects)? {
        let ask = Ask::post("/v1/apply")
            .query(
                "message",
                format!("restored from a snapshot of {} at {}", snapshot.fabric, snapshot.revision),
            )
            .json_as(FILES_MEDIA_TYPE, &ManifestFiles { files: vec![step] })?;
        let _: ApplyReply = client.ask(ask).await?;
    }
    tell(global, &args.file, &snapshot, "restored")
}

fn read(path: &Path, key: &VaultKey) -> Outcome<Snapshot> {
    let at = |what: String| Failure::new(what).at(path.display().to_string());
    let file = File::open(path).map_err(|e| at(format!("cannot open the snapshot: {e}")))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| at(format!("cannot read the snapshot: {e}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(at(format!("the snapshot has more than {MAX_FILE_BYTES} bytes")));
    }
    let text = open_vault(key, &bytes).map_err(|e| at(format!("the snapshot is not restored: {e}")))?;
    let snapshot: Snapshot =
        serde_json::from_slice(&text).map_err(|e| at(format!("the snapshot is not understood: {e}")))?;
    if snapshot.version != VERSION {
        return Err(at(format!("the snapshot has version {}, this one reads {VERSION}", snapshot.version))
            .remedy("install the version of selvedge that wrote it, or a newer one"));
    }
    Ok(snapshot)
}

/// A restore beside what is there would mix two intents.
async fn check_new(client: &Client) -> Outcome<()> {
    let present: Vec<Manifest> = client.ask(Ask::get("/v1/objects")).await?;
    match present.iter().find(|o| !matches!(o.kind.as_str(), "Zone" | "Link")) {
        None => Ok(()),
        Some(object) => Err(Failure::new(format!(
            "this fabric has objects already, for instance {} {}",
            object.kind, object.metadata.name
        ))
        .remedy("restore into a new fabric (selvedge fabric init), or add --replace")),
    }
}

/// The objects as files of manifests, each small enough for one command, those that are referred to first.
fn steps(objects: &[Manifest]) -> Outcome<Vec<ManifestFile>> {
    let rank = |o: &Manifest| ORDER.iter().position(|kind| *kind == o.kind).unwrap_or(ORDER.len());
    let mut sorted: Vec<&Manifest> = objects.iter().collect();
    sorted.sort_by_key(|o| rank(o));
    let mut steps: Vec<(String, usize)> = Vec::new();
    for object in sorted {
        // JSON is YAML, and documents of a stream are separated by three dashes.
        let text =
            serde_json::to_string(object).map_err(|e| Failure::new(format!("cannot write JSON: {e}")))?;
        match steps.last_mut() {
            Some((step, count)) if step.len() + text.len() <= MAX_STEP_BYTES && *count < MAX_STEP_OBJECTS => {
                step.push_str("\n---\n");
                step.push_str(&text);
                *count += 1;
            }
            _ => steps.push((text, 1)),
        }
    }
    let file =
        |(n, (text, _)): (usize, (String, usize))| ManifestFile { name: format!("snapshot-{n}"), text };
    Ok(steps.into_iter().enumerate().map(file).collect())
}

fn tell(global: &Global, file: &Path, snapshot: &Snapshot, what: &str) -> Outcome {
    let told = Told {
        file: file.display().to_string(),
        fabric: &snapshot.fabric,
        revision: snapshot.revision,
        time: &snapshot.time,
        objects: snapshot.objects.len(),
    };
    global.printer().show(&told, |_| {
        format!(
            "{what} {} objects of {} at revision {}, {}\nnodes, tokens and keys are each fabric's own: they are not in it\n",
            told.objects, told.fabric, told.revision, told.time
        )
    })?;
    DONE
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::types::Metadata;

    use super::*;

    fn object(kind: &str, name: &str) -> Manifest {
        Manifest {
            api_version: "selvedge/v1".into(),
            kind: kind.into(),
            metadata: Metadata { name: name.into(), domain: None },
            spec: serde_json::json!({"description": "x".repeat(300)}),
        }
    }

    #[test]
    fn what_is_referred_to_comes_first_and_no_step_is_too_large() {
        let mut objects: Vec<_> = (0..4_000).map(|n| object("Service", &format!("s{n}"))).collect();
        objects.push(object("Domain", "d"));
        let steps = steps(&objects).expect("steps");
        assert!(steps.len() > 1 && steps.iter().all(|step| step.text.len() <= MAX_STEP_BYTES));
        assert!(
            steps[0].text.starts_with("{\"apiVersion\":\"selvedge/v1\",\"kind\":\"Domain\""),
            "{}",
            &steps[0].text[..80]
        );
        let total: usize = steps.iter().map(|step| step.text.matches("\n---\n").count() + 1).sum();
        assert_eq!(total, objects.len());
    }
}
