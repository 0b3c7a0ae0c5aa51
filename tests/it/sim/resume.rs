//! Customers who take their streams up again, here or at another relay, over the real thing throughout: [`Client`], both ends of the
//! tunnels and the [`Desk`]. Of the world only sockets, the disk and the time are made up. Relays crash, connections break with whatever
//! is on them, carriers are cut, and relays are left without a word; at the end each side has all that the other said, once, in order.
//!
//! Messages bear no ids, so that nothing but the counts can keep them apart.
#![expect(clippy::wildcard_enum_match_arm, reason = "the world picks out what it plays")]

mod person;
mod place;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use outgate::connector::desk::{
    AgentConfig, Desk, DeskConfig, DoorConfig, Effect, Input, Now, Outside, QueueConfig, RelayIndex, StreamHandle,
};
use outgate::link::LinkRefusal;
use outgate::proto::tunnel::{ConnectorEnd, ConnectorEvent, Settings};
use outgate::proto::xmpp::ns;
use outgate::proto::xmpp::stanza::Element;
use outgate::store::Snapshot;

use self::person::Person;
use self::place::Place;

/// Schedules that are run where nothing else is asked for.
const SCHEDULES: u64 = 150;
const DOMAIN: &str = "im.example";
const QUEUE: &str = "sales@im.example";
const AGENT: StreamHandle = StreamHandle(1);
const RELAYS: usize = 2;
const PEOPLE: usize = 3;

/// A bug for the oracle to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// A stanza of the relay's own is recorded only after it was written.
    OwnUnrecorded,
    /// The count told to a client runs ahead of what is committed.
    CountAhead,
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct World {
    dice: Dice,
    now: Instant,
    began: Instant,
    plant: Option<Plant>,
    desk: Desk,
    /// Steps of the desk that are not committed yet.
    uncommitted: VecDeque<Vec<Effect>>,
    relays: Vec<Place>,
    people: Vec<Person>,
    next_key: u64,
    is_calm: bool,
    /// What the agent was shown, and from whom.
    shown: Vec<(String, String)>,
    crashes: u64,
    violations: Vec<String>,
}

/// What a schedule came to.
#[derive(Debug, Default)]
struct Outcome {
    violations: Vec<String>,
    resumed_here: u64,
    resumed_elsewhere: u64,
    crashes: u64,
    said: usize,
}

#[expect(clippy::disallowed_methods, reason = "virtual time counts from some instant")]
fn schedule(seed: u64, plant: Option<Plant>) -> Outcome {
    World::new(seed, plant, Instant::now()).run()
}

impl World {
    fn new(seed: u64, plant: Option<Plant>, now: Instant) -> Self {
        let config = DeskConfig {
            agents_domain: "desk.example".into(),
            door: DoorConfig::default(),
            queues: vec![QueueConfig {
                id: "sales".into(),
                domain: DOMAIN.into(),
                name: "Sales".into(),
                public: true,
                bot: None,
                offer_timeout: Duration::from_secs(20),
                auto_accept: true,
            }],
            agents: vec![AgentConfig { name: "alice".into(), display: "Alice".into(), queues: vec!["sales".into()], capacity: 10 }],
        };
        let mut next = seed;
        let outside = Outside {
            verify_link: Box::new(|_, _, _| Err(LinkRefusal::BadSignature)),
            entropy: Box::new(move || {
                next = next.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                u128::from(next.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
            }),
        };
        let (desk, _) = Desk::restore(Snapshot::default(), config, outside, Now { instant: now, unix_millis: 1_700_000_000_000 });
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now,
            began: now,
            plant,
            desk,
            uncommitted: VecDeque::new(),
            relays: (0..RELAYS).map(|_| Place::new()).collect(),
            people: Vec::new(),
            next_key: 0,
            is_calm: false,
            shown: Vec::new(),
            crashes: 0,
            violations: Vec::new(),
        };
        world.tell_desk(Input::AgentConnected { stream: AGENT, agent: "alice".into(), resource: "desk".into() });
        world.tell_desk(Input::AgentStanza { stream: AGENT, element: Element::new("presence", ns::CLIENT) });
        world.people = (0..PEOPLE).map(|number| Person::new(number, seed)).collect();
        world
    }

