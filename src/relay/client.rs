//! One customer's stream after resource binding, as a pure state machine.
//!
//! In: stanzas, what the tunnel says of this session, time. Out: text for the transport, commands for the tunnel, the end.
//! Poll order: after every `handle_*`, drain `poll_command`, then write `poll_output`; call `handle_drained` when the transport took it
//! all; when `poll_over` yields, write what is left and close. Leave the socket unread while `wants_read` says no.
//!
//! Only text that is rebuilt from [`Element`]s leaves here, either way. A stream that is lost is a session that ends, but where its client
//! can resume (`resume`).

mod inward;
mod outward;
mod resume;
pub mod software;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::im::{Author, Availability, ImEvent, MAX_EVENT_BYTES, Message};
use crate::proto::tunnel::{Fin, Payload, Proof, RelayCommand, RelayEvent, SessionKey, event};
use crate::proto::xmpp::im::{MessageFault, availability_of, events_of, stanza_of};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::reader::StreamFault;
use crate::proto::xmpp::server::{Answers, Contact, Outcome, Site, stanza_error};
use crate::proto::xmpp::stanza::Element;
use crate::proto::xmpp::stream_management::counts;
use crate::session::CloseReason;

use self::inward::Inward;
use self::outward::Outward;
use self::resume::Resumption;
use self::software::{Screening, Software};

pub use self::resume::{BadCount, HELD_FOR};

/// The queue's resource: one for all, so that a client keeps one conversation.
const RESOURCE: &str = "desk";

/// How long after bind the queue shows itself, and the software is asked for, where the client sends no presence (poezio
/// anonymous, xmpp.js). A presence begins both at once: Gajim answers contacts of its roster only, and it sends presence once
/// it has the roster.
const PRESENCE_AFTER: Duration = Duration::from_secs(1);

/// How long the tunnel may be away before the customer is told.
const INTERRUPTED_AFTER: Duration = Duration::from_secs(10);

/// How long a stream waits for the client's own `</stream:stream>` (RFC 6120 §4.4).
const FAREWELL: Duration = Duration::from_secs(2);

/// The reason's code of a client that has sent too much for too long.
pub const FLOOD: &str = "session-rate";

const INTERRUPTED: &str = "The connection to the company is interrupted; your messages are kept.";
const RESTORED: &str = "The connection to the company is back.";

/// Silence limits of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Silence before the client is pinged.
    pub ping_after: Duration,
    /// Silence before the stream is closed.
    pub close_after: Duration,
}

impl Default for Idle {
    /// Four and ten minutes: below the idle cut of common NATs, above the ping interval of every client measured.
    fn default() -> Self {
        Self { ping_after: Duration::from_secs(4 * 60), close_after: Duration::from_secs(10 * 60) }
    }
}

/// Who a stream belongs to and what it shows.
#[derive(Debug)]
pub struct ClientSettings {
    /// The session's name in this process.
    pub session: SessionKey,
    /// The served domain.
    pub domain: String,
    /// The client's full JID as bound.
    pub client: String,
    /// The queue that the customer came for.
    pub queue: Contact,
    /// Whether the customer came without a link.
    pub is_anonymous: bool,
    /// What its software is judged by.
    pub screening: Screening,
    /// Silence limits.
    pub idle: Idle,
    /// Yields unguessable ids.
    pub entropy: fn() -> [u8; 16],
    /// The id under which the stream can be resumed, if it can. A secret.
    pub resume_id: Option<String>,
}

/// Whether the tunnel to the queue's connector has a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// It has.
    Up,
    /// It has none.
    Detached,
}

/// One customer's bound stream.
#[derive(Debug)]
pub struct Client {
    session: SessionKey,
    site: Site,
    desk: String,
    answers: Answers,
    software: Software,
    inward: Inward,
    outward: Outward,
    availability: Option<Availability>,
    output: String,
    commands: VecDeque<RelayCommand>,
    phase: Phase,
    idle: Idle,
    entropy: fn() -> [u8; 16],
    id_prefix: String,
    timers: Timers,
    dropped: u64,
    told_interrupted: bool,
    /// The newest outward event that came.
    last_event: u64,
    is_software_known: bool,
    /// OPEN was answered: the session's numbers are known.
    is_open: bool,
    resume_id: Option<String>,
    resumption: Option<Box<Resumption>>,
    /// The transport is to be closed, and the session held.
    hangs_up: bool,
}

