//! What the desk's commands do.

use std::time::Instant;

use crate::im::MAX_EVENT_BYTES;
use crate::proto::tunnel::inflow::Inflow;
use crate::proto::tunnel::open::{clip, refusal_code};
use crate::proto::tunnel::outflow::{Item, Outflow};
use crate::proto::tunnel::wire::{self, kind};
use crate::proto::tunnel::{ChannelId, CheckId, ConnectorCommand, ConnectorEvent, Fin, Payload, Proof, ResetCode, Verdict, Welcome};

use super::ConnectorEnd;
use super::channel::Answer;

impl ConnectorEnd {
    /// The desk asks. A command for a channel that is gone is dropped: its RESET is on the way to the desk.
    pub fn handle_command(&mut self, command: ConnectorCommand, now: Instant) {
        match command {
            ConnectorCommand::Accept { channel, attachment, in_next, out_first, out } => {
                let ok = wire::OpenOk { in_next, out_first, out_next: 0, attachment };
                self.accept(channel.0, ok, out, now);
            }
            ConnectorCommand::Refuse { channel, code, text, retry_after } => {
                let refused = wire::OpenRefused {
                    code: refusal_code(code),
                    text: clip(&text).to_owned(),
                    retry_after_millis: retry_after.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
                };
                self.refuse(channel.0, &refused);
            }
            ConnectorCommand::Send { channel, number, payload } => {
                let fits = match &payload {
                    Payload::Event(body) | Payload::Ephemeral(body) => body.len() <= MAX_EVENT_BYTES,
                    Payload::Tombstone => true,
                };
                self.send(channel.0, number, fits.then_some(Item::Payload(payload)), now);
            }
            ConnectorCommand::Finish { channel, number, fin } => self.finish(channel.0, number, fin, now),
            ConnectorCommand::Handled { channel, number, sm_in } => self.handled(channel.0, number, sm_in, now),
            ConnectorCommand::OwnHandled { channel, after, count } => {
                if self.is_attached() && self.channels.0.contains_key(&channel.0) {
                    self.trunk.first.push_back(wire::encoded(kind::OWN, 0, channel.0, &wire::Own { after, count }));
                }
            }
            ConnectorCommand::Reset { channel, code } => {
                if self.channels.0.contains_key(&channel.0) {
                    self.reset(channel.0, code);
                }
            }
            ConnectorCommand::Verdict { check, verdict } => self.verdict(check, verdict, now),
        }
    }

    fn accept(&mut self, channel: u32, ok: wire::OpenOk, out: Vec<Payload>, now: Instant) {
        let wire::OpenOk { in_next, out_first, .. } = ok;
        let Some(live) = self.channels.0.get_mut(&channel) else { return };
        if live.is_accepted() || in_next == 0 || out_first == 0 {
            return;
        }
        let mut log = Outflow::new(out_first, &self.settings.replay_memory);
        for payload in out {
            log.push_unbounded(Item::Payload(payload), 0);
        }
        let relay_next = if live.relay_next == 0 { out_first } else { live.relay_next };
        let start = relay_next.clamp(out_first, log.next_number());
        let started = log.reattach(start, out_first - 1);
        debug_assert!(started.is_ok(), "a log may always be sent from one of its items");
        let ok = wire::OpenOk { out_next: log.next_number(), ..ok };
        live.line.out = log;
        live.line.held_back = false;
        live.told = (out_first - 1, out_first - 1);
        let answer = std::mem::replace(&mut live.answer, Answer::Accepted(ok));
        if live.attaches || in_next > live.line.inn.next() {
            live.line.inn = Inflow::new(in_next);
        }
        self.answer(channel, &ok);
        self.touch(channel, now, |live, _| live.line.inn.handle(in_next - 1, Proof::Confirmed, now));
        self.pass_early(channel, in_next, answer);
    }

    fn pass_early(&mut self, channel: u32, in_next: u64, answer: Answer) {
        let Answer::Awaited { early, counted } = answer else { return };
        for item in early {
            if item.number >= in_next {
                self.pass(channel, item);
            } else {
                self.duplicates += 1;
            }
        }
        if let Some(sm_in) = counted {
            self.events.push_back(ConnectorEvent::Counted { channel: ChannelId(channel), sm_in });
        }
    }

    /// Says OPEN_OK if there is a carrier; an attachment says it otherwise.
    pub(super) fn answer(&mut self, channel: u32, ok: &wire::OpenOk) {
        if self.is_attached() {
            self.trunk.first.push_back(wire::encoded(kind::OPEN_OK, 0, channel, ok));
        }
    }

    fn refuse(&mut self, channel: u32, refused: &wire::OpenRefused) {
        if self.channels.0.get(&channel).is_none_or(|live| live.is_accepted()) {
            return;
        }
        self.forget(channel);
        self.say_last(channel, wire::encoded(kind::OPEN_REFUSED, 0, channel, refused));
    }

    /// Sends the next numbered item; a number that is not the next, or an event above the limit, is the desk's fault.
    fn send(&mut self, channel: u32, number: u64, item: Option<Item>, now: Instant) {
        let Some(live) = self.channels.0.get(&channel) else { return };
        let next = live.is_accepted() && live.line.out.next_number() == number;
        let Some(item) = item.filter(|_| next) else { return self.fault(channel) };
        if self.touch(channel, now, |live, _| live.line.out.push(item, 0)) == Some(false) {
            self.reset(channel, ResetCode::Slow);
            self.events.push_back(ConnectorEvent::Reset { channel: ChannelId(channel), code: ResetCode::Slow });
        }
    }

    fn finish(&mut self, channel: u32, number: u64, fin: Fin, now: Instant) {
        self.send(channel, number, Some(Item::Fin(Box::new(fin))), now);
    }

    fn handled(&mut self, channel: u32, number: u64, sm_in: u32, now: Instant) {
        let known = self.touch(channel, now, |live, _| {
            let known = live.is_accepted() && live.line.inn.handle(number, Proof::Confirmed, now);
            live.line.inn.handle_count(sm_in);
            known
        });
        match known {
            Some(false) => self.fault(channel),
            Some(true) => self.end_if_finished(channel, now),
            None => {}
        }
    }

    /// The customer's FIN is handled: the last ACK leaves at once and the channel is over.
    pub(super) fn end_if_finished(&mut self, channel: u32, now: Instant) {
        if !self.is_attached() {
            // The next attachment tells the relay.
            return;
        }
        let Some(live) = self.channels.0.get_mut(&channel) else { return };
        if !live.is_finished() {
            return;
        }
        let ack = live.line.inn.take_ack();
        self.forget(channel);
        self.say(wire::encoded(kind::ACK, 0, channel, &ack), now);
    }

    fn verdict(&mut self, check: CheckId, verdict: Verdict, now: Instant) {
        if !self.checks.remove(&check.0) {
            return;
        }
        let id = check.0;
        let words = match verdict {
            Ok(Welcome { queue, continues }) => wire::Verdict { id, queue, continues, ..wire::Verdict::default() },
            Err((code, text)) => wire::Verdict { id, code: refusal_code(code), text: clip(&text).to_owned(), ..wire::Verdict::default() },
        };
        self.say(wire::encoded(kind::VERDICT, 0, 0, &words), now);
    }
}
