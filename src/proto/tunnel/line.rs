//! A session's two halves together, and what one carrier still has to say about all of them.
//!
//! Both ends are alike here: a [`Line`] is one session's numbers both ways; a [`Trunk`] is the tunnel's list of who has
//! something to send. The trunk is emptied with each carrier and filled again from the lines by the attachment.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::credit::Pool;
use super::frame;
use super::handshake::MAX_CHANNELS;
use super::inflow::{Inflow, Owed};
use super::memory::ReplayMemory;
use super::outflow::Outflow;
use super::scheduler::Scheduler;
use super::wire::{self, kind};

/// How long an ACK or a COUNTED may wait for company.
const COALESCE: Duration = Duration::from_millis(50);

/// What is due within this time of what is due now leaves with it: among many channels each would else wake the process and send a
/// packet by itself.
const TOGETHER: Duration = Duration::from_millis(20);

/// How many widened channels are looked at when one more wants a window and the pool is short.
const SHRINK_TRIES: usize = 8;

/// Most frames that wait ahead of all events before answers are dropped.
const MAX_ANSWERS: usize = 4096;

/// Most frames that may wait ahead of all events: each channel's OPEN or its answer, and as much again.
const MAX_FIRST: usize = 2 * MAX_CHANNELS;

/// One session's numbers, both ways.
#[derive(Debug)]
pub(super) struct Line {
    /// What this end sends.
    pub(super) out: Outflow,
    /// What this end receives.
    pub(super) inn: Inflow,
    /// OUT frames wait for the answer to OPEN.
    pub(super) held_back: bool,
    /// Relay: the client's stanza count as of the newest event or COUNTED.
    pub(super) sm_latest: u32,
    /// Relay: the stanza count that the peer was told last.
    pub(super) sm_told: u32,
    /// Relay: a COUNTED is waiting for its time.
    pub(super) counted_due: bool,
}

impl Line {
    pub(super) fn new(out_first: u64, in_next: u64, memory: &ReplayMemory) -> Self {
        let (out, inn) = (Outflow::new(out_first, memory), Inflow::new(in_next));
        Self { out, inn, held_back: false, sm_latest: 0, sm_told: 0, counted_due: false }
    }

    pub(super) fn has_turn(&self) -> bool {
        !self.held_back && (self.out.can_send() || (self.counted_due && self.out.is_drained()))
    }

    fn write(&mut self, channel: u32, deficit: &mut usize, max: usize, out: &mut BytesMut, now: Instant) -> u64 {
        if self.held_back {
            return 0;
        }
        let again = self.out.write(channel, deficit, max, out, now);
        if self.counted_due && self.out.is_drained() && out.len() < max {
            wire::put(out, kind::COUNTED, 0, channel, &wire::Counted { sm_in: self.sm_latest });
            self.counted_due = false;
        }
        again
    }
}

/// Where the trunk finds the line of a channel.
pub(super) trait Lines {
    /// The line of a live channel.
    fn line(&mut self, channel: u32) -> Option<&mut Line>;
}

/// What the attached carrier still has to say.
#[derive(Debug, Default)]
pub(super) struct Trunk {
    /// Encoded frames of the data lane that go before any event: OPEN, its answers, OWN, RESET.
    pub(super) first: VecDeque<Bytes>,
    /// Channels with events to send.
    pub(super) scheduler: Scheduler,
    acks_now: VecDeque<u32>,
    acks_later: VecDeque<(Instant, u32)>,
    counted: VecDeque<(Instant, u32)>,
    widened: VecDeque<u32>,
    /// Channels that have sent something, by the time at which to see whether it was received.
    watched: BTreeSet<(Instant, u32)>,
    /// Items that went out a second time, over all carriers.
    pub(super) replayed: u64,
}

impl Trunk {
    /// Forgets everything: the carrier is gone.
    pub(super) fn clear(&mut self) {
        *self = Self { replayed: self.replayed, ..Self::default() };
    }

    /// Puts the channel where its owed ACK and its log want it. `before` is what was owed before the change.
    pub(super) fn note(&mut self, channel: u32, before: Owed, line: &Line, now: Instant) {
        match (before, line.inn.owed()) {
            (Owed::Nothing, Owed::Later) => self.acks_later.push_back((now + COALESCE, channel)),
            (Owed::Nothing | Owed::Later, Owed::Now) => self.acks_now.push_back(channel),
            (Owed::Nothing, Owed::Nothing) | (Owed::Later | Owed::Now, _) => {}
        }
        if line.has_turn() {
            self.scheduler.activate(channel);
        }
    }

    /// Queues a small answer to a frame of the peer's; one too many is dropped: the peer asks again or times out.
    pub(super) fn push_answer(&mut self, frame: Bytes) {
        if self.first.len() < MAX_ANSWERS {
            self.first.push_back(frame);
        }
    }

    /// Takes back the frame of `kind` for a channel that has not been handed to a carrier yet; tells whether there was one.
    pub(super) fn unsay(&mut self, kind: u8, channel: u32) -> bool {
        let head = frame::head(kind, 0, channel);
        let waiting = self.first.iter().position(|frame| frame.starts_with(&head));
        waiting.and_then(|index| self.first.remove(index)).is_some()
    }

    /// A stanza count waits to be told.
    pub(super) fn note_counted(&mut self, channel: u32, now: Instant) {
        self.counted.push_back((now + COALESCE, channel));
    }

