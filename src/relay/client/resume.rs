//! A stream that its client can take up again (XEP-0198 §5), here or at another relay.
//!
//! Whoever takes it up has to know what the client's `h` counts. So every outward event is one stanza here, and stanzas of our own are
//! announced (OWN) and written once the connector has recorded them; what comes later queues behind them. What was written stays
//! here until it is acknowledged, for a client that comes back to this relay. The `h` told to the client is what the connector has
//! committed, never more: what it does not cover the client sends again, wherever it goes.
//!
//! Phases: *asked* (`<enable/>` came, and the connector is to record where the count begins), *on*, and *held* (no transport).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::im::{ChatState, ImEvent};
use crate::proto::tunnel::RelayCommand;
use crate::proto::xmpp::im::stanza_of;
use crate::proto::xmpp::negotiation::stream_error;
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::proto::xmpp::stream_management;
use crate::session::CloseReason;

use super::inward::Inward;
use super::outward::Outward;
use super::{Client, ClientSettings, Phase};

/// How long a stream without its client is held, as `<enabled max=…/>` tells: the tunnel's detach window.
pub const HELD_FOR: Duration = Duration::from_secs(120);

/// How long nothing follows `<enabled/>`: xmpp.js (0.14) begins its count a moment after it has read it, and forgets what came with it.
const BREATH: Duration = Duration::from_millis(100);

/// Own stanzas that may wait to be recorded before the client's socket is left unread.
const MAX_WAITING: usize = 64;

