//! Writes certificates and keys so that no reader and no crash ever sees half of them.
//!
//! One file is staged beside its target and renamed. A certificate and its key are two files, and two renames are not one: both
//! are staged whole as `FILE.next` first, and [`finish_pair`], asked before every load, completes what a crash interrupted.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::files::load;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: mode 0600.
    Owner,
    /// Everybody: mode 0644.
    Everybody,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everybody => 0o644,
        }
    }
}

/// Replaces a file in one step. A symbolic link stays one: the file that it names is replaced.
///
/// # Errors
/// The folder cannot be written.
pub fn write_atomically(path: &Path, text: &[u8], readers: Readers) -> io::Result<()> {
    let target = target(path);
    let staged = beside(&target, &format!(".{}.new", std::process::id()));
    let written = stage(&staged, text, readers).and_then(|()| fs::rename(&staged, &target));
    if written.is_err() {
        drop(fs::remove_file(&staged));
    }
    written?;
    sync_folder(&target)
}

/// Replaces a certificate and its key. A reader that looks in between sees two files that do not belong together, and looks again.
///
/// # Errors
/// A folder cannot be written; the pair that was there is as it was, or [`finish_pair`] completes the new one.
pub fn replace_pair(certificate: (&Path, &str), key: (&Path, &str)) -> io::Result<()> {
    let (certificate_path, key_path) = (target(certificate.0), target(key.0));
    stage(&next(&key_path), key.1.as_bytes(), Readers::Owner)?;
    stage(&next(&certificate_path), certificate.1.as_bytes(), Readers::Everybody)?;
    sync_folder(&certificate_path)?;
    finish_renames(&certificate_path, &key_path)
}

/// Completes a replacement that was interrupted; does nothing where there was none.
///
/// # Errors
/// A folder cannot be written.
pub fn finish_pair(certificate: &Path, key: &Path) -> io::Result<()> {
    let (certificate, key) = (target(certificate), target(key));
    let (next_certificate, next_key) = (next(&certificate), next(&key));
    if !next_certificate.exists() {
        return Ok(());
    }
    let staged_key = if next_key.exists() { &next_key } else { &key };
    // What was not staged whole is of no use to anybody.
    if load(&next_certificate, staged_key).is_err() {
        return Ok(());
    }
    finish_renames(&certificate, &key)
}

fn finish_renames(certificate: &Path, key: &Path) -> io::Result<()> {
    match fs::rename(next(key), key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::rename(next(certificate), certificate)?;
    sync_folder(certificate)
}

fn stage(staged: &Path, text: &[u8], readers: Readers) -> io::Result<()> {
    drop(fs::remove_file(staged));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(readers.mode()).open(staged)?;
    // The umask may have taken more than it should.
    file.set_permissions(fs::Permissions::from_mode(readers.mode()))?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_new| path.to_owned())
}

fn next(path: &Path) -> PathBuf {
    beside(path, ".next")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::certificates::self_signed;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_pair_is_replaced_whole_whatever_moment_the_process_dies_in() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let (_, old) = self_signed("old.example", NOW).unwrap();
        let (_, new) = self_signed("new.example", NOW).unwrap();
        // As the steps of `replace_pair` leave it, each by itself.
        for step in 0..5 {
            fs::write(&certificate, &old.certificate).unwrap();
            fs::write(&key, old.key.as_bytes()).unwrap();
            if step >= 1 {
                let whole = if step == 1 { &new.key[..100] } else { &new.key };
                fs::write(next(&key), whole).unwrap();
            }
            if step >= 2 {
                let whole = if step == 2 { &new.certificate[..100] } else { &new.certificate };
                fs::write(next(&certificate), whole).unwrap();
            }
            if step >= 4 {
                fs::rename(next(&key), &key).unwrap();
            }
            finish_pair(&certificate, &key).unwrap();
            assert!(load(&certificate, &key).is_ok(), "step {step}");
            let expected = if step >= 3 { &new } else { &old };
            assert_eq!(fs::read_to_string(&certificate).unwrap(), expected.certificate, "step {step}");
        }
        replace_pair((&certificate, &old.certificate), (&key, &old.key)).unwrap();
        assert!(load(&certificate, &key).is_ok());
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!next(&key).exists() && !next(&certificate).exists());
    }

    #[test]
    fn a_link_stays_a_link_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomically(&link, b"new", Readers::Owner).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
