//! The world of one schedule: two real ends, carriers that fail, customers and a desk, and the oracle over them.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use outgate::fingerprint::ClientSoftware;
use outgate::proto::tunnel::frame::Frame;
use outgate::proto::tunnel::{
    Admission, Assertion, CarrierId, ConnectorEnd, ConnectorEvent, Fin, Identity, Lane, Open, OpenKind, Payload, Proof, RefusalCode,
    RelayCommand, RelayEnd, RelayEvent, SessionKey, Settings,
};
use outgate::session::{CloseReason, OpenId, SessionSecret};

use super::Plant;
use super::carrier::{PIPES, SimCarrier, Towards};
use super::customer::{Customer, Stage};
use super::desk::{Desk, Out};
use super::rng::Rng;

/// What happens in a schedule beside talk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) cuts: u64,
    pub(super) connector_crashes: u64,
    pub(super) relay_crashes: u64,
}

/// What a schedule came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) replayed: u64,
    pub(super) duplicates: u64,
    pub(super) attached: u64,
    pub(super) delivered: u64,
}

pub(super) struct World {
    rng: Rng,
    now: Instant,
    plant: Option<Plant>,
    relay: RelayEnd,
    connector: ConnectorEnd,
    carriers: Vec<SimCarrier>,
    next_carrier: u64,
    dial_at: Instant,
    desk: Desk,
    customers: Vec<Customer>,
    next_key: u64,
    held_open: Option<Frame>,
    calm: bool,
    out: Outcome,
}

fn identity() -> Identity {
    Identity("outgate://lab/connector/lan1".to_owned())
}

fn relay_end(seed: u64) -> RelayEnd {
    let mut rng = Rng::new(seed);
    RelayEnd::new(Settings::default(), Box::new(move || u128::from(rng.next()).to_be_bytes()))
}

impl World {
    pub(super) fn new(seed: u64, plant: Option<Plant>, now: Instant) -> Self {
        Self {
            rng: Rng::new(seed),
            now,
            plant,
            relay: relay_end(seed),
            connector: ConnectorEnd::new(Settings::default(), [7; 16]),
            carriers: Vec::new(),
            next_carrier: 0,
            dial_at: now,
            desk: Desk::new(plant),
            customers: Vec::new(),
            next_key: 0,
            held_open: None,
            calm: false,
            out: Outcome::default(),
        }
    }

    /// Runs the schedule: faults for a while, then calm until all is said, then the end of every session.
    pub(super) fn run(mut self, faults: Faults) -> Outcome {
        let sessions = 1 + self.rng.below(6);
        let end = self.now + Duration::from_millis(2_000 + self.rng.below(6_000));
        for _ in 0..sessions {
            self.customer_comes();
        }
        while self.now < end && self.out.violations.is_empty() {
            self.talk();
            self.break_something(faults);
            self.step(20);
        }
        self.calm = true;
        self.settle(Duration::from_secs(40));
        self.end_all();
        self.settle(Duration::from_secs(60));
        self.judge();
        self.out
    }

    fn settle(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.out.violations.is_empty() {
            self.step(if self.customers.iter().all(|customer| customer.to_confirm.is_empty()) { 400 } else { 60 });
        }
    }

    /// One step: up to `millis` later, everything due happens.
    fn step(&mut self, millis: u64) {
        self.now += Duration::from_millis(1 + self.rng.below(millis));
        self.lose_carriers();
        self.dial();
        self.deliver();
        self.confirm();
        self.relay.handle_timeout(self.now);
        self.connector.handle_timeout(self.now);
        let commits = if self.calm { 100 } else { self.rng.below(4) as usize };
        for effect in self.desk.commit(commits) {
            self.connector.handle_command(effect, self.now);
        }
        self.drain();
        self.pump();
        self.out.violations.append(&mut self.desk.violations);
    }

    fn customer_comes(&mut self) {
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        let secret = SessionSecret(u128::from(self.rng.next()).to_be_bytes());
        let open_id = OpenId(u128::from(self.rng.next()).to_be_bytes());
        let open = Box::new(open(OpenKind::New { open_id, secret }));
        self.customers.push(Customer::new(key, secret));
        self.relay.handle_command(RelayCommand::Open { session: key, identity: identity(), open }, self.now);
    }

