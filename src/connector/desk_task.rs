//! The one task that owns the desk: inputs in, steps into the store.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::net::shutdown::Stop;
use crate::store::sqlite::Store;

use super::desk::{Desk, Effect, Input, Now, Step};

/// Inputs taken from the queue at once, and joined into one submission.
const BATCH: usize = 64;

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
            () = stop.requested() => break,
        }
        let Step { ops, effects } = handle(&mut desk, &mut batch);
        if (!ops.is_empty() || !effects.is_empty()) && store.submit(ops, effects).await.is_err() {
            tracing::error!("the store has ended; the connector cannot go on");
            return;
        }
    }
    if let Err(error) = store.close().await {
        tracing::error!(%error, "the store did not close cleanly");
    }
}

/// Handles inputs that came together; what they lead to is one step.
fn handle(desk: &mut Desk, batch: &mut Vec<Input>) -> Step {
    let now = now();
    let mut inputs = batch.drain(..);
    let mut step = inputs.next().map(|first| desk.handle(first, now)).unwrap_or_default();
    for input in inputs {
        let Step { ops, effects } = desk.handle(input, now);
        step.ops.extend(ops);
        step.effects.extend(effects);
    }
    step
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