    fn run(mut self) -> Outcome {
        for turn in 0..400 {
            self.step();
            self.talk();
            if turn > 60 && self.people.iter().all(Person::may_break) {
                self.break_something();
            }
        }
        self.is_calm = true;
        for _ in 0..600 {
            self.step();
        }
        self.judge();
        Outcome {
            violations: self.violations,
            resumed_here: self.relays.iter().map(|relay| relay.resumed_here).sum(),
            resumed_elsewhere: self.relays.iter().map(|relay| relay.resumed_elsewhere).sum(),
            crashes: self.crashes,
            said: self.people.iter().map(|person| person.said + person.told).sum(),
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1 + self.dice.below(if self.is_calm { 100 } else { 25 }));
        for relay in 0..RELAYS {
            self.relays[relay].dial(self.now);
            self.people_speak_to(relay);
            self.relays[relay].pass_time(self.now);
            let told = self.relays[relay].carry(&mut self.dice, self.is_calm, self.now);
            told.into_iter().for_each(|event| self.tell_desk(Input::Tunnel { relay: RelayIndex(relay as u16), event }));
        }
        let due = self.desk.poll_timeout().is_some_and(|due| due <= self.now);
        if due {
            self.tell_desk(Input::Timeout);
        }
        let commits = if self.is_calm { 100 } else { self.dice.below(5) as usize };
        for _ in 0..commits {
            let Some(effects) = self.uncommitted.pop_front() else { break };
            effects.into_iter().for_each(|effect| self.take_effect(effect));
        }
        for index in 0..self.people.len() {
            self.person_lives(index);
        }
    }

    fn tell_desk(&mut self, input: Input) {
        let unix_millis = 1_700_000_000_000 + u64::try_from(self.now.duration_since(self.began).as_millis()).unwrap();
        let step = self.desk.handle(input, Now { instant: self.now, unix_millis });
        self.uncommitted.push_back(step.effects);
    }

    fn take_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Tunnel { relay, command } => self.relays[usize::from(relay.0)].connector.handle_command(command, self.now),
            Effect::AgentWrite { xml, .. } => {
                for message in xml.split("<message ").skip(1) {
                    let (Some(from), Some(body)) = (part(message, "from='", "'"), part(message, "<body>", "</body>")) else { continue };
                    if body.starts_with("customer ") {
                        self.shown.push((from, body));
                    }
                }
            }
            Effect::AgentClose { condition, .. } => self.violations.push(format!("the agent's stream ended: {condition}")),
            _ => {}
        }
    }

    fn talk(&mut self) {
        for index in 0..self.people.len() {
            if self.dice.chance(30) {
                self.people[index].says();
            }
            if self.dice.chance(8) {
                self.people[index].pings();
            }
            let Some(proxy) = self.proxy(index) else { continue };
            if self.dice.chance(25) {
                self.people[index].told += 1;
                let body = format!("agent {index} {}", self.people[index].told);
                self.agent_sends(&proxy, Element::new("body", ns::CLIENT).with_text(body));
            }
            if self.dice.chance(15) {
                self.agent_sends(&proxy, Element::new("composing", ns::CHAT_STATES));
            }
        }
    }

    fn agent_sends(&mut self, to: &str, child: Element) {
        let message = Element::new("message", ns::CLIENT).with_attribute("type", "chat").with_attribute("to", to).with_child(child);
        self.tell_desk(Input::AgentStanza { stream: AGENT, element: message });
    }

    /// The address of a customer, as the agent knows it.
    fn proxy(&self, index: usize) -> Option<String> {
        let begins = format!("customer {index} ");
        self.shown.iter().find(|(_, body)| body.starts_with(&begins)).map(|(from, _)| from.clone())
    }

    fn break_something(&mut self) {
        let relay = self.dice.below(RELAYS as u64) as usize;
        match self.dice.below(100) {
            0 => {
                self.crashes += 1;
                self.relays[relay].crash(self.now);
                self.people.iter_mut().for_each(|person| person.lose_relay(relay, self.now));
            }
            1..4 => self.relays[relay].cut(self.now),
            4..8 => {
                let index = self.dice.below(PEOPLE as u64) as usize;
                let is_noticed = self.dice.chance(60);
                let wait = Duration::from_millis(self.dice.below(1500));
                if !self.people[index].is_asking()
                    && let Some((relay, key)) = self.people[index].break_off(self.now + wait)
                    && is_noticed
                {
                    self.relays[relay].client_lost(key, self.now);
                }
            }
            _ => {}
        }
    }

    /// What customers have written arrives at their relay.
    fn people_speak_to(&mut self, relay: usize) {
        for person in self.people.iter_mut().filter(|person| person.is_at(relay)) {
            self.relays[relay].hear(person, self.plant, self.now);
        }
        self.relays[relay].serve(self.plant, self.now);
    }

    fn person_lives(&mut self, index: usize) {
        let person = &mut self.people[index];
        if let Some((relay, key)) = person.place() {
            let Some(text) = self.relays[relay].written_to(key) else {
                // His stream ended there.
                person.break_off(self.now + Duration::from_millis(100));
                return;
            };
            let late = !self.is_calm && self.dice.chance(30);
            if !late {
                person.reads(&text.concat(), &mut self.violations);
            } else {
                self.relays[relay].put_back(key, text);
            }
            return;
        }
        if !person.wants_back(self.now) {
            return;
        }
        let relay = self.dice.below(RELAYS as u64) as usize;
        let key = self.next_key + 1;
        self.next_key = key;
        person.goes_to(relay, key);
        self.relays[relay].arrive(person, key, self.now);
    }

    fn judge(&mut self) {
        for (index, person) in self.people.iter().enumerate() {
            let told: Vec<String> = (1..=person.told).map(|number| format!("agent {index} {number}")).collect();
            let said: Vec<String> = (1..=person.said).map(|number| format!("customer {index} {number}")).collect();
            let begins = format!("customer {index} ");
            let shown: Vec<String> = self.shown.iter().map(|(_, body)| body.clone()).filter(|body| body.starts_with(&begins)).collect();
            if person.got != told {
                self.violations.push(differs("to", index, &person.got, &told));
            }
            if shown != said {
                self.violations.push(differs("from", index, &shown, &said));
            }
        }
    }
}

