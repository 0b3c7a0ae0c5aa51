//! The audit log's file and the thread that writes it.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use serde::Serialize;

use super::{Counts, Event};
use crate::telemetry::utc;

/// Mode of the file: owner and group.
const MODE: u32 = 0o640;

/// Lines written in one piece.
const BATCH: usize = 256;

/// How long the thread waits before it looks after what was left out and told by nobody.
const IDLE: Duration = Duration::from_secs(1);

/// What the thread is given.
#[derive(Debug)]
pub(super) enum Item {
    /// An event and its time, in milliseconds since 1970.
    Event(Box<Event>, u64),
    /// All before it is to be written.
    Flush(SyncSender<()>),
}

/// Writes the file. Whoever renames it finds it made anew: a rotating program has nothing to tell.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    rotate_at: u64,
    counts: Arc<Counts>,
    out: Option<Out>,
    batch: String,
    lines: u64,
    seq: u64,
    /// Whether the last write failed, and was told.
    is_failing: bool,
}

#[derive(Debug)]
struct Out {
    file: File,
    /// Device and inode.
    id: (u64, u64),
}

#[derive(Serialize)]
struct Line<'e> {
    time: &'e str,
    seq: u64,
    #[serde(flatten)]
    event: &'e Event,
}

impl Writer {
    pub(super) fn open(path: PathBuf, rotate_at: u64, counts: Arc<Counts>) -> io::Result<Self> {
        let out = Some(open(&path)?);
        Ok(Self { path, rotate_at, counts, out, batch: String::new(), lines: 0, seq: 0, is_failing: false })
    }

    /// Writes until nobody can give it anything any more; `idle` is called after a while without anything.
    pub(super) fn run(mut self, items: &Receiver<Item>, idle: impl Fn()) {
        loop {
            match items.recv_timeout(IDLE) {
                Ok(item) => {
                    self.take(item);
                    items.try_iter().take(BATCH).for_each(|item| self.take(item));
                    self.write();
                }
                Err(RecvTimeoutError::Timeout) => idle(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Event(event, unix_millis) => self.add(&event, unix_millis),
            Item::Flush(written) => {
                self.write();
                // Whoever asked may have given up.
                let _unheard = written.try_send(());
            }
        }
    }

    fn add(&mut self, event: &Event, unix_millis: u64) {
        self.seq += 1;
        let second = utc(unix_millis / 1000);
        let time = format!("{}.{:03}Z", second.trim_end_matches('Z'), unix_millis % 1000);
        let line = serde_json::to_string(&Line { time: &time, seq: self.seq, event });
        // Every event is an object of plain texts and numbers: none fails.
        let _never = writeln!(self.batch, "{}", line.unwrap_or_default());
        self.lines += 1;
    }

    /// Writes what was taken. What the file does not take is counted and lost: nothing here waits for a disk.
    fn write(&mut self) {
        let (lines, batch) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.batch));
        if lines == 0 {
            return;
        }
        // After a failure the file may end within a line.
        let parted = if self.is_failing { "\n" } else { "" };
        let outcome = self.ready().and_then(|mut file| file.write_all(format!("{parted}{batch}").as_bytes()));
        let Err(fault) = outcome else {
            self.is_failing = false;
            self.counts.written.fetch_add(lines, Ordering::Relaxed);
            return;
        };
        self.out = None;
        self.counts.lost.fetch_add(lines, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(file = %self.path.display(), %fault, "the audit log cannot be written; its lines are lost until it can");
        }
    }

    /// The file at the path, made anew where it was renamed, removed or has grown too large.
    fn ready(&mut self) -> io::Result<&File> {
        let standing = fs::metadata(&self.path).ok();
        let is_full = standing.as_ref().is_some_and(|file| file.len() >= self.rotate_at);
        if is_full {
            fs::rename(&self.path, older(&self.path))?;
        }
        let is_ours = standing.is_some_and(|file| self.out.as_ref().is_some_and(|out| out.id == (file.dev(), file.ino())));
        let out = match self.out.take() {
            Some(out) if is_ours && !is_full => out,
            Some(_) | None => open(&self.path)?,
        };
        Ok(&self.out.insert(out).file)
    }
}

fn open(path: &Path) -> io::Result<Out> {
    let file = OpenOptions::new().create(true).append(true).mode(MODE).open(path)?;
    let metadata = file.metadata()?;
    Ok(Out { file, id: (metadata.dev(), metadata.ino()) })
}

/// Where a full file goes; the one before it goes for good.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}
