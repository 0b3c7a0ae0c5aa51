//! The queue of one session's events: bounded, for one sender and one receiver, and next to nothing while it is empty.
//!
//! A channel of the runtime keeps a block of 32 places for each of its users, which here would be two thirds of the events' cost
//! in memory: nearly all sessions are silent nearly always.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::proto::tunnel::RelayEvent;

/// The owner's end. Dropping it ends the session's events.
#[derive(Debug)]
pub(super) struct Sender(Arc<Queue>);

/// What the tunnel says of one session. Ends when the session is cut off.
#[derive(Debug)]
pub struct SessionEvents(Arc<Queue>);

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendFault {
    /// The session takes its events too slowly.
    Full,
    /// The session is gone.
    Gone,
}

#[derive(Debug)]
struct Queue {
    depth: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<RelayEvent>,
    waiting: Option<Waker>,
    is_ended: bool,
    is_gone: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a queue of at most `depth` events.
pub(super) fn mailbox(depth: usize) -> (Sender, SessionEvents) {
    let queue = Arc::new(Queue { depth, state: Mutex::default() });
    (Sender(Arc::clone(&queue)), SessionEvents(queue))
}

impl Sender {
    /// Puts an event in; never waits.
    pub(super) fn try_send(&self, event: RelayEvent) -> Result<(), SendFault> {
        let mut state = self.0.state();
        if state.is_gone {
            return Err(SendFault::Gone);
        }
        if state.events.len() >= self.0.depth {
            return Err(SendFault::Full);
        }
        state.events.push_back(event);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_ended = true;
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl SessionEvents {
    /// The next event; `None` once the sender is gone and all was taken. Loses nothing when it is dropped.
    pub async fn recv(&mut self) -> Option<RelayEvent> {
        poll_fn(|context| self.poll(context)).await
    }

    /// The next event, if it is there.
    pub fn try_recv(&mut self) -> Option<RelayEvent> {
        take(&mut self.0.state())
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<RelayEvent>> {
        let mut state = self.0.state();
        if let Some(event) = take(&mut state) {
            return Poll::Ready(Some(event));
        }
        if state.is_ended {
            return Poll::Ready(None);
        }
        if !state.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(context.waker())) {
            state.waiting = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for SessionEvents {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_gone = true;
        state.events = VecDeque::new();
        state.waiting = None;
    }
}

fn take(state: &mut State) -> Option<RelayEvent> {
    let event = state.events.pop_front()?;
    if state.events.is_empty() {
        state.events = VecDeque::new();
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tunnel::SessionKey;

    fn event(n: u64) -> RelayEvent {
        RelayEvent::OpenOk { session: SessionKey(n), in_first: 1, out_first: 1 }
    }

    #[tokio::test]
    async fn events_arrive_in_order_and_the_end_after_them() {
        let (sender, mut events) = mailbox(2);
        let receiving = async {
            let mut taken = Vec::new();
            while let Some(event) = events.recv().await {
                taken.push(event);
            }
            taken
        };
        let sending = async {
            for n in 0..10 {
                while sender.try_send(event(n)).is_err() {
                    tokio::task::yield_now().await;
                }
            }
            drop(sender);
        };
        let (taken, ()) = tokio::join!(receiving, sending);
        assert_eq!(taken, (0..10).map(event).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn it_is_bounded_and_tells_when_nobody_takes() {
        let (sender, mut events) = mailbox(1);
        assert_eq!(sender.try_send(event(1)), Ok(()));
        assert_eq!(sender.try_send(event(2)), Err(SendFault::Full));
        assert_eq!(events.try_recv(), Some(event(1)));
        assert_eq!(events.try_recv(), None);
        drop(events);
        assert_eq!(sender.try_send(event(3)), Err(SendFault::Gone));
    }
}