#[derive(Debug)]
struct Timers {
    bound: Instant,
    heard: Instant,
    pinged: bool,
    presence_shown: bool,
    detached: Option<Instant>,
}

/// Where the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// `</stream:stream>` is in the output; the client's own is awaited.
    Farewell {
        until: Instant,
        reason: &'static str,
    },
    Over {
        reason: &'static str,
    },
}

impl Client {
    /// Begins right after the bind result was put into the output.
    pub fn new(settings: ClientSettings, now: Instant) -> Self {
        let ClientSettings { session, domain, client, queue, is_anonymous, screening, idle, entropy, resume_id } = settings;
        let desk = format!("{}/{RESOURCE}", queue.jid);
        let id_prefix = hex(&entropy()[..6]);
        Self {
            session,
            site: Site { domain, client, contacts: vec![queue], anonymous: is_anonymous },
            desk,
            answers: Answers::default(),
            software: Software::new(screening),
            inward: Inward::default(),
            outward: Outward::default(),
            availability: None,
            output: String::new(),
            commands: VecDeque::new(),
            phase: Phase::Live,
            idle,
            entropy,
            id_prefix,
            timers: Timers { bound: now, heard: now, pinged: false, presence_shown: false, detached: None },
            dropped: 0,
            told_interrupted: false,
            last_event: 0,
            is_software_known: false,
            is_open: false,
            resume_id,
            resumption: None,
            hangs_up: false,
        }
    }

    /// One top-level element arrived.
    pub fn handle_stanza(&mut self, stanza: &Element, now: Instant) {
        self.handle_heard(now);
        match self.phase {
            Phase::Live if !counts(stanza) => self.handle_nonza(stanza, now),
            Phase::Live => {
                match stanza.name() {
                    "message" => self.handle_message(stanza, now),
                    "presence" => self.handle_presence(stanza, now),
                    _ => self.handle_iq(stanza, now),
                }
                self.report_count();
                self.poll_software(now);
            }
            Phase::Farewell { .. } => self.handle_late_proof(stanza, now),
            Phase::Over { .. } => {}
        }
    }

    /// `</stream:stream>` arrived.
    pub fn handle_stream_close(&mut self, now: Instant) {
        self.handle_heard(now);
        match self.phase {
            Phase::Live => {
                self.finish(CloseReason::CustomerLeft, "");
                self.output.push_str("</stream:stream>");
                self.phase = Phase::Over { reason: "customer-left" };
            }
            Phase::Farewell { reason, .. } => self.end_farewell(Proof::Confirmed, reason),
            Phase::Over { .. } => {}
        }
    }

    /// The stream broke a rule of XML or a limit.
    pub fn handle_fault(&mut self, fault: StreamFault, now: Instant) {
        self.handle_heard(now);
        self.end_with_error(fault.condition(), "", fault.condition());
    }

    /// A stanza takes too long to arrive.
    pub fn handle_slow(&mut self) {
        self.end_with_error("connection-timeout", "What you send takes too long to arrive.", "stanza-timeout");
    }

    /// The transport is gone: closed without a word, reset, or not taking a byte for too long.
    pub fn handle_lost(&mut self, now: Instant) {
        match self.phase {
            Phase::Live if self.is_resumable() => self.hold(now),
            // It may come back to hear the rest: its session is not told that it has.
            Phase::Farewell { reason, .. } if self.resumption.as_ref().is_some_and(|resumption| resumption.is_on()) => {
                self.phase = Phase::Over { reason };
            }
            Phase::Live => {
                self.finish(CloseReason::CustomerLost, "");
                self.phase = Phase::Over { reason: "customer-lost" };
            }
            Phase::Farewell { reason, .. } => self.end_farewell(Proof::Written, reason),
            Phase::Over { .. } => {}
        }
    }