fn differs(way: &str, index: usize, got: &[String], wanted: &[String]) -> String {
    let at = got.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count();
    format!("{way} customer {index}: {} of {} came, and at {at} stands {:?}", got.len(), wanted.len(), got.get(at))
}

fn part(text: &str, from: &str, to: &str) -> Option<String> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(part, _)| part.to_owned())
}

fn settings() -> Settings {
    Settings::default()
}

fn connector_end() -> ConnectorEnd {
    ConnectorEnd::new(settings(), [7; 16])
}

type Told = Vec<ConnectorEvent>;

#[test]
#[expect(clippy::print_stderr, reason = "how much was resumed is part of the proof")]
fn whoever_resumes_has_everything_once_and_in_order() {
    if let Some(seed) = super::number("OUTGATE_SIM_SEED") {
        let outcome = schedule(seed, None);
        assert!(outcome.violations.is_empty(), "seed {seed}: {outcome:#?}");
        return;
    }
    let count = super::number("OUTGATE_SIM_SCHEDULES").unwrap_or(SCHEDULES).min(20_000);
    let (mut here, mut elsewhere, mut crashes, mut said) = (0, 0, 0, 0);
    for seed in 0..count {
        let outcome = schedule(seed, None);
        assert!(outcome.violations.is_empty(), "replay with OUTGATE_SIM_SEED={seed}: {:#?}", outcome.violations);
        (here, elsewhere) = (here + outcome.resumed_here, elsewhere + outcome.resumed_elsewhere);
        (crashes, said) = (crashes + outcome.crashes, said + outcome.said);
    }
    eprintln!("sim: {count} schedules: {said} messages, {crashes} relays crashed, resumed {here} times here and {elsewhere} elsewhere");
    assert!(here > count && elsewhere > count, "few resumed: {here} here, {elsewhere} elsewhere");
}

#[test]
fn every_planted_bug_of_resumption_is_found() {
    for plant in [Plant::OwnUnrecorded, Plant::CountAhead] {
        let found = (0..300).any(|seed| !schedule(seed, Some(plant)).violations.is_empty());
        assert!(found, "{plant:?} was not found");
    }
}
