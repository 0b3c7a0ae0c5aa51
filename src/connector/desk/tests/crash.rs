//! The promise: whatever dies and whenever, a customer with a relay that replays and an agent whose client resumes each see every
//! message of the other once, in order, and so does the record.
//!
//! Steps are committed late and in order, like the writer thread does it; a crash loses what is not committed, and the effects
//! with it. The wire to the agent loses what was on its way when it is cut.

use std::collections::VecDeque;
use std::time::Duration;

use super::rig::{RELAY, Rig, attach, chat, config, data, open, outside, said};
use crate::connector::desk::{Desk, Effect, Input, Step, StreamHandle};
use crate::im::{Author, ImEvent};
use crate::proto::tunnel::event;
use crate::proto::tunnel::{Assertion, ChannelId, ConnectorCommand, ConnectorEvent, Payload, Proof};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::session::Direction;

#[test]
fn nothing_is_lost_or_doubled_over_crashes_and_cuts() {
    let (mut crashes, mut cuts, mut replays) = (0, 0, 0);
    for seed in 1..=300 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.tick();
        }
        world.come_to_rest();
        let said: Vec<String> = (1..=world.customer.said).map(|n| format!("c{n}")).collect();
        let answered: Vec<String> = (1..=world.agent.said).map(|n| format!("a{n}")).collect();
        assert_eq!(world.agent.seen, said, "what the agent sees, seed {seed}");
        assert_eq!(world.customer.seen, answered, "what the customer sees, seed {seed}");
        assert_eq!(world.recorded(Direction::In), said, "the record, seed {seed}");
        assert_eq!(world.recorded(Direction::Out), answered, "the record, seed {seed}");
        assert_eq!(world.doubled + world.rig.desk.counters().duplicates_dropped, 0, "counts suffice without the second belt, seed {seed}");
        crashes += world.crashes;
        cuts += world.cuts;
        replays += world.agent.replayed;
    }
    assert!(crashes > 500 && cuts > 500 && replays > 500, "{crashes} crashes, {cuts} cuts, {replays} replayed stanzas");
}

/// A relay with one customer: holds what is not handled, shows what is next.
#[derive(Debug, Default)]
struct Customer {
    said: u64,
    held: VecDeque<u64>,
    out_seen: u64,
    seen: Vec<String>,
    channel: u8,
    accepted: bool,
}

/// An agent's client with XEP-0198: counts, keeps what is not acknowledged, sends it again.
#[derive(Debug, Default)]
struct Client {
    handle: u64,
    up: bool,
    /// Whether stanzas may be sent: not between `<resume/>` and its answer.
    ready: bool,
    said: u64,
    key: Option<String>,
    proxy: Option<String>,
    received: u32,
    sent: u32,
    unacknowledged: VecDeque<(u32, Element)>,
    wire: VecDeque<String>,
    seen: Vec<String>,
    replayed: u64,
}