    /// Bytes of any kind arrived, whitespace keep-alives too.
    pub fn handle_heard(&mut self, now: Instant) {
        self.timers.heard = now;
        self.timers.pinged = false;
    }

    /// The transport took all output.
    pub fn handle_drained(&mut self) {
        let proof = self.outward.handle_drained();
        self.report(proof);
    }

    /// The tunnel says something of this session.
    pub fn handle_tunnel(&mut self, event: RelayEvent, now: Instant) {
        if self.phase != Phase::Live {
            return;
        }
        match event {
            RelayEvent::Data { number, payload, .. } => self.handle_data(number, &payload, now),
            RelayEvent::Handled { number, sm_in, .. } => self.inward.handled(number, sm_in),
            RelayEvent::OwnHandled { after, count, .. } => self.handle_recorded(after, count, now),
            RelayEvent::Fin { fin, .. } => self.handle_fin(&fin, now),
            RelayEvent::OpenRefused { text, .. } => self.leave(&text, "open-refused", now),
            RelayEvent::Gone { reason, .. } => self.handle_gone(reason, now),
            RelayEvent::OpenOk { in_first, out_first, .. } => self.opened(in_first, out_first),
            RelayEvent::TunnelUp { .. }
            | RelayEvent::TunnelDetached { .. }
            | RelayEvent::GoAway { .. }
            | RelayEvent::Verdict { .. }
            | RelayEvent::CloseCarrier { .. } => {}
        }
    }

    /// The tunnel's carrier came or went.
    pub fn handle_attachment(&mut self, attachment: Attachment, now: Instant) {
        match attachment {
            Attachment::Detached => {
                self.timers.detached.get_or_insert(now);
            }
            Attachment::Up => {
                self.timers.detached = None;
                if std::mem::take(&mut self.told_interrupted) && self.phase == Phase::Live {
                    self.notice(RESTORED, now);
                }
            }
        }
    }

    /// The relay stops.
    pub fn handle_shutdown(&mut self) {
        if self.is_resumable() {
            // Its session goes on at another relay, or at this one's next process.
            self.close_with_error("system-shutdown", "This server stops for a moment; please reconnect.", "shutdown");
        } else if self.phase == Phase::Live {
            self.finish(CloseReason::Shutdown, "");
            self.close_with_error("system-shutdown", "This server stops for a moment; please reconnect.", "shutdown");
        }
    }

    /// The client's address is not allowed any more.
    pub fn handle_denied(&mut self) {
        self.end_with_error("policy-violation", "Your network is not admitted here any more.", "address-denied");
    }

    /// The client has pressed against its allowance for too long.
    pub fn handle_flood(&mut self) {
        self.end_with_error("policy-violation", "You send more than is admitted here.", FLOOD);
    }

    /// The tunnel has no room for this session: nothing it says arrives any more.
    pub fn handle_cut_off(&mut self, now: Instant) {
        if self.phase == Phase::Live {
            self.handle_gone(CloseReason::Fault, now);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Over { .. } => return,
            Phase::Farewell { until, reason } => {
                if now >= until {
                    self.end_farewell(Proof::Written, reason);
                }
                return;
            }
            Phase::Live => {}
        }
        self.greet_late(now);
        self.software.handle_timeout(now);
        self.poll_software(now);
        self.mind_absence(now);
        if self.is_held() || self.phase != Phase::Live {
            return;
        }
        self.release(now);
        let proof = self.outward.handle_timeout(now);
        self.report(proof);
        self.ask_for_proof(now);
        self.tell_interruption(now);
        self.mind_silence(now);
    }