    fn talk(&mut self) {
        for index in 0..self.customers.len() {
            if self.rng.chance(25) && self.customers[index].may_speak() {
                self.customer_speaks(index);
            }
        }
        for secret in self.desk.open_sessions() {
            if self.rng.chance(20) {
                let body = self.body("out");
                self.desk.say(secret, if self.rng.chance(25) { Out::Ephemeral(body) } else { Out::Event(body) });
            }
        }
        if self.rng.chance(2) && self.customers.len() < 12 {
            self.customer_comes();
        }
        if self.rng.chance(1) {
            let index = self.rng.below(self.customers.len() as u64) as usize;
            self.customer_leaves(index);
        }
    }

    fn body(&mut self, side: &str) -> Bytes {
        let length = match self.rng.below(20) {
            0 => 20_000 + self.rng.below(12_000),
            1..4 => self.rng.below(3_000),
            _ => self.rng.below(80),
        };
        let mut body = format!("{side}:{:x}:", self.rng.next()).into_bytes();
        body.resize(body.len() + length as usize, b'x');
        Bytes::from(body)
    }

    fn customer_speaks(&mut self, index: usize) {
        let body = self.body("in");
        let (ephemeral, other, own) = (self.rng.chance(25), self.rng.chance(10), self.rng.chance(5));
        let customer = &mut self.customers[index];
        if customer.said.len() as u64 - customer.in_handled >= 64 {
            return;
        }
        let session = customer.key;
        customer.stanzas += 1;
        if other {
            let sm_in = customer.stanzas;
            return self.relay.handle_command(RelayCommand::Counted { session, sm_in }, self.now);
        }
        if own {
            let announced = (customer.got.len() as u64, 1 + customer.own_wanted.len() as u32);
            customer.own_wanted.push(announced);
            return self.relay.handle_command(RelayCommand::Own { session, after: announced.0, count: announced.1 }, self.now);
        }
        let payload = if ephemeral { Payload::Ephemeral(body.clone()) } else { Payload::Event(body.clone()) };
        customer.said.push((!ephemeral).then_some(body));
        let sm_in = customer.stanzas;
        self.relay.handle_command(RelayCommand::Send { session, payload, sm_in }, self.now);
    }

    fn customer_leaves(&mut self, index: usize) {
        let customer = &mut self.customers[index];
        if customer.stage != Stage::Open {
            return;
        }
        customer.stage = Stage::Left;
        let fin = Fin { reason: CloseReason::CustomerLeft, text: String::new() };
        self.relay.handle_command(RelayCommand::Finish { session: customer.key, fin }, self.now);
    }

    fn break_something(&mut self, faults: Faults) {
        if self.rng.below(1000) < faults.cuts {
            let (now, slow) = (self.now, self.rng.chance(15));
            for carrier in &mut self.carriers {
                carrier.cut(&mut self.rng, slow, now);
            }
        }
        if self.rng.below(1000) < faults.connector_crashes {
            self.desk.crash();
            self.count();
            self.connector = ConnectorEnd::new(Settings::default(), [7; 16]);
            self.held_open = None;
            for carrier in &mut self.carriers {
                carrier.cut(&mut self.rng, false, self.now);
                carrier.connector_has = false;
            }
        }
        if self.rng.below(1000) < faults.relay_crashes {
            self.count();
            self.relay = relay_end(self.rng.next());
            for carrier in &mut self.carriers {
                carrier.cut(&mut self.rng, false, self.now);
                carrier.relay_has = false;
            }
            for customer in &mut self.customers {
                if customer.is_live() {
                    customer.stage = Stage::Lost;
                }
            }
        }
    }