/// The account of a stream that can be resumed.
#[derive(Debug)]
pub(super) struct Resumption {
    /// The stream's id (SM-ID). A secret.
    id: String,
    /// Own stanzas up to here are recorded: how many after which event. `None` before the count has begun.
    recorded: Option<(u64, u32)>,
    /// Own stanzas up to here were announced.
    announced: (u64, u32),
    /// What is to be written, in order.
    queue: VecDeque<Queued>,
    own_waiting: usize,
    /// What was written and is not acknowledged, in order.
    written: VecDeque<String>,
    /// What must be recorded before its client may come back here.
    fence: (u64, u32),
    /// Nothing is written before.
    writes_from: Option<Instant>,
    /// Since when no client is there.
    held: Option<Instant>,
    /// How the session ended meanwhile: a sentence for the client, and the reason.
    parting: Option<(String, &'static str)>,
}

#[derive(Debug)]
struct Queued {
    xml: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Event(u64),
    /// The so-manieth of our own after an event.
    Own(u64, u32),
}

/// Why a stream cannot be taken up with this count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCount;

impl Resumption {
    fn new(id: String, after: u64) -> Self {
        Self {
            id,
            recorded: None,
            announced: (after, 0),
            queue: VecDeque::new(),
            own_waiting: 0,
            written: VecDeque::new(),
            fence: (after, 0),
            writes_from: None,
            held: None,
            parting: None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether its client may come back: it was told so.
    pub(super) fn is_on(&self) -> bool {
        self.recorded.is_some()
    }

    /// Whether so much waits that the client is read no further.
    pub(super) fn is_full(&self) -> bool {
        self.own_waiting >= MAX_WAITING
    }

    /// Our next own stanza comes after outward event `after`; gives its place.
    fn announce(&mut self, after: u64) -> (u64, u32) {
        self.announced = if self.announced.0 == after { (after, self.announced.1.saturating_add(1)) } else { (after, 1) };
        self.announced
    }

    fn may_leave(&self, kind: Kind) -> bool {
        match kind {
            Kind::Event(_) => self.recorded.is_some(),
            Kind::Own(after, count) => self.recorded.is_some_and(|recorded| (after, count) <= recorded),
        }
    }
}

impl Client {
    /// Goes on with a session that another relay had: its client has outward events up to `last_event` with `h` stanzas, and of its own
    /// stanzas `sm_in` are handled, and events up to `handled`.
    pub fn resumed(settings: ClientSettings, h: u32, last_event: u64, (handled, sm_in): (u64, u32), now: Instant) -> (Self, String) {
        let id = settings.resume_id.clone().unwrap_or_default();
        let mut client = Self::new(settings, now);
        client.timers.presence_shown = true;
        client.is_software_known = true;
        client.is_open = true;
        client.last_event = last_event;
        client.inward = Inward::resumed_at(handled, sm_in);
        client.outward = Outward::resumed_at(h, last_event);
        let text = stream_management::resumed(&id, sm_in).to_xml();
        client.resumption = Some(Box::new(Resumption { recorded: Some((last_event, 0)), ..Resumption::new(id, last_event) }));
        (client, text)
    }

    /// Whether a client that is lost may come back: its session goes on without it for a while.
    pub fn is_resumable(&self) -> bool {
        self.phase == Phase::Live && self.resumption.as_ref().is_some_and(|resumption| resumption.is_on())
    }

    /// Whether no transport is wanted now.
    pub fn is_held(&self) -> bool {
        self.resumption.as_ref().is_some_and(|resumption| resumption.is_held())
    }

    /// Whether the transport is to be closed once the output is written, and then [`Client::handle_lost`] to be called.
    pub fn wants_hangup(&self) -> bool {
        self.hangs_up
    }

    /// The client asks, on another connection, to go on here. It may have been elsewhere meanwhile, of which nothing is known here yet:
    /// so the connector is asked, by an own stanza that says nothing, whether this relay still has the session.
    pub fn handle_return(&mut self, now: Instant) {
        self.handle_lost(now);
        let stanza = self.inert(&format!("{}-back", self.id_prefix));
        if let Some(stanza) = stanza.filter(|_| self.is_held()) {
            self.queue_own(&stanza);
            if let Some(resumption) = &mut self.resumption {
                resumption.fence = resumption.announced;
            }
        }
    }

    /// Whether [`Client::resume`] may be called: the session is still here, and all that the client has sent is handled, so that it
    /// can be told what to send again.
    pub fn may_resume(&self) -> bool {
        let is_here = self.resumption.as_ref().is_some_and(|resumption| resumption.recorded >= Some(resumption.fence));
        is_here && self.inward.is_settled()
    }

    /// The client is back, and has handled `h` stanzas: what it is told, before anything else.
    ///
    /// # Errors
    ///
    /// Where it never was sent so many, or told more before.
    pub fn resume(&mut self, h: u32, now: Instant) -> Result<String, BadCount> {
        let proof = self.outward.resume(h, now).map_err(|_| BadCount)?;
        self.report(proof);
        self.trim_written();
        let Some(resumption) = &mut self.resumption else { return Err(BadCount) };
        resumption.held = None;
        self.output.clear();
        self.timers.heard = now;
        self.timers.pinged = false;
        let mut text = stream_management::resumed(&resumption.id, self.inward.answer().unwrap_or(0)).to_xml();
        resumption.written.iter().for_each(|stanza| text.push_str(stanza));
        if let Some((sentence, reason)) = resumption.parting.take() {
            self.leave(&sentence, reason, now);
        }
        self.release(now);
        Ok(text)
    }

    /// `<enable resume='true'/>` arrived: the connector is asked to record that the count begins here.
    pub(super) fn enable_resumption(&mut self, id: String) {
        self.resumption = Some(Box::new(Resumption::new(id, self.last_event)));
        if self.is_open {
            self.begin_count();
        }
    }

    /// The session stands: this client's first event has number `in_first` in it, and outward events below `out_first` went to another
    /// client, where its customer has come back with his link.
    pub(super) fn opened(&mut self, in_first: u64, out_first: u64) {
        self.inward.opened(in_first);
        self.last_event = self.last_event.max(out_first.saturating_sub(1));
        if !std::mem::replace(&mut self.is_open, true) && self.resumption.is_some() {
            self.begin_count();
        }
    }

    fn begin_count(&mut self) {
        let (session, after) = (self.session, self.last_event);
        let Some(resumption) = &mut self.resumption else { return };
        // What waits is all of our own: no event comes before OPEN's answer.
        let mut waiting = 0;
        for queued in &mut resumption.queue {
            waiting += 1;
            queued.kind = Kind::Own(after, waiting);
        }
        (resumption.announced, resumption.fence) = ((after, waiting), (after, 0));
        let counts = [Some(0), (waiting > 0).then_some(waiting)];
        self.commands.extend(counts.into_iter().flatten().map(|count| RelayCommand::Own { session, after, count }));
    }

    /// Something of ours is recorded.
    pub(super) fn handle_recorded(&mut self, after: u64, count: u32, now: Instant) {
        let Some(resumption) = &mut self.resumption else { return };
        let is_first = resumption.recorded.is_none();
        resumption.recorded = resumption.recorded.max(Some((after, count)));
        if is_first {
            let seconds = u32::try_from(HELD_FOR.as_secs()).ok();
            stream_management::enabled(Some(&resumption.id), seconds).write(ns::CLIENT, &mut self.output);
            self.outward.enable();
            self.outward.be_patient();
            resumption.writes_from = Some(now + BREATH);
        }
        self.release(now);
    }

    /// Puts an outward event behind what waits.
    pub(super) fn queue_event(&mut self, number: u64, stanza: Option<&Element>, now: Instant) {
        let xml = stanza.map_or_else(|| self.placeholder(number), Element::to_xml);
        if let Some(resumption) = &mut self.resumption {
            resumption.queue.push_back(Queued { xml, kind: Kind::Event(number) });
            self.release(now);
        }
    }

    /// Announces a stanza of our own and puts it behind what waits.
    pub(super) fn queue_own(&mut self, stanza: &Element) {
        let Some(resumption) = &mut self.resumption else { return };
        let (after, count) = resumption.announce(self.last_event);
        resumption.queue.push_back(Queued { xml: stanza.to_xml(), kind: Kind::Own(after, count) });
        resumption.own_waiting += 1;
        if !self.is_open {
            return;
        }
        let session = self.session;
        let told = self.commands.iter_mut().rev().find_map(|command| {
            let RelayCommand::Own { after, count, .. } = command else { return None };
            Some((*after, count))
        });
        match told {
            // The count is a total: one word for all that were made at once.
            Some((at, total)) if at == after && *total > 0 => *total = count,
            Some(_) | None => self.commands.push_back(RelayCommand::Own { session, after, count }),
        }
    }

    /// Writes what may be written.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some(resumption) = &mut self.resumption {
            if resumption.writes_from.is_some_and(|from| now < from) {
                return;
            }
            resumption.writes_from = None;
        }
        self.release_where(now, |resumption, kind| !resumption.is_held() && resumption.may_leave(kind));
    }

