//! A small model of attach, fence and replay, explored exhaustively: every order of deliveries, losses, crashes and moves
//! within its bounds.
//!
//! One session; its customer says a few things inward. Relays have tunnels with epochs, carriers are two queues that either side
//! loses on its own; the connector commits, then acknowledges, and forgets all but the store when it crashes. It is far simpler
//! than the code and says the same rules: it shows that the rules hold, the simulation that the code keeps them.

use std::collections::{HashSet, VecDeque};

/// How much may happen.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Bounds {
    pub relays: usize,
    pub carriers: u8,
    pub events: u8,
    pub losses: u8,
    pub connector_crashes: u8,
    pub relay_crashes: u8,
    pub moves: u8,
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Fault {
    GrantedTwice,
    EpochReused,
    OldCarrierRead,
    AckBeforeCommit,
    OldAttachmentTaken,
    StaleOpenTaken,
    LogDroppedWhenSent,
}

/// What the exploration came to.
#[derive(Debug)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Explored {
    pub states: usize,
    pub settled: usize,
    pub violation: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Frame {
    /// RESUME with the tunnel's process and last epoch, or NEW; and the next number wanted, 0 without a channel.
    Attach {
        tunnel: Option<(u8, u8)>,
        channel: u8,
        next: u8,
    },
    Attached {
        process: u8,
        epoch: u8,
        resumed: bool,
    },
    Refused,
    /// The session, with the oldest number held, and the attachment that the relay was told; 0 and 0: the client asks in person.
    Open {
        channel: u8,
        first: u8,
        attachment: u8,
    },
    OpenOk {
        channel: u8,
        next: u8,
        attachment: u8,
    },
    Data {
        channel: u8,
        number: u8,
        said: u8,
    },
    Ack {
        channel: u8,
        handled: u8,
    },
    Reset {
        channel: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Fresh,
    Attaching,
    Attached,
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Carrier {
    relay: usize,
    at_relay: Phase,
    at_connector: Phase,
    to_relay: Vec<Frame>,
    to_connector: Vec<Frame>,
}

/// The session at a relay: numbers from `first` with what was said, and how far they were sent on this attachment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    channel: u8,
    /// As OPEN_OK told it; 1 for a session that begins here, 0 before.
    attachment: u8,
    first: u8,
    log: Vec<u8>,
    next_send: u8,
    answered: bool,
    adopts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Relay {
    process: u8,
    epoch: u8,
    attached: Option<usize>,
    held: Option<Held>,
    /// It outlives the process: the connector tells from where to number on.
    next_channel: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Link {
    tunnel: Option<(u8, u8)>,
    current: Option<usize>,
    /// The session's channel and its next number.
    channel: u8,
    next: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    relays: Vec<Relay>,
    links: Vec<Link>,
    carriers: Vec<Carrier>,
    /// Where the session is attached, as the connector sees it.
    attachment: Option<usize>,
    /// Committed; and received through a relay but not committed.
    record: Vec<u8>,
    attachments: u8,
    pending: Vec<Pending>,
    /// The customer: where he is, what he said, what he was told.
    place: Option<usize>,
    said: u8,
    h: u8,
    left: Bounds2,
    broken: Option<String>,
}

/// Waits to be committed, and is then told on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    relay: usize,
    channel: u8,
    what: Op,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Said(u8),
    /// An OPEN is to be answered with this attachment.
    Attach(u8),
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bounds2 {
    carriers: u8,
    losses: u8,
    connector_crashes: u8,
    relay_crashes: u8,
    moves: u8,
}

/// Explores everything within `bounds`; stops at the first violation.
pub fn explore(bounds: Bounds, fault: Option<Fault>) -> Explored {
    let start = State::new(bounds);
    let mut seen = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([start]);
    let mut settled = 0;
    while let Some(state) = queue.pop_front() {
        let nexts = state.nexts(bounds, fault);
        if nexts.is_empty() {
            settled += 1;
            if state.record.len() < usize::from(bounds.events) || state.h < bounds.events {
                let violation = Some(format!("an event is lost for good: {state:?}"));
                return Explored { states: seen.len(), settled, violation };
            }
        }
        for next in nexts {
            if let Some(violation) = next.broken.clone().or_else(|| next.check()) {
                let violation = format!("{violation}, after {state:?}");
                return Explored { states: seen.len(), settled, violation: Some(violation) };
            }
            if !seen.contains(&next) {
                seen.insert(next.clone());
                queue.push_back(next);
            }
        }
    }
    Explored { states: seen.len(), settled, violation: None }
}

impl Relay {
    /// OPEN for the session that it holds, on a channel of its own.
    fn open(&mut self) -> Frame {
        let Some(held) = self.held.as_mut() else { return Frame::Refused };
        if held.channel == 0 {
            held.channel = self.next_channel;
            self.next_channel += 1;
        }
        let first = if held.adopts { 0 } else { held.first };
        Frame::Open { channel: held.channel, first, attachment: held.attachment }
    }
}

impl State {
    fn new(bounds: Bounds) -> Self {
        let relay = Relay { process: 0, epoch: 0, attached: None, held: None, next_channel: 1 };
        let mut relays = vec![relay; bounds.relays];
        let held = Held { channel: 0, attachment: 1, first: 1, log: Vec::new(), next_send: 1, answered: false, adopts: false };
        relays[0].held = Some(held);
        let Bounds { carriers, losses, connector_crashes, relay_crashes, moves, .. } = bounds;
        Self {
            relays,
            links: vec![Link::default(); bounds.relays],
            carriers: Vec::new(),
            attachment: None,
            record: Vec::new(),
            attachments: 0,
            pending: Vec::new(),
            place: Some(0),
            said: 0,
            h: 0,
            left: Bounds2 { carriers, losses, connector_crashes, relay_crashes, moves },
            broken: None,
        }
    }

    fn check(&self) -> Option<String> {
        if self.record.iter().enumerate().any(|(index, said)| usize::from(*said) != index + 1) {
            return Some(format!("the record is {:?}", self.record));
        }
        if usize::from(self.h) > self.record.len() {
            return Some(format!("told {} of {} committed", self.h, self.record.len()));
        }
        for relay in 0..self.relays.len() {
            let live = self.carriers.iter().filter(|carrier| carrier.relay == relay && carrier.at_relay == Phase::Attached);
            if live.count() > 1 {
                return Some("two carriers are attached at a relay".to_owned());
            }
        }
        None
    }

    fn nexts(&self, bounds: Bounds, fault: Option<Fault>) -> Vec<Self> {
        let mut nexts = Vec::new();
        let mut push = |change: &dyn Fn(&mut Self) -> bool| {
            let mut next = self.clone();
            if change(&mut next) {
                next.tidy(fault);
                nexts.push(next);
            }
        };
        push(&|state| state.speak(bounds.events));
        push(&|state| state.come_back());
        push(&|state| state.commit(fault));
        for relay in 0..self.relays.len() {
            push(&|state| state.dial(relay));
            push(&|state| state.send_data(relay, fault));
        }
        for carrier in 0..self.carriers.len() {
            push(&|state| state.switch(carrier));
            push(&|state| state.deliver_to_relay(carrier, fault));
            push(&|state| state.deliver_to_connector(carrier, fault));
            push(&|state| state.lose(carrier, true));
            push(&|state| state.lose(carrier, false));
        }
        push(&|state| state.crash_connector());
        push(&|state| state.crash_relay());
        push(&|state| state.leave());
        nexts
    }

    /// Carriers that both sides have lost are no part of the state; their places stay, so that numbers keep their meaning.
    fn tidy(&mut self, fault: Option<Fault>) {
        for carrier in &mut self.carriers {
            if carrier.at_relay == Phase::Gone {
                carrier.to_relay.clear();
            }
            if carrier.at_connector == Phase::Gone && fault != Some(Fault::OldCarrierRead) {
                carrier.to_connector.clear();
            }
        }
    }

    fn speak(&mut self, events: u8) -> bool {
        let Some(place) = self.place else { return false };
        let Some(held) = self.relays[place].held.as_mut().filter(|held| !held.adopts && self.said < events) else { return false };
        self.said += 1;
        held.log.push(self.said);
        true
    }

    fn dial(&mut self, relay: usize) -> bool {
        let waiting = |carrier: &Carrier| carrier.relay == relay && carrier.at_connector != Phase::Gone;
        let lonely = !self.carriers.iter().any(waiting);
        // The bound counts carriers beside another; one that is needed is always there.
        if !lonely {
            if self.left.carriers == 0 || self.links[relay].current.is_none() {
                return false;
            }
            self.left.carriers -= 1;
        }
        let fresh = Carrier { relay, at_relay: Phase::Fresh, at_connector: Phase::Fresh, to_relay: Vec::new(), to_connector: Vec::new() };
        // A place that both sides have given up is used again.
        let free = self.carriers.iter().position(|carrier| carrier.at_relay == Phase::Gone && carrier.at_connector == Phase::Gone);
        let index = free.unwrap_or(self.carriers.len());
        if index == self.carriers.len() {
            self.carriers.push(fresh);
        } else {
            self.carriers[index] = fresh;
        }
        if lonely {
            self.attach_on(index);
        }
        true
    }

    /// Cursors are written now; the old carrier is read no more.
    fn attach_on(&mut self, index: usize) {
        let relay = self.carriers[index].relay;
        let link = &mut self.links[relay];
        link.current = Some(index);
        let frame = Frame::Attach { tunnel: link.tunnel, channel: link.channel, next: link.next.unwrap_or(0) };
        self.carriers[index].at_connector = Phase::Attaching;
        self.carriers[index].to_relay.push(frame);
    }

    fn switch(&mut self, index: usize) -> bool {
        let relay = self.carriers[index].relay;
        let Some(old) = self.links[relay].current else { return false };
        if self.carriers[index].at_connector != Phase::Fresh || self.carriers[old].at_connector != Phase::Attached {
            return false;
        }
        self.carriers[old].at_connector = Phase::Gone;
        self.attach_on(index);
        true
    }

    fn lose(&mut self, index: usize, by_relay: bool) -> bool {
        let carrier = &mut self.carriers[index];
        let (mine, theirs) = if by_relay { (carrier.at_relay, carrier.at_connector) } else { (carrier.at_connector, carrier.at_relay) };
        if mine == Phase::Gone {
            return false;
        }
        if theirs != Phase::Gone {
            if self.left.losses == 0 {
                return false;
            }
            self.left.losses -= 1;
        }
        if by_relay {
            self.gone_at_relay(index)
        } else {
            self.gone_at_connector(index)
        }
        true
    }

    fn gone_at_relay(&mut self, index: usize) {
        self.carriers[index].at_relay = Phase::Gone;
        let relay = &mut self.relays[self.carriers[index].relay];
        relay.attached.take_if(|attached| *attached == index);
    }

    fn gone_at_connector(&mut self, index: usize) {
        self.carriers[index].at_connector = Phase::Gone;
        let relay = self.carriers[index].relay;
        if self.links[relay].current == Some(index) {
            self.links[relay].current = None;
            let candidate = self.carriers.iter().position(|other| other.relay == relay && other.at_connector == Phase::Fresh);
            if let Some(candidate) = candidate {
                self.attach_on(candidate);
            }
        }
    }

    fn send_data(&mut self, at: usize, fault: Option<Fault>) -> bool {
        let relay = &mut self.relays[at];
        let (Some(carrier), Some(held)) = (relay.attached, relay.held.as_mut()) else { return false };
        let index = usize::from(held.next_send.saturating_sub(held.first));
        if !held.answered || index >= held.log.len() {
            return false;
        }
        self.carriers[carrier].to_connector.push(Frame::Data { channel: held.channel, number: held.next_send, said: held.log[index] });
        held.next_send += 1;
        if fault == Some(Fault::LogDroppedWhenSent) {
            held.log.remove(0);
            held.first += 1;
        }
        true
    }

    fn deliver_to_relay(&mut self, index: usize, fault: Option<Fault>) -> bool {
        let carrier = &mut self.carriers[index];
        if carrier.at_relay == Phase::Gone || carrier.to_relay.is_empty() {
            return false;
        }
        let frame = carrier.to_relay.remove(0);
        let (at, attached) = (carrier.relay, carrier.at_relay == Phase::Attached);
        match frame {
            Frame::Attach { tunnel, channel, next } => self.on_attach(index, tunnel, (channel, next), fault),
            Frame::OpenOk { channel, next, attachment } if attached && self.is_channel(at, channel) => self.on_open_ok(at, next, attachment),
            Frame::Ack { channel, handled } if attached && self.is_channel(at, channel) => self.on_ack(at, handled),
            Frame::Reset { channel } if attached && self.is_channel(at, channel) => {
                // He is attached elsewhere.
                self.relays[at].held = None;
                if self.place == Some(at) {
                    self.broken = Some("the customer loses the session where he is".to_owned());
                }
            }
            _ => {}
        }
        true
    }

    fn is_channel(&self, at: usize, channel: u8) -> bool {
        self.relays[at].held.as_ref().is_some_and(|held| held.channel == channel)
    }

    fn on_attach(&mut self, index: usize, tunnel: Option<(u8, u8)>, (channel, next): (u8, u8), fault: Option<Fault>) {
        let at = self.carriers[index].relay;
        let relay = &mut self.relays[at];
        if tunnel.is_some_and(|(process, epoch)| process != relay.process || epoch > relay.epoch) {
            self.carriers[index].to_connector.push(Frame::Refused);
            return;
        }
        if let Some(old) = relay.attached.take().filter(|_| fault != Some(Fault::GrantedTwice)) {
            self.carriers[old].at_relay = Phase::Gone;
        }
        if tunnel.is_none() {
            relay.process += 10;
            relay.epoch = 0;
        }
        let before = relay.epoch;
        relay.epoch += u8::from(fault != Some(Fault::EpochReused) || relay.epoch == 0);
        if relay.epoch <= before {
            self.broken = Some(format!("epoch {before} is granted again"));
        }
        relay.attached = Some(index);
        let resumed = tunnel.is_some();
        let attached = Frame::Attached { process: relay.process, epoch: relay.epoch, resumed };
        let carrier = &mut self.carriers[index];
        carrier.at_relay = Phase::Attached;
        carrier.to_connector.push(attached);
        let Some(held) = relay.held.as_mut() else { return };
        let named = next > 0 && channel == held.channel;
        if resumed && named && held.answered {
            held.next_send = next.max(held.first);
        } else if resumed && held.answered {
            // The connector does not name what it had answered: the attachment has ended there.
            relay.held = None;
            self.place.take_if(|place| *place == at);
        } else {
            held.answered = false;
            if !resumed {
                held.channel = 0;
            }
            let open = relay.open();
            self.carriers[index].to_connector.push(open);
        }
    }

    fn on_open_ok(&mut self, at: usize, next: u8, attachment: u8) {
        let Some(held) = self.relays[at].held.as_mut().filter(|held| !held.answered) else { return };
        if held.adopts {
            held.first = next;
            held.adopts = false;
            // The client hears how much is handled, and sends the rest again.
            held.log = (next..=self.said).collect();
        }
        held.answered = true;
        held.attachment = attachment;
        held.next_send = next.max(held.first);
        self.on_ack(at, next - 1);
    }

    fn on_ack(&mut self, at: usize, handled: u8) {
        let Some(held) = self.relays[at].held.as_mut() else { return };
        while held.first <= handled && !held.log.is_empty() {
            held.log.remove(0);
            held.first += 1;
        }
        held.next_send = held.next_send.max(held.first);
        if self.place == Some(at) && !held.adopts {
            let told = held.first - 1;
            if told < self.h {
                self.broken = Some(format!("h goes back from {} to {told}", self.h));
            }
            self.h = told;
        }
    }

    fn deliver_to_connector(&mut self, index: usize, fault: Option<Fault>) -> bool {
        let old_is_read = fault == Some(Fault::OldCarrierRead);
        let carrier = &mut self.carriers[index];
        if carrier.at_connector == Phase::Gone && !old_is_read || carrier.to_connector.is_empty() {
            return false;
        }
        let frame = carrier.to_connector.remove(0);
        let (at, phase) = (carrier.relay, carrier.at_connector);
        match frame {
            Frame::Attached { process, epoch, resumed } if phase == Phase::Attaching => {
                carrier.at_connector = Phase::Attached;
                let link = &mut self.links[at];
                link.tunnel = Some((process, epoch));
                if resumed && link.next.is_some() && self.attachment == Some(at) {
                    // What was acknowledged on a carrier that is lost is told again.
                    carrier.to_relay.push(Frame::Ack { channel: link.channel, handled: self.record.len() as u8 });
                }
                if !resumed {
                    link.next = None;
                    self.attachment.take_if(|attachment| *attachment == at);
                }
            }
            Frame::Refused if phase == Phase::Attaching => {
                self.links[at].tunnel = None;
                self.links[at].next = None;
                self.attachment.take_if(|attachment| *attachment == at);
                self.attach_on(index);
            }
            Frame::Open { channel, first, attachment } if phase == Phase::Attached => {
                self.on_open(index, channel, (first, attachment), fault);
            }
            Frame::Data { channel, number, said } if phase == Phase::Attached => self.on_data(index, (channel, number), said, fault),
            Frame::Data { .. } | Frame::Open { .. } if phase == Phase::Gone => {
                self.broken = Some("a frame of the old carrier is read after the cursors were written".to_owned());
            }
            _ => {}
        }
        true
    }

    /// The client's newest OPEN has the session, and the place before it hears so; a relay that he has left asks in vain.
    fn on_open(&mut self, index: usize, channel: u8, (first, told): (u8, u8), fault: Option<Fault>) {
        let at = self.carriers[index].relay;
        if self.links[at].next.is_some() && self.links[at].channel == channel {
            // It came again; its answer does too.
            self.pending.push(Pending { relay: at, channel, what: Op::Attach(self.known_attachments()) });
            return;
        }
        let known = self.known_attachments();
        if told > 0 && told < known && fault != Some(Fault::StaleOpenTaken) {
            self.carriers[index].to_relay.push(Frame::Reset { channel });
            return;
        }
        let attachment = if told == 0 { known + 1 } else { told.max(known) };
        let received = self.pending.iter().filter(|pending| matches!(pending.what, Op::Said(_))).count();
        let next = (self.record.len() + received) as u8 + 1;
        if first > next {
            self.broken = Some(format!("a relay holds from {first} and {next} is next"));
        }
        if let Some(old) = self.attachment.replace(at).filter(|old| *old != at) {
            if fault != Some(Fault::OldAttachmentTaken) {
                self.links[old].next = None;
            }
            if let Some(carrier) = self.links[old].current.filter(|carrier| self.carriers[*carrier].at_connector == Phase::Attached) {
                let channel = self.links[old].channel;
                self.carriers[carrier].to_relay.push(Frame::Reset { channel });
            }
        }
        self.links[at].channel = channel;
        self.links[at].next = Some(next);
        // What is not committed yet may be told as wanted no more: it is only told once it is.
        self.pending.push(Pending { relay: at, channel, what: Op::Attach(attachment) });
    }

    /// With what is not committed yet.
    fn known_attachments(&self) -> u8 {
        let pending = self.pending.iter().filter_map(|pending| if let Op::Attach(attachment) = pending.what { Some(attachment) } else { None });
        pending.fold(self.attachments, u8::max)
    }

    fn on_data(&mut self, index: usize, (channel, number): (u8, u8), said: u8, fault: Option<Fault>) {
        let at = self.carriers[index].relay;
        let Some(next) = self.links[at].next.filter(|_| self.links[at].channel == channel) else {
            self.carriers[index].to_relay.push(Frame::Reset { channel });
            return;
        };
        if number > next {
            self.broken = Some(format!("number {number} where {next} was next"));
        } else if number == next {
            self.links[at].next = Some(number + 1);
            self.pending.push(Pending { relay: at, channel, what: Op::Said(said) });
            if fault == Some(Fault::AckBeforeCommit) {
                self.carriers[index].to_relay.push(Frame::Ack { channel, handled: number });
            }
        }
    }

    /// The store takes the oldest; only then is it acknowledged, to where the session is.
    fn commit(&mut self, fault: Option<Fault>) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let Pending { relay: at, channel, what } = self.pending.remove(0);
        match what {
            Op::Said(said) => self.record.push(said),
            Op::Attach(attachment) => self.attachments = self.attachments.max(attachment),
        }
        let is_live = self.attachment == Some(at) && self.links[at].channel == channel;
        if !is_live && fault != Some(Fault::OldAttachmentTaken) {
            return true;
        }
        let Some(current) = self.links[at].current.filter(|current| self.carriers[*current].at_connector == Phase::Attached) else {
            return true;
        };
        let handled = self.record.len() as u8;
        let frame = match what {
            Op::Said(_) => Frame::Ack { channel, handled },
            Op::Attach(attachment) => Frame::OpenOk { channel, next: handled + 1, attachment },
        };
        self.carriers[current].to_relay.push(frame);
        true
    }

    fn crash_connector(&mut self) -> bool {
        if self.left.connector_crashes == 0 {
            return false;
        }
        self.left.connector_crashes -= 1;
        self.pending.clear();
        self.attachment = None;
        self.links.iter_mut().for_each(|link| *link = Link::default());
        self.carriers.iter_mut().for_each(|carrier| carrier.at_connector = Phase::Gone);
        true
    }

    fn crash_relay(&mut self) -> bool {
        let Some(place) = self.place.filter(|_| self.left.relay_crashes > 0) else { return false };
        self.left.relay_crashes -= 1;
        let Relay { process, next_channel, .. } = self.relays[place];
        self.relays[place] = Relay { process: process + 1, epoch: 0, attached: None, held: None, next_channel };
        for carrier in self.carriers.iter_mut().filter(|carrier| carrier.relay == place) {
            carrier.at_relay = Phase::Gone;
        }
        self.place = None;
        true
    }

    /// The customer's client loses its relay, which lives on with what it holds.
    fn leave(&mut self) -> bool {
        if self.left.moves == 0 || self.place.is_none() || self.relays.len() < 2 {
            return false;
        }
        self.left.moves -= 1;
        // Before the answer a client has nothing to come back with.
        let answered = |place: &usize| self.relays[*place].held.as_ref().is_some_and(|held| held.answered);
        self.place.take_if(|place| answered(place)).is_some()
    }

    /// He asks for his session at the next relay.
    fn come_back(&mut self) -> bool {
        if self.place.is_some() {
            return false;
        }
        let Some(place) = (0..self.relays.len()).find(|place| self.relays[*place].held.is_none()) else { return false };
        let relay = &mut self.relays[place];
        let held = Held { channel: 0, attachment: 0, first: 1, log: Vec::new(), next_send: 1, answered: false, adopts: true };
        relay.held = Some(held);
        self.place = Some(place);
        if let Some(carrier) = relay.attached {
            let open = relay.open();
            self.carriers[carrier].to_connector.push(open);
        }
        true
    }
}
