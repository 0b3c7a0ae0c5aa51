//! The writer thread: takes what waits, commits it as one transaction, releases the effects.

use std::fs::File;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::session::SessionId;
use crate::store::{Op, StoreError, Transcript};

use super::load;
use super::marks::Marks;
use super::operation::{Applied, apply};

/// Submissions in one transaction: beyond this a commit gains little and the first effect waits too long.
const BATCH: usize = 16;

/// Pause before a failed commit is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a commit is tried once the store is closing: nobody can be waited for for ever then.
const TRIES_AT_CLOSE: u32 = 5;

/// Where a transcript goes.
type Reply = oneshot::Sender<Result<Option<Transcript>, StoreError>>;

/// What the writer is asked.
pub(super) enum Command<E> {
    /// To commit and release.
    Submit(Submission<E>),
    /// To read one session.
    Transcript(SessionId, Reply),
}

/// Changes, and the effects that they allow.
pub(super) struct Submission<E> {
    pub(super) ops: Vec<Op>,
    pub(super) effects: Vec<E>,
}

/// The owner of the writing connection.
pub(super) struct Writer<E, R> {
    connection: Connection,
    marks: Marks,
    queue: mpsc::Receiver<Command<E>>,
    release: R,
    /// Held, never read: the lock lasts as long as the connection.
    _lock: File,
}

impl<E, R: FnMut(Vec<E>)> Writer<E, R> {
    pub(super) fn new(connection: Connection, queue: mpsc::Receiver<Command<E>>, release: R, lock: File) -> Self {
        Self { connection, marks: Marks::default(), queue, release, _lock: lock }
    }

    /// Works until the store is dropped and its queue is empty.
    pub(super) fn run(mut self) -> Result<(), StoreError> {
        let mut taken = Vec::with_capacity(BATCH);
        while self.queue.blocking_recv_many(&mut taken, BATCH) > 0 {
            let mut batch = Batch { ops: Vec::new(), effects: Vec::new(), reads: Vec::new() };
            for command in taken.drain(..) {
                batch.add(command);
            }
            self.commit(&batch.ops)?;
            for (session, reply) in batch.reads {
                // Whoever asked may have gone.
                drop(reply.send(load::transcript(&self.connection, session)));
            }
            if !batch.effects.is_empty() {
                (self.release)(batch.effects);
            }
        }
        Ok(())
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        let mut tries = 0;
        while let Err(fault) = self.try_commit(ops) {
            self.marks.forget();
            tries += 1;
            tracing::warn!(error = %fault, tries, "the store cannot commit; everything behind it waits");
            if self.queue.is_closed() && tries >= TRIES_AT_CLOSE {
                return Err(fault.into());
            }
            thread::sleep(RETRY);
        }
        Ok(())
    }

    fn try_commit(&mut self, ops: &[Op]) -> rusqlite::Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        let outcome = self.transact(ops);
        // Some faults roll back by themselves; others leave the transaction open, and with it the file locked.
        if outcome.is_err() && !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        outcome
    }

    fn transact(&mut self, ops: &[Op]) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        self.apply_all(ops)?;
        self.execute("COMMIT")?;
        self.marks.committed();
        Ok(())
    }

    fn apply_all(&mut self, ops: &[Op]) -> rusqlite::Result<()> {
        for op in ops {
            if apply(&self.connection, &mut self.marks, op)? == Applied::Nothing {
                tracing::debug!("a change was repeated, or names what the store does not know");
            }
        }
        self.marks.write(&self.connection)
    }

    /// Runs one of the statements around a transaction, which are prepared once like all others.
    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// What one transaction covers.
struct Batch<E> {
    ops: Vec<Op>,
    effects: Vec<E>,
    reads: Vec<(SessionId, Reply)>,
}

impl<E> Batch<E> {
    fn add(&mut self, command: Command<E>) {
        match command {
            Command::Submit(submission) if self.ops.is_empty() && self.effects.is_empty() => {
                (self.ops, self.effects) = (submission.ops, submission.effects);
            }
            Command::Submit(submission) => {
                self.ops.extend(submission.ops);
                self.effects.extend(submission.effects);
            }
            Command::Transcript(session, reply) => self.reads.push((session, reply)),
        }
    }
}
