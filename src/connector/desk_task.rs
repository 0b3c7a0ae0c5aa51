//! The one task that owns the desk: inputs in, steps into the store.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::net::shutdown::Stop;
use crate::store::sqlite::{Store, StoreError};

use super::desk::{Desk, Effect, Input, Now, Step};

/// Inputs taken from the queue at once, and joined into one submission.
const BATCH: usize = 64;

/// How long changes that nobody waits for stay here for company: a commit of their own costs as much as a message's.
const UNHURRIED: Duration = Duration::from_millis(20);

/// Such changes that do not wait any longer.
const MOST_UNHURRIED: usize = 256;

/// Asks the desk about itself.
#[derive(Clone, Debug)]
pub(super) struct DeskHandle(mpsc::Sender<oneshot::Sender<serde_json::Value>>);

impl DeskHandle {
    /// The desk's status; `None` when it has stopped.
    pub(super) async fn status(&self) -> Option<serde_json::Value> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

pub(super) fn start(tasks: &mut JoinSet<()>, desk: Desk, store: Store<Effect>, inputs: mpsc::Receiver<Input>, stop: Stop) -> DeskHandle {
    let (asks, asked) = mpsc::channel(16);
    tasks.spawn(run(desk, store, inputs, asked, stop));
    DeskHandle(asks)
}

async fn run(
    mut desk: Desk,
    store: Store<Effect>,
    mut inputs: mpsc::Receiver<Input>,
    mut asked: mpsc::Receiver<oneshot::Sender<serde_json::Value>>,
    mut stop: Stop,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut waiting = Step::default();
    let mut waiting_until = None;
    loop {
        let due = desk.poll_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            taken = inputs.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    break;
                }
            }
            Some(answer) = asked.recv() => {
                let status = serde_json::to_value(desk.status()).unwrap_or_default();
                // Whoever asked may have gone.
                let _gone = answer.send(status);
            }
            () = wait_until(due) => batch.push(Input::Timeout),
            () = wait_until(waiting_until) => {}
            () = stop.requested() => break,
        }
        // Whoever else can run does so first: what they bring is committed together.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(input) = inputs.try_recv()
        {
            batch.push(input);
        }
        handle(&mut desk, &mut batch, &mut waiting);
        if waiting.is_unhurried() && waiting.ops.len() < MOST_UNHURRIED {
            let until = *waiting_until.get_or_insert_with(|| tokio::time::Instant::now() + UNHURRIED);
            if tokio::time::Instant::now() < until {
                continue;
            }
        }
        waiting_until = None;
        if submit(&store, std::mem::take(&mut waiting)).await.is_err() {
            tracing::error!("the store has ended; the connector cannot go on");
            return;
        }
    }
    // A store that has ended says so when it is closed.
    let _told_below = submit(&store, waiting).await;
    if let Err(error) = store.close().await {
        tracing::error!(%error, "the store did not close cleanly");
    }
}

async fn submit(store: &Store<Effect>, Step { ops, effects }: Step) -> Result<(), StoreError> {
    if ops.is_empty() && effects.is_empty() { Ok(()) } else { store.submit(ops, effects).await }
}

/// Handles inputs that came together; what they lead to goes behind what waits.
fn handle(desk: &mut Desk, batch: &mut Vec<Input>, waiting: &mut Step) {
    let now = now();
    for input in batch.drain(..) {
        waiting.append(desk.handle(input, now));
    }
}

async fn wait_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Both clocks.
#[expect(clippy::disallowed_methods, reason = "the shell reads the clocks for the pure desk")]
pub(super) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}
