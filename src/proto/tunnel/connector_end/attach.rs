//! How the connector gets its tunnel onto a carrier: HELLO_ACK, ATTACH, ATTACHED or REFUSED.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::tunnel::carrier::{Assembly, Phase, Trial};
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::handshake::{Refusal, attach_frames, read_hello, take_part};
use crate::proto::tunnel::wire::{self, Cursor};
use crate::proto::tunnel::{CarrierId, ChannelId, ConnectorEvent, ResetCode};

use super::ConnectorEnd;
use super::channel::{Answer, Channel};

/// Longest word in REFUSED that is passed on, in bytes.
const MAX_CODE_BYTES: usize = 64;

impl ConnectorEnd {
    pub(super) fn on_hello_ack(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let Some(state) = self.carriers.get_mut(&carrier) else { return Ok(()) };
        if !matches!(state.phase, Phase::Greeting) {
            return Err(Refusal("unexpected_frame"));
        }
        read_hello(frame, &self.settings)?;
        state.phase = Phase::Candidate(Trial::new(now));
        state.stand_by(&self.settings);
        if self.current.is_none() {
            self.attach_on(carrier, now);
            // Losers of the race.
            self.close_unattached("another carrier was first", now);
        } else if !self.is_attached() {
            self.close(carrier, "another carrier was first", now);
        } else if self.is_leaving() {
            self.candidates_ready();
        }
        Ok(())
    }

    /// Gives the ATTACH to a carrier.
    pub(super) fn attach_on(&mut self, carrier: CarrierId, now: Instant) {
        self.current = Some(carrier);
        self.send_attach(carrier, now);
    }

    /// Says RESUME where there is a tunnel, else NEW.
    fn send_attach(&mut self, carrier: CarrierId, now: Instant) {
        let resumes = !self.tunnel_id.is_empty();
        let cursors = if resumes { self.cursors() } else { Vec::new() };
        let (epoch, from) = if resumes { (self.epoch, 0) } else { (0, self.next_channel()) };
        let frames = attach_frames(&self.tunnel_id, epoch, from, &cursors);
        let Some(state) = self.carriers.get_mut(&carrier) else { return };
        state.attaching(&self.settings, now);
        for frame in frames {
            // At most twenty parts on a fresh carrier: they fit.
            let _fits = state.push(frame);
        }
    }

    fn cursors(&self) -> Vec<Cursor> {
        let mut cursors: Vec<Cursor> = self.channels.0.iter().map(|(&channel, live)| live.cursor(channel)).collect();
        cursors.sort_unstable_by_key(|cursor| cursor.channel);
        cursors
    }

    /// The lowest channel number that was never used here; odd, as the relay's are.
    fn next_channel(&self) -> u32 {
        self.last_opened.saturating_add(1) | 1
    }

    pub(super) fn on_attached_part(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let Some(state) = self.carriers.get_mut(&carrier) else { return Ok(()) };
        let Phase::Attaching(assembly) = &mut state.phase else { return Err(Refusal("unexpected_frame")) };
        if !take_part(frame, assembly)? {
            return Ok(());
        }
        let assembly = std::mem::take(&mut **assembly);
        if assembly.tunnel_id.is_empty() || assembly.epoch == 0 {
            return Err(Refusal("malformed"));
        }
        if assembly.tunnel_id == self.tunnel_id && assembly.epoch <= self.epoch {
            return Err(Refusal("epoch"));
        }
        state.phase = Phase::Attached;
        self.attached(assembly, now);
        Ok(())
    }

    fn attached(&mut self, assembly: Assembly, now: Instant) {
        let resumed = assembly.tunnel_id == self.tunnel_id;
        self.detached_at = None;
        self.epoch = assembly.epoch;
        self.tunnel_id = assembly.tunnel_id;
        self.attached += 1;
        self.trunk.clear();
        self.policy.reset();
        self.long_lists.reset();
        self.events.push_back(ConnectorEvent::Attached { epoch: self.epoch, resumed });
        self.taken_over(now);
        if !resumed {
            return self.drop_channels();
        }
        let cursors: HashMap<u32, Cursor> = assembly.cursors.into_iter().map(|cursor| (cursor.channel, cursor)).collect();
        let mut channels: Vec<u32> = self.channels.0.keys().copied().collect();
        channels.sort_unstable();
        let mut ended: Vec<u32> = cursors.keys().filter(|channel| !self.channels.0.contains_key(channel)).copied().collect();
        ended.sort_unstable();
        for channel in ended {
            // It ended after the cursors were written.
            self.repeat_last(channel);
        }
        for channel in channels {
            match cursors.get(&channel) {
                Some(cursor) => self.resume_channel(channel, cursor, now),
                None => {
                    let finished = self.channels.0.get(&channel).is_some_and(Channel::is_finished);
                    self.forget(channel);
                    if finished {
                        continue;
                    }
                    self.events.push_back(ConnectorEvent::Reset { channel: ChannelId(channel), code: ResetCode::Unknown });
                }
            }
        }
    }

    fn drop_channels(&mut self) {
        self.checks.clear();
        self.last_words.clear();
        let channels: Vec<u32> = self.channels.0.keys().copied().collect();
        for channel in channels {
            self.forget(channel);
        }
    }

    /// Takes up a channel where the relay says it stands.
    fn resume_channel(&mut self, channel: u32, cursor: &Cursor, now: Instant) {
        let Some(live) = self.channels.0.get_mut(&channel) else { return };
        live.line.inn.reattach(&mut self.pool);
        let Answer::Accepted(ok) = live.answer else { return };
        let (first, end) = (live.line.out.first(), live.line.out.next_number());
        let next = if cursor.answered { cursor.next } else { cursor.next.clamp(first, end) };
        let handled = cursor.handled.min(next.saturating_sub(1));
        if live.line.out.reattach(next, handled).is_err() {
            return self.fault(channel);
        }
        if !cursor.answered {
            self.answer(channel, &ok);
        }
        // What the desk handled since the cursors were sent is told again.
        self.touch(channel, now, |live, _| live.line.inn.owe_now());
        self.tell_handled(channel, handled, cursor.confirmed.min(handled));
        self.end_if_finished(channel, now);
    }

    pub(super) fn on_refused(&mut self, carrier: CarrierId, frame: &Frame, now: Instant) -> Result<(), Refusal> {
        let refused: wire::Refused = wire::body(frame).map_err(|_| Refusal("malformed"))?;
        let attaching = self.carriers.get(&carrier).is_some_and(|state| matches!(state.phase, Phase::Attaching(_)));
        if !attaching {
            return Err(Refusal("unexpected_frame"));
        }
        if refused.code == "unknown_tunnel" && !self.tunnel_id.is_empty() {
            self.tunnel_id = Bytes::new();
            self.send_attach(carrier, now);
            return Ok(());
        }
        let code = refused.code.chars().filter(|c| c.is_ascii_graphic()).take(MAX_CODE_BYTES).collect();
        let retry_after = Duration::from_millis(refused.retry_after_millis).min(Duration::from_secs(3600));
        self.events.push_back(ConnectorEvent::Refused { code, retry_after });
        // Whoever waits beside it would be refused as well, and sooner than the relay asks for.
        self.close_unattached("the relay refused another carrier", now);
        self.close(carrier, "the relay refused", now);
        Ok(())
    }
}
