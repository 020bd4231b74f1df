//! Manifests named on the command line: files, directories, standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use selvedge_fabric::manifest::MAX_MANIFEST_BYTES;
use selvedge_node::api::types::ManifestFile;

use crate::failure::{Failure, Outcome};

/// Files that a directory may hold.
const MAX_FILES: usize = 1_000;
/// File names that count as manifests.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads all of them; a directory stands for its manifests, in order of their names, without going into
/// directories below.
pub(crate) fn read_all(sources: &[PathBuf]) -> Outcome<Vec<ManifestFile>> {
    let mut files = Vec::new();
    for source in sources {
        if source.as_os_str() == "-" {
            files.push(read(io::stdin().lock(), "<stdin>")?);
        } else if source.is_dir() {
            for path in manifests_in(source)? {
                files.push(read_file(&path)?);
            }
        } else {
            files.push(read_file(source)?);
        }
    }
    Ok(files)
}

/// Reads one text, for instance assertions.
pub(crate) fn read_one(source: &Path) -> Outcome<String> {
    let file = match source.as_os_str() == "-" {
        true => read(io::stdin().lock(), "<stdin>")?,
        false => read_file(source)?,
    };
    Ok(file.text)
}

fn manifests_in(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let cannot = |e: io::Error| Failure::new(format!("cannot read directory {}: {e}", dir.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let known = path.extension().is_some_and(|x| EXTENSIONS.iter().any(|known| x == *known));
        if known && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let what = format!("directory {} holds no manifest", dir.display());
        return Err(Failure::new(what).remedy("manifests end in .yaml, .yml or .json"));
    }
    if paths.len() > MAX_FILES {
        return Err(Failure::new(format!("{} files in {}; at most {MAX_FILES}", paths.len(), dir.display())));
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Outcome<ManifestFile> {
    let file =
        fs::File::open(path).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
    read(file, &path.display().to_string())
}

fn read(reader: impl Read, name: &str) -> Outcome<ManifestFile> {
    let limit = u64::try_from(MAX_MANIFEST_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let cannot = |e: io::Error| Failure::new(format!("cannot read {name}: {e}"));
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > MAX_MANIFEST_BYTES {
        let what = format!("{name} is larger than {MAX_MANIFEST_BYTES} bytes");
        return Err(Failure::new(what).remedy("split it into several files and give -f for each"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("{name} is no UTF-8 text")).remedy("save it as UTF-8"))?;
    Ok(ManifestFile { name: name.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_its_manifests_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [("b.yaml", "b"), ("a.json", "a"), ("notes.txt", "x"), ("c.yml", "c")] {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        fs::create_dir(dir.path().join("d.yaml")).expect("a directory");
        let files = read_all(&[dir.path().to_owned()]).expect("files");
        assert_eq!(files.iter().map(|f| f.text.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(files[0].name.ends_with("a.json"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(read_all(&[dir.path().to_owned()]).expect_err("empty").to_string().contains("no manifest"));
        let missing = read_all(&[dir.path().join("nope.yaml")]).expect_err("missing");
        assert!(missing.to_string().contains("nope.yaml"));
        let path = dir.path().join("latin1.yaml");
        fs::write(&path, b"\xe4").expect("a file");
        assert!(read_all(&[path]).expect_err("latin 1").to_string().contains("UTF-8"));
    }
}