    fn lose_carriers(&mut self) {
        for carrier in &mut self.carriers {
            if carrier.relay_has && carrier.relay_loses_at.is_some_and(|at| at <= self.now) {
                carrier.relay_has = false;
                self.relay.carrier_lost(carrier.id, self.now);
            }
            if carrier.connector_has && carrier.connector_loses_at.is_some_and(|at| at <= self.now) {
                carrier.connector_has = false;
                self.connector.carrier_lost(carrier.id, self.now);
            }
        }
        self.carriers.retain(|carrier| carrier.relay_has || carrier.connector_has);
    }

    fn dial(&mut self) {
        let lonely = self.carriers.iter().all(|carrier| !carrier.connector_has);
        if self.now < self.dial_at || !(lonely || (!self.calm && self.rng.chance(1))) {
            return;
        }
        let id = CarrierId(self.next_carrier);
        self.next_carrier += 1;
        self.carriers.push(SimCarrier::new(id));
        self.relay.carrier_opened(id, identity(), self.now);
        self.connector.carrier_opened(id, self.now);
        self.dial_at = self.now + Duration::from_millis(10 + self.rng.below(300));
    }

    /// Hands frames that have arrived to the ends, the pipes in a random order: lanes do not wait for each other.
    fn deliver(&mut self) {
        for index in 0..self.carriers.len() {
            let start = self.rng.below(4) as usize;
            for pipe in (0..4).map(|offset| (start + offset) % 4) {
                self.carriers[index].deliver(pipe, self.now);
                self.deliver_pipe(index, pipe);
            }
        }
    }

    fn deliver_pipe(&mut self, index: usize, pipe: usize) {
        let (towards, lane) = PIPES[pipe];
        let id = self.carriers[index].id;
        loop {
            let carrier = &mut self.carriers[index];
            let readable = match towards {
                Towards::Relay => carrier.relay_has && self.relay.may_read(id, lane),
                Towards::Connector => carrier.connector_has && self.connector.may_read(id, lane),
            };
            if !readable {
                return;
            }
            let Some(frame) = carrier.frame(pipe) else { return };
            match towards {
                Towards::Relay => self.relay.handle_frame(id, frame, self.now),
                Towards::Connector => self.frame_to_connector(id, frame),
            }
            self.drain();
        }
    }

    fn frame_to_connector(&mut self, id: CarrierId, frame: Frame) {
        const OPEN: u8 = 6;
        if self.plant == Some(Plant::DataBeforeOpen) && frame.kind == OPEN && self.held_open.is_none() {
            self.held_open = Some(frame);
            return;
        }
        let late = if matches!(frame.kind, 6 | 9) { self.held_open.take() } else { None };
        self.connector.handle_frame(id, frame, self.now);
        if let Some(frame) = late {
            self.connector.handle_frame(id, frame, self.now);
        }
    }