    /// When `handle_timeout` is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Over { .. } => return None,
            Phase::Farewell { until, .. } => return Some(until),
            Phase::Live => {}
        }
        let timers = &self.timers;
        let silence = if timers.pinged { self.idle.close_after } else { self.idle.ping_after };
        let early = [(!timers.presence_shown).then(|| timers.bound + PRESENCE_AFTER), self.software.poll_timeout()];
        if self.is_held() || self.hangs_up {
            return early.into_iter().chain([self.absence_due()]).flatten().min();
        }
        let interrupted = timers.detached.filter(|_| self.may_tell_interruption()).map(|since| since + INTERRUPTED_AFTER);
        let live = [self.outward.poll_timeout(), interrupted, Some(timers.heard + silence), self.release_due()];
        early.into_iter().chain(live).flatten().min()
    }

    /// Text to write to the transport.
    pub fn poll_output(&mut self) -> Option<String> {
        if self.phase == Phase::Live
            && let Some(h) = self.inward.growth()
        {
            self.write_answer(h);
        }
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// What to ask of the tunnel.
    pub fn poll_command(&mut self) -> Option<RelayCommand> {
        let command = self.commands.pop_front();
        if self.commands.is_empty() {
            // Silent streams keep no room for what they may say.
            self.commands = VecDeque::new();
        }
        command
    }

    /// Why the stream is over, once it is: write what is left and close.
    pub fn poll_over(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Over { reason } => Some(reason),
            Phase::Live | Phase::Farewell { .. } => None,
        }
    }

    /// Whether more may be read from the transport.
    pub fn wants_read(&self) -> bool {
        let is_full = self.inward.is_full() || self.resumption.as_ref().is_some_and(|resumption| resumption.is_full());
        self.phase != Phase::Live || !is_full
    }

    /// Child elements and stanzas that were dropped so far; the counter begins anew.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn handle_message(&mut self, message: &Element, now: Instant) {
        let is_error = message.attribute("type") == Some("error");
        if is_error {
            self.inward.stanza_arrived(0);
            self.dropped += 1;
            return;
        }
        if !self.is_queue(message.attribute("to")) {
            self.refuse(message, ("cancel", "item-not-found"), "Nobody has this address here.", now);
            return;
        }
        match events_of(message) {
            Ok(rebuilt) => {
                self.dropped += u64::from(rebuilt.dropped);
                self.deliver(message, rebuilt.events, now);
            }
            Err(MessageFault::TooLarge) => self.refuse_large(message, now),
            Err(MessageFault::NotChat) => self.refuse(message, ("cancel", "not-acceptable"), "Only one-to-one chat is possible here.", now),
        }
    }

    /// Sends all events of a stanza, or none of them where one is too large.
    fn deliver(&mut self, stanza: &Element, events: Vec<ImEvent>, now: Instant) {
        let payloads: Vec<_> = events.iter().map(payload_of).collect();
        if payloads.iter().any(|(_, bytes)| *bytes > MAX_EVENT_BYTES) {
            self.refuse_large(stanza, now);
            return;
        }
        let count = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        let whole = self.inward.stanza_arrived(count);
        for (index, (payload, bytes)) in payloads.into_iter().enumerate() {
            let is_last = index + 1 == events.len();
            let sm_in = if is_last { whole } else { whole.saturating_sub(1) };
            self.inward.event_sent(bytes);
            self.commands.push_back(RelayCommand::Send { session: self.session, payload, sm_in });
        }
    }

    fn handle_presence(&mut self, presence: &Element, now: Instant) {
        self.handle_software(presence, now);
        let to = presence.attribute("to");
        match availability_of(presence) {
            Some(availability) if to.is_none() || self.is_queue(to) => {
                let changed = self.availability.replace(availability) != Some(availability);
                let events = if changed { vec![ImEvent::Presence(availability)] } else { Vec::new() };
                self.deliver(presence, events, now);
                self.greet(presence, now);
            }
            Some(_) => {
                self.inward.stanza_arrived(0);
                self.dropped += 1;
            }
            None => {
                self.inward.stanza_arrived(0);
                let outcome = self.answers.handle_subscription(&self.site, presence);
                self.settle(&outcome, now);
            }
        }
    }

    fn handle_iq(&mut self, iq: &Element, now: Instant) {
        self.inward.stanza_arrived(0);
        if matches!(iq.attribute("type"), Some("result" | "error")) {
            self.handle_iq_answer(iq, now);
            return;
        }
        let outcome = self.answers.handle_iq(&self.site, iq);
        self.settle(&outcome, now);
    }

    fn handle_iq_answer(&mut self, iq: &Element, now: Instant) {
        if self.handle_software(iq, now) {
            return;
        }
        if let Some(proof) = iq.attribute("id").and_then(|id| self.outward.handle_barrier(id, now)) {
            self.report(proof);
        }
    }

    fn settle(&mut self, outcome: &Outcome, now: Instant) {
        self.say_all(&outcome.replies, now);
        if outcome.blocked.is_some() {
            self.finish(CloseReason::CustomerLeft, "");
            self.farewell("customer-left", now);
        }
    }

    fn handle_data(&mut self, number: u64, payload: &Payload, now: Instant) {
        self.last_event = number;
        let shown = match payload {
            Payload::Event(bytes) | Payload::Ephemeral(bytes) => event::decode(bytes).ok(),
            Payload::Tombstone => None,
        };
        let stanza = shown.and_then(|event| {
            let id = match &event {
                ImEvent::Message(Message { id: Some(id), .. }) => id.clone(),
                ImEvent::Message(_)
                | ImEvent::ChatState(_)
                | ImEvent::Receipt(_)
                | ImEvent::Marker(_)
                | ImEvent::Presence(_)
                | ImEvent::Software(_) => format!("{}-{number}", self.id_prefix),
            };
            stanza_of(&event, &self.desk, &self.site.client, &id)
        });
        match stanza {
            stanza if self.resumption.is_some() => self.queue_event(number, stanza.as_ref(), now),
            Some(stanza) => {
                stanza.write(ns::CLIENT, &mut self.output);
                let shown = self.outward.shown(number, now);
                self.check(shown);
                self.ask_for_proof(now);
            }
            None => {
                let proof = self.outward.skipped(number);
                self.report(proof);
            }
        }
    }

    fn handle_fin(&mut self, fin: &Fin, now: Instant) {
        let text = if fin.text.is_empty() { "This conversation is closed." } else { fin.text.as_str() };
        self.leave(text, fin.reason.as_str(), now);
    }

    fn handle_gone(&mut self, reason: CloseReason, now: Instant) {
        match reason {
            // Its client has taken the stream up at another relay.
            CloseReason::CustomerLost if self.resumption.is_some() => {
                return self.close_with_error("conflict", "This stream goes on elsewhere.", "resumed-elsewhere");
            }
            // So it may have here, and the word of it was lost. The client asks again, and the connector knows.
            CloseReason::Fault if self.is_resumable() => {
                return self.close_with_error("remote-connection-failed", "Please come back.", "fault");
            }
            CloseReason::CustomerLost
            | CloseReason::Fault
            | CloseReason::CustomerLeft
            | CloseReason::AgentDone
            | CloseReason::Shutdown
            | CloseReason::DetachExpired
            | CloseReason::StoreRegressed => {}
        }
        let text = match reason {
            // Somebody came with the same proof: the conversation is his now (RFC 6120 §4.9.3.3).
            CloseReason::CustomerLost => {
                return self.end_with_error("conflict", "This conversation was opened in another program.", "moved");
            }
            CloseReason::DetachExpired => "The connection to the company was lost for too long. Please come again.",
            CloseReason::StoreRegressed
            | CloseReason::Fault
            | CloseReason::CustomerLeft
            | CloseReason::AgentDone
            | CloseReason::Shutdown => "This conversation had to be ended. Please come again.",
        };
        self.leave(text, reason.as_str(), now);
    }

    /// The tunnel's side ended the session: a last sentence, then the stream's end.
    fn leave(&mut self, text: &str, reason: &'static str, now: Instant) {
        if self.is_held() {
            return self.part_later(text, reason);
        }
        self.release_all(now);
        if let Some(stanza) = self.notice_of(text) {
            self.write(&stanza, now);
        }
        self.farewell(reason, now);
    }

    fn farewell(&mut self, reason: &'static str, now: Instant) {
        if self.phase == Phase::Live {
            self.release_all(now);
            self.output.push_str("</stream:stream>");
            self.phase = Phase::Farewell { until: now + FAREWELL, reason };
        }
    }

    /// A client that answers our `</stream:stream>` has taken all before it; of any other nobody can know. Either way the
    /// connector need not wait for more.
    fn end_farewell(&mut self, proof: Proof, reason: &'static str) {
        let proven = self.outward.ended(proof);
        self.report(proven);
        self.phase = Phase::Over { reason };
    }

    fn greet(&mut self, presence: &Element, now: Instant) {
        if presence.attribute("type").is_some() {
            return;
        }
        self.show_queue(now);
        self.ask_software(now);
        // The presence that opens the conversation may carry the capabilities.
        self.handle_software(presence, now);
    }

    fn greet_late(&mut self, now: Instant) {
        if now < self.timers.bound + PRESENCE_AFTER {
            return;
        }
        self.show_queue(now);
        self.ask_software(now);
    }

    fn show_queue(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.timers.presence_shown, true) {
            let presence = Element::new("presence", ns::CLIENT)
                .with_attribute("from", self.desk.as_str())
                .with_attribute("to", self.site.client.as_str());
            self.say(&presence, now);
        }
    }

    fn tell_interruption(&mut self, now: Instant) {
        if self.timers.detached.is_some_and(|since| now >= since + INTERRUPTED_AFTER) && self.may_tell_interruption() {
            self.told_interrupted = true;
            self.notice(INTERRUPTED, now);
        }
    }

    /// A client that can resume is sent nothing that the connector has not recorded; it is told nothing, and loses nothing.
    fn may_tell_interruption(&self) -> bool {
        !self.told_interrupted && self.resumption.is_none()
    }

    fn notice(&mut self, text: &str, now: Instant) {
        if let Some(stanza) = self.notice_of(text) {
            self.say(&stanza, now);
        }
    }

    fn notice_of(&self, text: &str) -> Option<Element> {
        if text.is_empty() {
            return None;
        }
        let event = ImEvent::Message(Message { body: text.to_owned(), author: Author::Notice, ..Message::default() });
        let id = hex(&(self.entropy)()[..8]);
        stanza_of(&event, &self.desk, &self.site.client, &id)
    }

    fn refuse_large(&mut self, stanza: &Element, now: Instant) {
        self.refuse(stanza, ("modify", "not-acceptable"), "This message is too long. Please send it in parts.", now);
    }

    fn refuse(&mut self, stanza: &Element, (kind, condition): (&str, &'static str), text: &str, now: Instant) {
        self.inward.stanza_arrived(0);
        self.dropped += 1;
        let error = stanza_error(stanza, kind, condition, Some(text));
        self.say(&error, now);
    }

    fn say_all(&mut self, stanzas: &[Element], now: Instant) {
        for stanza in stanzas {
            self.say(stanza, now);
        }
    }

    /// Sends a stanza of our own.
    fn say(&mut self, stanza: &Element, now: Instant) {
        if self.resumption.is_some() { self.queue_own(stanza) } else { self.write(stanza, now) }
    }

    /// Stanzas without an event are counted too.
    fn report_count(&mut self) {
        if let Some(sm_in) = self.inward.take_unreported() {
            self.commands.push_back(RelayCommand::Counted { session: self.session, sm_in });
        }
    }

    fn write(&mut self, stanza: &Element, now: Instant) {
        stanza.write(ns::CLIENT, &mut self.output);
        let written = self.outward.own(now);
        self.check(written);
    }

    fn report(&mut self, proof: Option<(u64, Proof)>) {
        if let Some((number, proof)) = proof {
            self.commands.push_back(RelayCommand::Handled { session: self.session, number, proof });
        }
    }

    fn finish(&mut self, reason: CloseReason, text: &str) {
        let fin = Fin { reason, text: text.to_owned() };
        self.commands.push_back(RelayCommand::Finish { session: self.session, fin });
    }

    fn is_queue(&self, to: Option<&str>) -> bool {
        let bare = to.map(|jid| jid.split_once('/').map_or(jid, |(bare, _)| bare));
        bare.is_some_and(|bare| self.site.contacts.iter().any(|contact| contact.jid.eq_ignore_ascii_case(bare)))
    }
}

fn payload_of(event: &ImEvent) -> (Payload, usize) {
    let bytes = event::encode(event);
    let length = bytes.len();
    let payload = if event.is_ephemeral() { Payload::Ephemeral(bytes) } else { Payload::Event(bytes) };
    (payload, length)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