#[derive(Debug)]
struct World {
    rig: Rig,
    uncommitted: VecDeque<Step>,
    customer: Customer,
    agent: Client,
    random: u64,
    crashes: u64,
    cuts: u64,
    /// Messages that only the second belt kept from being doubled, before the last crash.
    doubled: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rig: Rig::new(config()),
            uncommitted: VecDeque::new(),
            customer: Customer { channel: 1, ..Customer::default() },
            agent: Client::default(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            crashes: 0,
            cuts: 0,
            doubled: 0,
        };
        world.log_in();
        world.commit_all();
        let open = Box::new(open(1, "auto", Assertion::Anonymous));
        world.input(Input::Tunnel { relay: RELAY, event: ConnectorEvent::Open { channel: ChannelId(1), open } });
        world.commit_all();
        world.read_all();
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn tick(&mut self) {
        match self.below(100) {
            0..=24 => self.customer_says(),
            25..=44 => self.agent_says(),
            45..=64 => self.commit_some(),
            65..=84 => {
                let count = self.below(4);
                (0..count).for_each(|_| self.read_one());
            }
            85..=88 => self.customer_confirms(),
            89..=91 => self.crash(),
            92..=94 => self.cut(),
            95..=97 => self.come_back(),
            _ => {
                let passed = self.below(3);
                self.rig.now.instant += Duration::from_secs(passed);
                self.rig.now.unix_millis += passed * 1000;
                self.input(Input::Timeout);
            }
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..6 {
            self.come_back();
            self.commit_all();
            self.read_all();
            self.customer_confirms();
        }
    }

    fn recorded(&self, which: Direction) -> Vec<String> {
        let session = self.rig.store.sessions.values().next().unwrap();
        let text = |(direction, stored): &(Direction, crate::store::StoredEvent)| {
            if *direction != which {
                return None;
            }
            let Ok(ImEvent::Message(message)) = event::decode(stored.body.as_ref()?) else { return None };
            (message.author != Author::Notice).then_some(message.body)
        };
        session.history.iter().filter_map(text).collect()
    }

    fn input(&mut self, input: Input) {
        let step = self.rig.desk.handle(input, self.rig.now);
        self.uncommitted.push_back(step);
    }

    fn commit_some(&mut self) {
        let count = self.below(5) + 1;
        for _ in 0..count {
            let Some(step) = self.uncommitted.pop_front() else { return };
            let effects = self.rig.commit(step);
            effects.into_iter().for_each(|effect| self.effect(effect));
        }
    }

    fn commit_all(&mut self) {
        while !self.uncommitted.is_empty() {
            self.commit_some();
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Tunnel { command, .. } => self.command(command),
            Effect::AgentWrite { stream, xml } if self.agent.up && stream.0 == self.agent.handle => self.agent.wire.push_back(xml),
            Effect::AgentResumed { stream, output, .. } if self.agent.up && stream.0 == self.agent.handle => {
                self.agent.wire.extend(split(&output));
            }
            Effect::AgentResumeRefused { .. } | Effect::AgentClose { .. } => panic!("nothing here earns a refusal: {effect:?}"),
            Effect::AgentWrite { .. } | Effect::AgentResumed { .. } | Effect::AgentRead { .. } | Effect::Audit(_) | Effect::Door(_) => {}
        }
    }

    fn command(&mut self, command: ConnectorCommand) {
        match command {
            ConnectorCommand::Accept { in_next, out_first, out, .. } => {
                self.customer.accepted = true;
                self.customer.held.retain(|number| *number >= in_next);
                for (number, payload) in (out_first..).zip(out) {
                    self.show_customer(number, payload);
                }
                for number in self.customer.held.clone() {
                    self.send_held(number);
                }
            }
            ConnectorCommand::Handled { number, .. } => self.customer.held.retain(|held| *held > number),
            ConnectorCommand::Send { number, payload, .. } => self.show_customer(number, payload),
            ConnectorCommand::Refuse { .. }
            | ConnectorCommand::OwnHandled { .. }
            | ConnectorCommand::Finish { .. }
            | ConnectorCommand::Reset { .. }
            | ConnectorCommand::Verdict { .. } => panic!("nothing here earns {command:?}"),
        }
    }

    fn show_customer(&mut self, number: u64, payload: Payload) {
        if number <= self.customer.out_seen {
            return;
        }
        assert_eq!(number, self.customer.out_seen + 1);
        self.customer.out_seen = number;
        if let Payload::Event(bytes) = payload
            && let Ok(ImEvent::Message(message)) = event::decode(&bytes)
            && message.author != Author::Notice
        {
            self.customer.seen.push(message.body);
        }
    }

    fn customer_says(&mut self) {
        if self.customer.held.len() >= 32 {
            return;
        }
        self.customer.said += 1;
        let number = self.customer.said;
        self.customer.held.push_back(number);
        if self.customer.accepted {
            self.send_held(number);
        }
    }

    fn send_held(&mut self, number: u64) {
        let text = said(&format!("id-c{number}"), &format!("c{number}"));
        self.input(Input::Tunnel { relay: RELAY, event: data(self.customer.channel, number, &text) });
    }

    fn customer_confirms(&mut self) {
        if self.customer.accepted {
            let event = ConnectorEvent::OutHandled {
                channel: ChannelId(self.customer.channel.into()),
                number: self.customer.out_seen,
                proof: Proof::Confirmed,
            };
            self.input(Input::Tunnel { relay: RELAY, event });
        }
    }

    fn log_in(&mut self) {
        self.agent.handle = 1;
        self.agent.up = true;
        self.agent.ready = true;
        self.input(Input::AgentConnected { stream: StreamHandle(1), agent: "alice".into(), resource: "r".into() });
        self.nonza(Element::new("enable", ns::STREAM_MANAGEMENT).with_attribute("resume", "true"));
        self.agent_sends(Element::new("presence", ns::CLIENT));
    }

    fn nonza(&mut self, element: Element) {
        self.input(Input::AgentStanza { stream: StreamHandle(self.agent.handle), element });
    }

    fn agent_says(&mut self) {
        let Some(proxy) = self.agent.proxy.clone() else { return };
        if self.agent.unacknowledged.len() >= 20 || self.rig.desk.status().sessions[0].out_last > self.customer.out_seen + 30 {
            return;
        }
        self.agent.said += 1;
        let n = self.agent.said;
        self.agent_sends(chat(&proxy, &format!("id-a{n}"), &format!("a{n}")));
    }

    fn agent_sends(&mut self, stanza: Element) {
        self.agent.sent += 1;
        self.agent.unacknowledged.push_back((self.agent.sent, stanza.clone()));
        if self.agent.up && self.agent.ready {
            self.nonza(stanza);
            self.nonza(Element::new("r", ns::STREAM_MANAGEMENT));
        }
    }

    fn read_all(&mut self) {
        while !self.agent.wire.is_empty() || !self.uncommitted.is_empty() {
            self.read_one();
            self.commit_all();
        }
    }

    fn read_one(&mut self) {
        let Some(xml) = self.agent.wire.pop_front() else { return };
        if xml.starts_with("<r ") {
            let h = self.agent.received.to_string();
            return self.nonza(Element::new("a", ns::STREAM_MANAGEMENT).with_attribute("h", h));
        }
        if xml.starts_with("<a ") {
            return self.acknowledged(&xml);
        }
        if xml.starts_with("<enabled") {
            self.agent.key = Some(attribute(&xml, "id"));
            return;
        }
        if xml.starts_with("<resumed") {
            self.acknowledged(&xml);
            self.agent.ready = true;
            for (_, stanza) in self.agent.unacknowledged.clone() {
                self.nonza(stanza);
            }
            return;
        }
        self.agent.received += 1;
        if xml.starts_with("<message") && xml.contains("<stanza-id") {
            let body = xml.split("<body>").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
            self.agent.seen.push(body.to_owned());
        }
        if xml.contains("from='guest-") {
            self.agent.proxy = Some(attribute(&xml, "from"));
        }
    }

    fn acknowledged(&mut self, xml: &str) {
        let h: u32 = attribute(xml, "h").parse().unwrap();
        assert!(h <= self.agent.sent);
        self.agent.unacknowledged.retain(|(number, _)| *number > h);
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.doubled += self.rig.desk.counters().duplicates_dropped;
        self.uncommitted.clear();
        let (desk, step) = Desk::restore(self.rig.store.snapshot(), config(), outside(u8::try_from(self.crashes).unwrap()), self.rig.now);
        self.rig.desk = desk;
        self.uncommitted.push_back(step);
        self.agent.wire.clear();
        self.agent.up = false;
        self.customer.accepted = false;
        self.customer.channel += 1;
        let oldest = self.customer.held.front().copied().unwrap_or(self.customer.said + 1);
        let open = Box::new(attach(1, oldest, self.customer.out_seen + 1));
        let event = ConnectorEvent::Open { channel: ChannelId(self.customer.channel.into()), open };
        self.input(Input::Tunnel { relay: RELAY, event });
    }

    fn cut(&mut self) {
        if self.agent.up {
            self.cuts += 1;
            self.agent.up = false;
            self.agent.wire.clear();
            self.input(Input::AgentLost { stream: StreamHandle(self.agent.handle) });
        }
    }

    fn come_back(&mut self) {
        let (false, Some(previd)) = (self.agent.up, self.agent.key.clone()) else { return };
        self.agent.up = true;
        self.agent.ready = false;
        self.agent.handle += 1;
        let before = self.rig.desk.counters().stanzas_replayed;
        let (stream, h) = (StreamHandle(self.agent.handle), self.agent.received);
        self.input(Input::AgentResume { stream, agent: "alice".into(), previd, h });
        self.agent.replayed += self.rig.desk.counters().stanzas_replayed - before;
    }
}

fn attribute(xml: &str, name: &str) -> String {
    xml.split(&format!(" {name}='")).nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned()
}

/// Cuts a text into its top-level elements; no text of this test holds a markup character.
fn split(xml: &str) -> Vec<String> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, _) in xml.match_indices('>') {
        let tag = &xml[xml[..at].rfind('<').unwrap()..=at];
        match (tag.starts_with("</"), tag.ends_with("/>")) {
            (true, _) => depth -= 1,
            (false, true) => {}
            (false, false) => depth += 1,
        }
        if depth == 0 {
            parts.push(xml[start..=at].to_owned());
            start = at + 1;
        }
    }
    parts
}
