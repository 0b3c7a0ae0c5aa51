//! The embedded store: one SQLite file, one writer thread, group commit.
//!
//! ```text
//! submit(ops, effects) ─▶ bounded queue ─▶ writer thread: take what waits ─▶ one transaction, COMMIT ─▶ release(effects)
//! ```
//! There is no timer: whenever the writer is free it takes all that waits. A submission without ops keeps its place in the
//! order and costs no commit. A commit that fails (disk full, I/O) is tried again each second; meanwhile its effects and all
//! behind them are withheld and the queue fills, which holds back the submitters. Durability: WAL with `synchronous=FULL`.
//!
//! A lock file beside the database keeps a second process out. Not here: erasure and retention.

mod links;
mod load;
mod marks;
mod operation;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use rusqlite::Connection;
use rustix::fs::FlockOperation;
use tokio::sync::{mpsc, oneshot};

use crate::session::SessionId;
use crate::store::{Op, Snapshot, Transcript};

use self::writer::{Command, Submission, Writer};

/// Submissions that may wait before [`Store::submit`] holds its caller back, each of as much as its caller joins.
const QUEUE_DEPTH: usize = 32;

/// A handle to the store. Ends its writer when dropped; [`Store::close`] also waits for what was submitted.
pub struct Store<E> {
    commands: mpsc::Sender<Command<E>>,
    ended: oneshot::Receiver<Result<(), StoreError>>,
}

impl<E: Send + 'static> Store<E> {
    /// Opens the store at `path`, making it where there is none, and reads what a start goes on with. Blocks on the disk.
    ///
    /// The effects of committed submissions go to `release`, in the order of submission, several submissions' together where they
    /// were committed together. It is called on the writer's thread: the next commit waits for it, and it must not itself wait for
    /// [`Store::submit`].
    pub fn open(path: &Path, release: impl FnMut(Vec<E>) + Send + 'static) -> Result<(Self, Snapshot), StoreError> {
        let lock = lock(path)?;
        // SQLite would make the file by the process's umask; its WAL takes over the mode found here.
        let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        drop(made.map_err(|cause| StoreError::File { path: path.to_owned(), cause })?);
        let mut connection = Connection::open(path)?;
        schema::prepare(&mut connection)?;
        let snapshot = load::snapshot(&connection)?;
        let (commands, queue) = mpsc::channel(QUEUE_DEPTH);
        let (end, ended) = oneshot::channel();
        let writer = Writer::new(connection, queue, release, lock);
        let run = move || drop(end.send(writer.run()));
        thread::Builder::new().name("store".into()).spawn(run).map_err(StoreError::Thread)?;
        Ok((Self { commands, ended }, snapshot))
    }

    /// Hands over changes and the effects that may happen once they are committed; waits while the queue is full.
    pub async fn submit(&self, ops: Vec<Op>, effects: Vec<E>) -> Result<(), StoreError> {
        let submission = Command::Submit(Submission { ops, effects });
        self.commands.send(submission).await.map_err(|_| StoreError::Ended)
    }

    /// Reads the record of one session, with all that was submitted before.
    pub async fn transcript(&self, session: SessionId) -> Result<Option<Transcript>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Transcript(session, reply)).await.map_err(|_| StoreError::Ended)?;
        answer.await.map_err(|_| StoreError::Ended)?
    }

    /// Commits and releases all that was submitted, then ends the writer. Whatever `release` waits for must go on meanwhile.
    pub async fn close(self) -> Result<(), StoreError> {
        drop(self.commands);
        self.ended.await.map_err(|_| StoreError::Ended)?
    }
}

impl<E> fmt::Debug for Store<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("room", &self.commands.capacity()).finish_non_exhaustive()
    }
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file, or the lock beside it, cannot be made or opened.
    #[error("the store's file {path} cannot be opened")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another process works on it.
    #[error("the store {path} is in use by another process")]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// Made by another version of this program, or not a store.
    #[error("the store has schema version {found}, this program knows {known}")]
    Version {
        /// What the file says.
        found: i64,
        /// What is known here.
        known: i64,
    },
    /// A row does not hold what this program writes.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// Which value.
        what: &'static str,
    },
    /// SQLite or the disk failed.
    #[error("the store failed")]
    Sqlite(#[from] rusqlite::Error),
    /// No thread could be started.
    #[error("the store's writer thread cannot be started")]
    Thread(#[source] io::Error),
    /// The writer is gone, or gave up committing while closing.
    #[error("the store's writer has ended")]
    Ended,
}

/// Takes the lock beside the database; it is held as long as the file is open, whatever becomes of the process.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside);
    let file = opened.map_err(|cause| StoreError::File { path: beside.clone(), cause })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(cause) => Err(StoreError::File { path: beside, cause: cause.into() }),
    }
}