    /// The channel's window grew; if the pool is short, idle channels give theirs back.
    pub(super) fn note_widened(&mut self, channel: u32, lines: &mut impl Lines, pool: &mut Pool, now: Instant) {
        self.widened.push_back(channel);
        self.drop_narrow(lines);
        if !pool.is_short() {
            return;
        }
        for _ in 0..SHRINK_TRIES.min(self.widened.len()) {
            let Some(candidate) = self.widened.pop_front() else { return };
            let Some(line) = lines.line(candidate) else { continue };
            let before = line.inn.owed();
            if line.inn.shrink(pool, now) {
                self.note(candidate, before, line, now);
            } else if line.inn.is_widened() {
                self.widened.push_back(candidate);
            }
        }
    }

    /// Looks at two of the list for each that is added, so that channels which have ended do not pile up in it.
    fn drop_narrow(&mut self, lines: &mut impl Lines) {
        for _ in 0..2 {
            let Some(candidate) = self.widened.pop_front() else { return };
            if lines.line(candidate).is_some_and(|line| line.inn.is_widened()) {
                self.widened.push_back(candidate);
            }
        }
    }

    /// Whether so many answers wait that the peer, which causes them, cannot be reading.
    pub(super) fn is_flooded(&self) -> bool {
        self.first.len() > MAX_FIRST
    }

    /// Whether a channel has waited for `after` to hear that what it sent was received: its carrier does not carry.
    #[must_use]
    pub(super) fn is_stalled(&mut self, lines: &mut impl Lines, after: Duration, now: Instant) -> bool {
        while let Some((_, channel)) = self.watched.first().filter(|(due, _)| *due <= now).copied() {
            self.watched.pop_first();
            let Some(line) = lines.line(channel) else { continue };
            match line.out.unreceived_since() {
                None => line.out.is_watched = false,
                Some(since) if now >= since + after => return true,
                Some(since) => {
                    self.watched.insert((since + after, channel));
                }
            }
        }
        false
    }

    /// Moves what is due.
    pub(super) fn handle_timeout(&mut self, lines: &mut impl Lines, now: Instant) {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let soon = if is_due(self.poll_timeout()) { now + TOGETHER } else { now };
        while let Some((_, channel)) = self.acks_later.pop_front_if(|(due, _)| *due <= soon) {
            if let Some(line) = lines.line(channel)
                && line.inn.owed() == Owed::Later
            {
                line.inn.owe_now();
                self.acks_now.push_back(channel);
            }
        }
        while let Some((_, channel)) = self.counted.pop_front_if(|(due, _)| *due <= soon) {
            if let Some(line) = lines.line(channel)
                && line.sm_latest != line.sm_told
            {
                line.sm_told = line.sm_latest;
                line.counted_due = true;
                self.scheduler.activate(channel);
            }
        }
    }

    /// When [`Trunk::handle_timeout`] is wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ack = self.acks_later.front().map(|(due, _)| *due);
        let counted = self.counted.front().map(|(due, _)| *due);
        let watched = self.watched.first().map(|(due, _)| *due);
        ack.into_iter().chain(counted).chain(watched).min()
    }

    /// Appends ACKs to `out` until it holds `max` bytes.
    pub(super) fn write_acks(&mut self, lines: &mut impl Lines, max: usize, out: &mut BytesMut) {
        while out.len() < max {
            let Some(channel) = self.acks_now.pop_front() else { return };
            if let Some(line) = lines.line(channel)
                && line.inn.owed() == Owed::Now
            {
                wire::put(out, kind::ACK, 0, channel, &line.inn.take_ack());
            }
        }
    }

    /// Appends frames of the data lane to `out` until it holds `max` bytes.
    pub(super) fn write_data(&mut self, lines: &mut impl Lines, max: usize, out: &mut BytesMut, stalled_after: Duration, now: Instant) {
        while out.len() < max {
            let Some(frame) = self.first.pop_front() else { break };
            out.extend_from_slice(&frame);
        }
        while out.len() < max {
            let Some((channel, mut deficit)) = self.scheduler.turn() else { return };
            let Some(line) = lines.line(channel) else {
                self.scheduler.rest();
                continue;
            };
            self.replayed += line.write(channel, &mut deficit, max, out, now);
            if !line.out.is_watched && line.out.unreceived_since().is_some() {
                line.out.is_watched = true;
                self.watched.insert((now + stalled_after, channel));
            }
            if line.has_turn() { self.scheduler.used(deficit) } else { self.scheduler.rest() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Lines for HashMap<u32, Line> {
        fn line(&mut self, channel: u32) -> Option<&mut Line> {
            self.get_mut(&channel)
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn channels_that_have_ended_do_not_pile_up() {
        let (mut trunk, mut pool, now) = (Trunk::default(), Pool::new(&ReplayMemory::default()), Instant::now());
        let mut lines = HashMap::<u32, Line>::new();
        for channel in 0..10_000 {
            let mut line = Line::new(1, 1, &ReplayMemory::default());
            line.inn.arrive(1, 4096, &mut pool, now);
            assert!(line.inn.is_widened());
            lines.insert(channel, line);
            trunk.note_widened(channel, &mut lines, &mut pool, now);
            if let Some(mut line) = lines.remove(&channel) {
                line.inn.detach(&mut pool);
            }
        }
        assert!(trunk.widened.len() < 10, "{}", trunk.widened.len());
    }
}
