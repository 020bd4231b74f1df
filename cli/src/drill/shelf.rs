//! The drills that come with this program, and those in files.

use std::{ffi::OsStr, path::Path};

use selvedge_fabric::{
    command::Problem,
    drill::{Drill, DrillSpec},
    manifest::parse_drill,
};
use selvedge_node::api::ManifestProblem;
use serde::Serialize;

use crate::{
    failure::{Failure, Outcome, problem_line},
    sources,
};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each, in the order in which they are listed.
        const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../configs/drills/", $name, ".yaml")))),*];
    };
}

shipped!(
    "cloud-loss",
    "two-clouds-loss",
    "leader-loss",
    "partition",
    "one-way-partition",
    "flapping-link",
    "slow-cloud",
    "rolling-restart",
    "upgrade",
    "clock-skew",
    "poisoned-object",
    "mass-rejoin",
    "expired-certificates",
);

/// A drill with its text.
pub(super) struct Found {
    pub(super) drill: Drill,
    pub(super) text: String,
}

/// What the list says of a drill.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    pub(super) scenario: String,
    pub(super) does: String,
    /// What it needs beyond a playground.
    pub(super) needs: Vec<&'static str>,
}

/// The drill of this name, or in this file.
pub(super) fn find(name: &OsStr) -> Outcome<Found> {
    let word = name.to_string_lossy();
    if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == word) {
        return read(text, &format!("{word}.yaml"));
    }
    let path = Path::new(name);
    let looks_like_file = word.contains(['/', '.']) || word == "-" || path.exists();
    if !looks_like_file {
        let known = SHIPPED.iter().map(|(name, _)| *name);
        let near = selvedge_fabric::suggest::closest(&word, known);
        let remedy = match near {
            Some(near) => format!("did you mean {near}?"),
            None => "see `selvedge drill list`, or name a file: ./mine.yaml".to_owned(),
        };
        return Err(Failure::new(format!("there is no drill {word}")).remedy(remedy));
    }
    read(&sources::read_one(path)?, &word)
}

fn read(text: &str, file: &str) -> Outcome<Found> {
    match parse_drill(text, Some(file)) {
        Ok(drill) => Ok(Found { drill, text: text.to_owned() }),
        Err(problems) => {
            let lines = problems.into_iter().map(|problem| problem_line(&shown(problem))).collect();
            Err(Failure::usage(format!("{file} is no drill")).problems(lines))
        }
    }
}

fn shown(problem: Problem) -> ManifestProblem {
    let place = problem.place;
    ManifestProblem {
        file: place.as_ref().and_then(|place| place.file.clone()),
        line: place.as_ref().map(|place| place.line),
        column: place.as_ref().map(|place| place.column),
        object: problem.object,
        field: problem.field,
        message: problem.message,
        remedy: problem.remedy,
    }
}

/// Every shipped drill.
pub(super) fn list() -> Outcome<Vec<Listed>> {
    SHIPPED
        .iter()
        .map(|(name, text)| {
            let drill = read(text, name)?.drill;
            let does = drill.spec.description.split_whitespace().collect::<Vec<_>>().join(" ");
            Ok(Listed { scenario: (*name).to_owned(), does, needs: needs(&drill.spec) })
        })
        .collect()
}

fn needs(spec: &DrillSpec) -> Vec<&'static str> {
    [
        (spec.needs_packets(), "real packets (root)"),
        (spec.needs_binary(), "--binary"),
        (spec.needs_clock(), "libfaketime"),
        (spec.needs_own_playground(), "--fresh"),
    ]
    .into_iter()
    .filter_map(|(needed, what)| needed.then_some(what))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_shipped_drill_is_sound_and_has_the_name_of_its_file() {
        for (name, text) in SHIPPED {
            let found = read(text, name).map_err(|e| format!("{e:?}")).expect(name);
            assert_eq!(found.drill.name.as_str(), *name);
            let (clouds, nodes) = found.drill.spec.least();
            let ground = &found.drill.spec.playground;
            assert!(ground.clouds.len() >= clouds as usize, "{name}");
            let all = ground.clouds.len() as u32 * (ground.processors + ground.workloads);
            assert!(all >= nodes, "{name}");
        }
    }

    #[test]
    fn every_file_is_shipped() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/drills");
        let files = std::fs::read_dir(dir).expect("a directory").flatten();
        let files: BTreeSet<_> = files.map(|f| f.file_name().to_string_lossy().into_owned()).collect();
        let shipped: BTreeSet<_> = SHIPPED.iter().map(|(name, _)| format!("{name}.yaml")).collect();
        assert_eq!(files, shipped);
    }

    #[test]
    fn an_unknown_name_gets_a_hint_and_a_bad_file_all_its_problems() {
        let error = find(OsStr::new("cloud-los")).err().expect("unknown");
        assert_eq!(error.code, 1);
        assert!(format!("{error:?}").contains("did you mean cloud-loss?"), "{error:?}");
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("mine.yaml");
        std::fs::write(
            &file,
            "apiVersion: selvedge/v1\nkind: Drill\nmetadata: {name: X}\nspec: {sterps: []}\n",
        )
        .expect("written");
        let error = find(file.as_os_str()).err().expect("bad");
        assert_eq!(error.code, 2);
        let text = format!("{error:?}");
        for wanted in ["mine.yaml:4:8", "did you mean steps?", "mine.yaml:3:18"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
