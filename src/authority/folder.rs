//! The CA's folder: whole files and JSON lines, under one lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AuthorityError;
use crate::net::certificates::{Readers, write_atomically};

/// Largest file that is read: a hundred thousand certificates.
const MAX_FILE: u64 = 64 << 20;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// Held while a verb or the service changes the folder.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Folder {
    /// Makes the folder, for its owner alone.
    pub(super) fn make(dir: &Path) -> Result<Self, AuthorityError> {
        let folder = Self(dir.to_owned());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| folder.fault("", source))?;
        if folder.path("ca.pem").exists() || folder.path("ca-key.pem").exists() {
            return Err(AuthorityError::Exists(folder.path("ca.pem")));
        }
        Ok(folder)
    }

    pub(super) fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let folder = Self(dir.to_owned());
        if folder.path("ca.pem").exists() { Ok(folder) } else { Err(folder.none()) }
    }

    pub(super) fn none(&self) -> AuthorityError {
        AuthorityError::None(self.0.clone())
    }

    /// Waits for the lock.
    pub(super) fn lock(&self) -> Result<Lock, AuthorityError> {
        let locked = || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.path("lock"))?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(Lock { _file: file })
        };
        locked().map_err(|source| self.fault("lock", source))
    }

    /// A text file, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, AuthorityError> {
        let read = || {
            let file = File::open(self.path(name))?;
            if file.metadata()?.len() > MAX_FILE {
                return Err(io::Error::other("larger than 64 MiB"));
            }
            let mut text = String::new();
            file.take(MAX_FILE).read_to_string(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.fault(name, source)),
        }
    }

    /// Replaces a file that everybody may read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), AuthorityError> {
        write_atomically(&self.path(name), text.as_bytes(), Readers::Everybody).map_err(|source| self.fault(name, source))
    }

    /// Writes a private key that was not there.
    pub(super) fn write_key(&self, name: &str, text: &str) -> Result<(), AuthorityError> {
        if self.path(name).exists() {
            return Err(AuthorityError::Exists(self.path(name)));
        }
        write_atomically(&self.path(name), text.as_bytes(), Readers::Owner).map_err(|source| self.fault(name, source))
    }

    /// All lines of a file. A line that a crash cut short is none.
    pub(super) fn lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, AuthorityError> {
        let text = self.read(name)?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Appends a line, and is back when it is on the disk.
    pub(super) fn append(&self, name: &str, line: &impl Serialize) -> Result<(), AuthorityError> {
        let mut text = serde_json::to_string(line).map_err(|error| self.fault(name, error.into()))?;
        text.push('\n');
        let append = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(self.path(name))?;
            if ends_within_a_line(&mut file)? {
                file.write_all(b"\n")?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        append().map_err(|source| self.fault(name, source))
    }

    /// Sizes and times of files, to see whether they changed.
    pub(super) fn sizes(&self, names: &[&str]) -> Vec<u64> {
        let mark = |name: &&str| fs::metadata(self.path(name)).map_or([0, 0], |file| [file.len(), file.ino()]);
        names.iter().flat_map(mark).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn fault(&self, name: &str, source: io::Error) -> AuthorityError {
        AuthorityError::Folder { path: self.path(name), source }
    }
}

fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
