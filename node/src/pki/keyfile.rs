//! Files with secrets: mode 0600, written atomically and durably, not read when others could have.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::PkiError;

/// Largest file that is taken for one with a key.
pub const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// Writes a secret. After a crash there is the old content or the new, never a mixture: a new file is
/// synced, renamed over the old one, and the directory is synced.
///
/// # Errors
/// When any step fails; the old content is then still there.
pub fn write_secret(path: &Path, secret: &[u8]) -> Result<(), PkiError> {
    let temporary = temporary_beside(path);
    let write = || -> io::Result<()> {
        // A leftover may have other permissions, which truncating it would keep.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(secret)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| {
        // The content must not stay behind; that it could not be removed adds nothing to the error.
        let _ = fs::remove_file(&temporary);
        PkiError::File { what: "write", path: path.to_owned(), source }
    })
}

/// Reads a secret; `None` when there is no such file.
///
/// # Errors
/// When it cannot be read, is unreasonably large, or others than its owner can reach it.
pub fn read_secret(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, PkiError> {
    let failed = |what, source| PkiError::File { what, path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", e)),
    };
    // Asked of the open file, not of the path: what is checked is what is read.
    let metadata = file.metadata().map_err(|e| failed("examine", e))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PkiError::Exposed { path: path.to_owned(), mode });
    }
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE_BYTES {
        let why = format!("it is not a file of at most {MAX_KEY_FILE_BYTES} bytes");
        return Err(PkiError::KeyFile { path: path.to_owned(), why });
    }
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut secret = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut secret).map_err(|e| failed("read", e))?;
    Ok(Some(secret))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_private_and_replaced_as_a_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.key");
        assert!(read_secret(&path).expect("no error").is_none());
        fs::write(temporary_beside(&path), "left over by a crash").expect("a file");
        write_secret(&path, b"first").expect("written");
        write_secret(&path, b"second").expect("written");
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).expect("read").expect("there").as_slice(), b"second");
        assert_eq!(fs::read_dir(directory.path()).expect("a list").count(), 1, "nothing is left behind");
    }

    #[test]
    fn exposed_and_oversized_files_are_refused_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.key");
        write_secret(&path, b"secret").expect("written");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let error = read_secret(&path).expect_err("exposed").to_string();
            assert!(error.contains("node.key") && error.contains("chmod 600"), "{error}");
        }
        let too_large = vec![0; usize::try_from(MAX_KEY_FILE_BYTES).expect("small") + 1];
        write_secret(&path, &too_large).expect("written");
        assert!(matches!(read_secret(&path), Err(PkiError::KeyFile { .. })));
        let nowhere = directory.path().join("missing/node.key");
        assert!(matches!(write_secret(&nowhere, b"x"), Err(PkiError::File { what: "write", .. })));
    }
}