    fn confirm(&mut self) {
        for customer in &mut self.customers {
            while let Some((_, number)) = customer.to_confirm.pop_front_if(|(at, _)| *at <= self.now) {
                let proof = if number % 5 == 0 { Proof::Written } else { Proof::Confirmed };
                if matches!(customer.stage, Stage::Open | Stage::Ended) {
                    self.relay.handle_command(RelayCommand::Handled { session: customer.key, number, proof }, self.now);
                }
            }
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.relay.poll_event() {
            self.relay_says(event);
        }
        while let Some(event) = self.connector.poll_event() {
            if let ConnectorEvent::CloseCarrier { carrier, .. } = event {
                self.pump();
                self.connector.carrier_lost(carrier, self.now);
                let lag = Duration::from_millis(self.rng.below(200));
                if let Some(carrier) = self.carriers.iter_mut().find(|one| one.id == carrier) {
                    carrier.connector_has = false;
                    carrier.relay_loses_at.get_or_insert(self.now + lag);
                }
            } else {
                self.desk.handle(event);
            }
        }
    }

    fn relay_says(&mut self, event: RelayEvent) {
        let (now, lag) = (self.now, Duration::from_millis(self.rng.below(400)));
        match event {
            RelayEvent::CloseCarrier { carrier, .. } => {
                self.pump();
                self.relay.carrier_lost(carrier, now);
                if let Some(carrier) = self.carriers.iter_mut().find(|one| one.id == carrier) {
                    carrier.relay_has = false;
                    carrier.connector_loses_at.get_or_insert(now + lag);
                }
            }
            RelayEvent::OpenOk { session } => {
                if let Some(customer) = self.customer(session) {
                    customer.stage = Stage::Open;
                }
            }
            RelayEvent::OpenRefused { session, code, .. } => {
                let known = code == RefusalCode::Busy;
                if let Some(customer) = self.customer(session) {
                    customer.stage = Stage::Lost;
                    if !known {
                        self.out.violations.push(format!("{session:?} refused: {code:?}"));
                    }
                }
            }
            RelayEvent::Data { session, number, payload } => {
                self.out.delivered += 1;
                let Some(customer) = self.customer(session) else { return };
                let next = customer.got.len() as u64 + 1;
                customer.got.push(payload);
                customer.to_confirm.push_back((now + lag, number));
                if number != next {
                    self.out.violations.push(format!("{session:?} outward {number} where {next} was next"));
                }
            }
            RelayEvent::Handled { session, number, sm_in } => self.told_handled(session, number, sm_in),
            RelayEvent::OwnHandled { session, after, count } => {
                if let Some(customer) = self.customer(session) {
                    customer.own_done.push((after, count));
                }
            }
            RelayEvent::Fin { session, .. } => {
                if let Some(customer) = self.customer(session) {
                    customer.stage = Stage::Ended;
                }
            }
            RelayEvent::Gone { session, reason } => {
                let mut violations = Vec::new();
                if let Some(customer) = self.customer(session) {
                    customer.lose(reason, &mut violations);
                }
                self.out.violations.append(&mut violations);
            }
            RelayEvent::TunnelUp { .. } | RelayEvent::TunnelDetached { .. } | RelayEvent::Verdict { .. } => {}
        }
    }

    /// What is told to a client as handled must be on disk, and never goes back.
    fn told_handled(&mut self, session: SessionKey, number: u64, sm_in: u32) {
        let backwards = self.plant == Some(Plant::CountGoesBack) && self.rng.chance(10);
        let Some(index) = self.customers.iter().position(|customer| customer.key == session) else { return };
        let customer = &mut self.customers[index];
        let h = if backwards { sm_in.saturating_sub(2) } else { sm_in };
        let kept = self.desk.store.get(&customer.secret).cloned().unwrap_or_default();
        let mut violate = |what: &str| self.out.violations.push(format!("{session:?} {what}: {number}, h {h}"));
        if h < customer.h || number < customer.in_handled {
            violate("went back");
        }
        if h > kept.sm_in || number > kept.record.len() as u64 {
            violate("handled but not committed");
        }
        customer.h = h;
        customer.in_handled = number;
    }

    fn customer(&mut self, session: SessionKey) -> Option<&mut Customer> {
        self.customers.iter_mut().find(|customer| customer.key == session)
    }

    /// Takes what the ends want to send and puts it on the way.
    fn pump(&mut self) {
        let mut attached = 0;
        for carrier in &mut self.carriers {
            for (pipe, (towards, lane)) in PIPES.into_iter().enumerate() {
                for _ in 0..4 {
                    let max = [64, 1_000, 40_000][self.rng.below(3) as usize];
                    let mut bytes = BytesMut::new();
                    let any = match towards {
                        Towards::Connector if carrier.relay_has => self.relay.poll_transmit(carrier.id, lane, max, &mut bytes, self.now),
                        Towards::Relay if carrier.connector_has => {
                            self.connector.poll_transmit(carrier.id, lane, max, &mut bytes, self.now)
                        }
                        Towards::Connector | Towards::Relay => false,
                    };
                    if !any {
                        break;
                    }
                    let slowest = if self.rng.chance(10) { 150 } else { 15 };
                    let delay = Duration::from_millis(self.rng.below(slowest));
                    carrier.send(pipe, bytes.freeze(), delay, self.now);
                }
            }
            attached += usize::from(carrier.relay_has && self.relay.may_read(carrier.id, Lane::Data));
        }
        if attached > 1 {
            self.out.violations.push(format!("{attached} carriers are attached at the relay"));
        }
    }

    fn end_all(&mut self) {
        for index in 0..self.customers.len() {
            if self.rng.chance(50) {
                self.customer_leaves(index);
            }
        }
        for secret in self.desk.open_sessions() {
            self.desk.say(secret, Out::Fin);
        }
    }

    fn count(&mut self) {
        let mine = self.connector.stats();
        let theirs = self.relay.stats().into_iter().map(|(_, stats)| stats).next().unwrap_or_default();
        self.out.replayed += mine.replayed + theirs.replayed;
        self.out.duplicates += mine.duplicates + theirs.duplicates;
        self.out.attached += theirs.attached;
    }

    /// Compares what each side has with what the other said.
    fn judge(&mut self) {
        self.count();
        if !self.out.violations.is_empty() {
            return;
        }
        let mut faults = Vec::new();
        if !self.carriers.iter().any(SimCarrier::is_whole) {
            faults.push("no carrier stands in calm weather".to_owned());
        }
        if !self.desk.is_idle() {
            faults.push("the desk is not idle".to_owned());
        }
        for customer in &self.customers {
            faults.extend(judge(customer, &self.desk));
        }
        let mine = self.connector.stats();
        let theirs = self.relay.stats().into_iter().map(|(_, stats)| stats).next().unwrap_or_default();
        for (side, stats) in [("connector", mine), ("relay", theirs)] {
            if stats.channels != 0 || stats.held_bytes != 0 {
                faults.push(format!("the {side} keeps {} channels and {} bytes", stats.channels, stats.held_bytes));
            }
        }
        self.out.violations = faults;
    }
}

fn judge(customer: &Customer, desk: &Desk) -> Vec<String> {
    let mut faults = Vec::new();
    let key = customer.key;
    let kept = desk.store.get(&customer.secret).cloned().unwrap_or_default();
    if kept.record.len() > customer.said.len() || kept.record != customer.said[..kept.record.len()] {
        faults.push(format!("{key:?}: the record is not what the customer said"));
    }
    let shown = customer.got.iter().zip(&kept.out);
    let wrong = shown.filter(|(got, sent)| match (got, sent) {
        (Payload::Event(got), Out::Event(sent)) | (Payload::Ephemeral(got), Out::Ephemeral(sent)) => got != sent,
        (Payload::Tombstone, Out::Ephemeral(_)) => false,
        _ => true,
    });
    if wrong.count() > 0 || customer.got.len() > kept.out.len() {
        faults.push(format!("{key:?}: the customer got what the agent did not say"));
    }
    let events = kept.out.iter().filter(|item| **item != Out::Fin).count();
    match customer.stage {
        Stage::Lost => {}
        Stage::Left => {
            if kept.record.len() != customer.said.len() || !kept.fin_in {
                faults.push(format!("{key:?}: left, but {} of {} are on record", kept.record.len(), customer.said.len()));
            }
        }
        Stage::Ended => {
            if kept.record.len() != customer.said.len() || customer.got.len() != events {
                let (record, said, got) = (kept.record.len(), customer.said.len(), customer.got.len());
                faults.push(format!("{key:?}: ended with {record} of {said} in and {got} of {events} out"));
            }
        }
        Stage::Opening | Stage::Open => faults.push(format!("{key:?} has not ended: {:?}", customer.stage)),
    }
    let settled = matches!(customer.stage, Stage::Ended);
    if settled && customer.own_done.len() > customer.own_wanted.len() {
        faults.push(format!("{key:?}: an own stanza was recorded twice"));
    }
    faults
}

/// An OPEN as any customer's.
pub(super) fn open(kind: OpenKind) -> Open {
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
    Open {
        kind,
        admission: Admission { domain: "im.example".to_owned(), queue: "sales".to_owned(), assertion: Assertion::Anonymous },
        client_addr: address,
        local_addr: address,
        protocol: "xmpp".to_owned(),
        sni: None,
        software: ClientSoftware::unknown(),
        resumable: true,
    }
}
