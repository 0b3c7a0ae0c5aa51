//! The writer thread: takes what waits, commits it as one transaction, releases the effects.

use std::fs::File;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::session::SessionId;
use crate::store::{Op, StoreError, Transcript};

use super::load;
use super::operation::{Applied, apply};

/// Submissions in one transaction: beyond this a commit gains little and the first effect waits too long.
const BATCH: usize = 256;

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
pub(super) struct Writer<E> {
    connection: Connection,
    queue: mpsc::Receiver<Command<E>>,
    released: mpsc::Sender<Vec<E>>,
    /// Held, never read: the lock lasts as long as the connection.
    _lock: File,
}

impl<E> Writer<E> {
    pub(super) fn new(connection: Connection, queue: mpsc::Receiver<Command<E>>, released: mpsc::Sender<Vec<E>>, lock: File) -> Self {
        Self { connection, queue, released, _lock: lock }
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
            if !batch.effects.is_empty() && self.released.blocking_send(batch.effects).is_err() {
                tracing::debug!("nobody receives the store's effects any more");
            }
        }
        Ok(())
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        let mut tries = 0;
        while let Err(fault) = self.try_commit(ops) {
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
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for op in ops {
            if apply(&transaction, op)? == Applied::Nothing {
                tracing::debug!("a change was repeated, or names what the store does not know");
            }
        }
        transaction.commit()
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
            Command::Submit(submission) => {
                self.ops.extend(submission.ops);
                self.effects.extend(submission.effects);
            }
            Command::Transcript(session, reply) => self.reads.push((session, reply)),
        }
    }
}