    /// When [`Client::release`] has something to do.
    pub(super) fn release_due(&self) -> Option<Instant> {
        self.resumption.as_ref()?.writes_from
    }

    /// Writes all that waits: the session is over, and nobody counts any more.
    pub(super) fn release_all(&mut self, now: Instant) {
        self.release_where(now, |_, _| true);
    }

    fn release_where(&mut self, now: Instant, may_leave: impl Fn(&Resumption, Kind) -> bool) {
        while let Some(resumption) = &mut self.resumption {
            let Some(kind) = resumption.queue.front().map(|queued| queued.kind) else { return };
            if !may_leave(resumption, kind) {
                return;
            }
            let Some(Queued { xml, .. }) = resumption.queue.pop_front() else { return };
            self.output.push_str(&xml);
            resumption.written.push_back(xml);
            let fits = match kind {
                Kind::Event(number) => self.outward.shown(number, now),
                Kind::Own(..) => {
                    resumption.own_waiting = resumption.own_waiting.saturating_sub(1);
                    self.outward.own(now)
                }
            };
            self.check(fits);
            self.ask_for_proof(now);
        }
    }

    /// Lets go of what the client has acknowledged.
    pub(super) fn trim_written(&mut self) {
        let kept = self.outward.unacknowledged();
        if let Some(resumption) = &mut self.resumption {
            let gone = resumption.written.len().saturating_sub(kept);
            resumption.written.drain(..gone);
            if resumption.written.is_empty() {
                resumption.written = VecDeque::new();
            }
        }
    }

    /// The client is gone, and may come back.
    pub(super) fn hold(&mut self, now: Instant) {
        self.hangs_up = false;
        self.output.clear();
        self.outward.handle_detached();
        if let Some(resumption) = &mut self.resumption {
            resumption.held.get_or_insert(now);
        }
    }

    /// Ends the stream but not its session: the client may come back.
    pub(super) fn hang_up(&mut self, condition: &str, text: &str) {
        if !self.is_held() && !std::mem::replace(&mut self.hangs_up, true) {
            self.output.push_str(&stream_error(condition, text));
        }
    }

    /// The session ended while its client was away: it is told when it comes back.
    pub(super) fn part_later(&mut self, text: &str, reason: &'static str) {
        if let Some(resumption) = &mut self.resumption {
            resumption.parting.get_or_insert_with(|| (text.to_owned(), reason));
        }
    }

    /// Gives a session up whose client stays away.
    pub(super) fn mind_absence(&mut self, now: Instant) {
        let Some(resumption) = &self.resumption else { return };
        if resumption.held.is_none_or(|since| now < since + HELD_FOR) {
            return;
        }
        let parting = resumption.parting.as_ref().map(|(_, reason)| *reason);
        if parting.is_none() {
            self.finish(CloseReason::CustomerLost, "");
        }
        self.phase = Phase::Over { reason: parting.unwrap_or("customer-lost") };
    }

    /// When [`Client::mind_absence`] has something to do.
    pub(super) fn absence_due(&self) -> Option<Instant> {
        self.resumption.as_ref()?.held.map(|since| since + HELD_FOR)
    }

    /// Stands for an event whose text is gone, or that shows nothing: the client counts a stanza for each. It says what is true: at
    /// this moment nobody types.
    fn placeholder(&self, number: u64) -> String {
        let stanza = self.inert(&format!("{}-{number}", self.id_prefix));
        stanza.map(|stanza| stanza.to_xml()).unwrap_or_default()
    }

    fn inert(&self, id: &str) -> Option<Element> {
        stanza_of(&ImEvent::ChatState(ChatState::Active), &self.desk, &self.site.client, id)
    }
}
