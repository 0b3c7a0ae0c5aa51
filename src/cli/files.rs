//! Files that verbs read and write.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::Failure;

/// Largest file that a verb reads.
const MAX_FILE: u64 = 4 << 20;

/// Who may read a new file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Readers {
    /// Its owner alone: mode 0600.
    Owner,
    /// Everybody: mode 0644.
    Everybody,
}

/// Reads a text file.
pub(super) fn read_text(file: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::runtime(format!("cannot read {}: {why}", file.display()));
    let size = fs::metadata(file).map_err(|error| failed(&error))?.len();
    if size > MAX_FILE {
        return Err(failed(&"larger than 4 MiB"));
    }
    fs::read_to_string(file).map_err(|error| failed(&error))
}

/// Writes a file that must not exist yet.
pub(super) fn create(file: &Path, text: &str, readers: Readers) -> Result<(), Failure> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut new = match opened {
        Ok(new) => new,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(exists_already(file));
        }
        Err(error) => {
            return Err(Failure::runtime(format!("cannot write {}: {error}", file.display())));
        }
    };
    new.write_all(text.as_bytes())
        .and_then(|()| new.sync_all())
        .map_err(|error| Failure::runtime(format!("cannot write {}: {error}", file.display())))
}

/// The failure of a file that would have to be overwritten.
pub(super) fn exists_already(file: &Path) -> Failure {
    Failure::runtime(format!("{} exists already", file.display())).hint("move it away first: nothing is overwritten")
}

/// Makes a folder that only its owner may enter, if it is not there.
pub(super) fn create_private_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Failure::runtime(format!("cannot make {}: {error}", folder.display())))
}

/// Replaces the content of a file in one step, keeping its mode and owner; a new file is its
/// owner's alone. A reader sees the old or the new text, never a part.
pub(super) fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    // A symbolic link stays one: the file that it names is replaced.
    let target = fs::canonicalize(file).unwrap_or_else(|_new| file.to_owned());
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let staged = target.with_file_name(name);
    let written = stage(&staged, &target, text).and_then(|()| fs::rename(&staged, &target));
    written.map_err(|error| {
        drop(fs::remove_file(&staged));
        Failure::runtime(format!("cannot write {}: {error}", file.display()))
    })
}

fn stage(staged: &Path, target: &Path, text: &str) -> std::io::Result<()> {
    let mut new: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(staged)?;
    if let Ok(old) = fs::metadata(target) {
        std::os::unix::fs::fchown(&new, Some(old.uid()), Some(old.gid()))?;
        new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}
