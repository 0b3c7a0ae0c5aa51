//! The stream around the stanzas: XEP-0198's nonzas, questions that prove delivery, silence, stream errors.

use std::time::Instant;

use crate::proto::xmpp::negotiation::stream_error;
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::proto::xmpp::stream_management::{self, Nonza, nonza_of};
use crate::session::CloseReason;

use super::outward::{OutwardFault, Question};
use super::{Client, Phase, hex};

impl Client {
    /// Handles what is no stanza. Unknown nonzas are ignored: a client may try what was not advertised.
    pub(super) fn handle_nonza(&mut self, element: &Element, now: Instant) {
        if element.namespace() == ns::CLIENT {
            self.end_with_error("unsupported-stanza-type", "", "unsupported-stanza-type");
            return;
        }
        match nonza_of(element) {
            Some(Nonza::Enable { resume }) => self.handle_enable(resume),
            Some(Nonza::Request) => {
                if let Some(h) = self.inward.answer() {
                    self.write_answer(h);
                }
            }
            Some(Nonza::Answer { h }) => self.handle_answer(h, now),
            Some(Nonza::Resume { .. }) => self.write_failed(),
            None => self.dropped += 1,
        }
    }

    /// After the farewell only the proof of what was shown still matters.
    pub(super) fn handle_late_proof(&mut self, element: &Element, now: Instant) {
        if let Some(Nonza::Answer { h }) = nonza_of(element) {
            let proof = self.outward.handle_answer(h, now).unwrap_or(None);
            self.report(proof);
        } else if element.is("iq", ns::CLIENT)
            && let Some(proof) = element.attribute("id").and_then(|id| self.outward.handle_barrier(id, now))
        {
            self.report(proof);
        }
    }

    pub(super) fn write_answer(&mut self, h: u32) {
        stream_management::answer(h).write(ns::CLIENT, &mut self.output);
    }

    pub(super) fn ask_for_proof(&mut self, now: Instant) {
        let entropy = self.entropy;
        match self.outward.poll_question(|| hex(&entropy()), now) {
            Some((Question::Request, _)) => stream_management::request().write(ns::CLIENT, &mut self.output),
            Some((Question::Barrier, id)) => self.write_ping(&id, now),
            None => {}
        }
    }

    /// Pings a silent client, and ends the stream of one that stays silent.
    pub(super) fn mind_silence(&mut self, now: Instant) {
        let is_silent = now >= self.timers.heard + self.idle.close_after;
        if self.is_resumable() && (is_silent || self.outward.is_deaf(now)) {
            self.hang_up("connection-timeout", "Nothing was heard from you for too long.");
        } else if is_silent {
            self.end_with_error("connection-timeout", "Nothing was heard from you for too long.", "idle");
        } else if now >= self.timers.heard + self.idle.ping_after && !self.timers.pinged {
            self.timers.pinged = true;
            if self.is_resumable() {
                // It asks the same, and counts nothing.
                return stream_management::request().write(ns::CLIENT, &mut self.output);
            }
            let id = hex(&(self.entropy)());
            self.write_ping(&id, now);
        }
    }

    pub(super) fn check(&mut self, written: Result<(), OutwardFault>) {
        match written {
            Ok(()) => {}
            Err(OutwardFault::HandledTooHigh) => {
                self.end_with_error("undefined-condition", "You acknowledged more stanzas than were sent.", "handled-count-too-high");
            }
            Err(OutwardFault::TooManyUnacknowledged) => {
                self.end_with_error("policy-violation", "You acknowledge nothing of what is sent.", "unacknowledged");
            }
        }
    }

    /// Ends the session and its stream with a stream error.
    pub(super) fn end_with_error(&mut self, condition: &'static str, text: &str, reason: &'static str) {
        if self.phase == Phase::Live {
            self.finish(CloseReason::CustomerLost, "");
            self.close_with_error(condition, text, reason);
        }
    }

    /// Ends the stream of a session that has ended.
    pub(super) fn close_with_error(&mut self, condition: &'static str, text: &str, reason: &'static str) {
        self.output.push_str(&stream_error(condition, text));
        self.phase = Phase::Over { reason };
    }

    fn handle_enable(&mut self, resume: bool) {
        let id = self.resume_id.take_if(|_| resume);
        if !self.inward.enable(id.is_some()) {
            self.write_failed();
            return;
        }
        if let Some(id) = id {
            return self.enable_resumption(id);
        }
        stream_management::enabled(None, None).write(ns::CLIENT, &mut self.output);
        self.outward.enable();
    }

    fn handle_answer(&mut self, h: u32, now: Instant) {
        match self.outward.handle_answer(h, now) {
            Ok(proof) => {
                self.report(proof);
                self.trim_written();
            }
            Err(fault) => self.check(Err(fault)),
        }
    }

    fn write_failed(&mut self) {
        stream_management::failed("unexpected-request", None).write(ns::CLIENT, &mut self.output);
    }

    fn write_ping(&mut self, id: &str, now: Instant) {
        let ping = Element::new("iq", ns::CLIENT)
            .with_attribute("type", "get")
            .with_attribute("from", self.site.domain.as_str())
            .with_attribute("to", self.site.client.as_str())
            .with_attribute("id", id)
            .with_child(Element::new("ping", ns::PING));
        self.say(&ping, now);
    }
}
