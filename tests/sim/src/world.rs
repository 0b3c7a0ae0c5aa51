//! The world of one schedule: real ends of one connector and several relays, carriers that fail, customers and a desk.

use std::time::{Duration, Instant};

use crate::fingerprint::ClientSoftware;
use crate::proto::tunnel::frame::Frame;
use crate::proto::tunnel::{
    Admission, Assertion, CarrierId, ConnectorEnd, ConnectorEvent, GoAway, GoAwayReason, Identity, Lane, Open, OpenKind, Rate, RelayEnd,
    ReplayMemory, SessionKey, Settings,
};
use bytes::BytesMut;

use super::Plant;
use super::carrier::{PIPES, SimCarrier, Towards};
use super::customer::{Customer, Stage};
use super::desk::{Desk, Out};
use super::rng::Rng;
use super::trace::{Trace, named};

/// What happens in a schedule beside talk: in how many of a thousand steps.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Faults {
    pub cuts: u64,
    pub connector_crashes: u64,
    pub relay_crashes: u64,
    /// A second carrier is brought up beside the attached one.
    pub switches: u64,
    pub goaways: u64,
    /// A carrier loses all or one lane of one way, and does not know.
    pub holes: u64,
    /// A frame of a session is delivered twice.
    pub duplicates: u64,
    /// A client asks for his session at another relay though his own lives.
    pub moves: u64,
    /// Schedules of a hundred in which a crash of the connector finds an older disk.
    pub regresses: u64,
}

/// What a schedule came to.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Outcome {
    pub violations: Vec<String>,
    pub replayed: u64,
    pub duplicates: u64,
    pub attached: u64,
    pub switched: u64,
    pub delivered: u64,
    /// Sessions that went on at another relay, or another time at the same.
    pub moved: u64,
    /// Sessions that ended because the store came back older.
    pub regressed: u64,
    /// ATTACH refused for its rate.
    pub governed: u64,
    pub lost: u64,
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) now: Instant,
    pub(super) plant: Option<Plant>,
    settings: Settings,
    pub(super) relays: Vec<RelayEnd>,
    pub(super) connectors: Vec<ConnectorEnd>,
    dial_at: Vec<Instant>,
    /// The last epoch of each tunnel.
    epochs: Vec<u64>,
    /// A planted bug has begun to lose the ACKs of this tunnel.
    deaf: Vec<bool>,
    pub(super) carriers: Vec<SimCarrier>,
    next_carrier: u64,
    pub(super) desk: Desk,
    pub(super) customers: Vec<Customer>,
    pub(super) next_key: u64,
    held_open: Option<Frame>,
    pub(super) calm: bool,
    pub(super) faults: Faults,
    pub(super) out: Outcome,
    pub(super) trace: Trace,
}

pub(super) fn identity() -> Identity {
    Identity("outgate://lab/connector/lan1".to_owned())
}

fn relay_end(settings: &Settings, seed: u64) -> RelayEnd {
    let mut rng = Rng::new(seed);
    let settings = Settings { replay_memory: ReplayMemory::default(), ..settings.clone() };
    RelayEnd::new(settings, Box::new(move || u128::from(rng.next()).to_be_bytes()))
}

impl World {
    pub(super) fn new(seed: u64, plant: Option<Plant>, faults: Faults, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let mut settings = Settings::default();
        if faults.cuts > 0 && rng.chance(25) {
            settings.attach_rate = Rate { per_second: 2, burst: 2 };
            settings.reopen_rate = Rate { per_second: 20, burst: 1 };
        }
        if faults.cuts > 0 && rng.chance(10) {
            settings.replay_memory = ReplayMemory::new(100_000);
        }
        let count = match plant {
            Some(Plant::StaleAttachmentTaken) => 2,
            Some(_) => 1,
            None => [1, 1, 2, 3][rng.below(4) as usize],
        };
        let regresses = rng.chance(faults.regresses) || matches!(plant, Some(Plant::RenumberedAfterRegress | Plant::NumberGivenTwice));
        Self {
            relays: (0..count).map(|relay| relay_end(&settings, seed.wrapping_add(relay))).collect(),
            connectors: (0..count).map(|_| ConnectorEnd::new(settings.clone(), [7; 16])).collect(),
            dial_at: vec![now; count as usize],
            epochs: vec![0; count as usize],
            deaf: vec![false; count as usize],
            rng,
            now,
            plant,
            settings,
            carriers: Vec::new(),
            next_carrier: 0,
            desk: Desk::new(plant, regresses),
            customers: Vec::new(),
            next_key: 0,
            held_open: None,
            calm: false,
            faults,
            out: Outcome::default(),
            trace: Trace::default(),
        }
    }

    /// Has it written down what happens.
    pub(super) fn traced(mut self) -> Self {
        self.trace = Trace::from(self.now);
        self
    }

    /// Runs the schedule: faults for a while, then calm until all is said, then the end of every session.
    pub(super) fn run(mut self) -> Outcome {
        let sessions = 1 + self.rng.below(6);
        let end = self.now + Duration::from_millis(2_000 + self.rng.below(6_000));
        for _ in 0..sessions {
            self.customer_comes();
        }
        while self.now < end && self.out.violations.is_empty() {
            self.talk();
            self.break_something();
            self.step(30);
        }
        self.calm = true;
        // One schedule in eight sees the whole calm: what should not happen late shows there.
        let patient = self.rng.chance(12);
        self.settle(Duration::from_secs(60), |world| !patient && world.is_quiet());
        self.end_all();
        self.settle(Duration::from_secs(90), |world| !patient && world.is_over());
        self.judge();
        self.out.trace = self.trace.into_lines();
        self.out
    }

    fn settle(&mut self, time: Duration, enough: impl Fn(&Self) -> bool) {
        let end = self.now + time;
        while self.now < end && self.out.violations.is_empty() && !enough(self) {
            self.step(if self.customers.iter().all(|customer| customer.to_confirm.is_empty()) { 400 } else { 60 });
        }
    }

    /// Whether everybody has his answer, and nothing waits to be carried.
    fn is_quiet(&self) -> bool {
        let unsettled = |customer: &Customer| !customer.is_over() && customer.stage != Stage::Open;
        self.desk.is_idle() && self.held() == 0 && self.stands_everywhere() && !self.customers.iter().any(unsettled)
    }

    /// Whether every session is over on all sides.
    fn is_over(&self) -> bool {
        let channels = |count: u64| count == 0;
        self.desk.is_idle()
            && self.stands_everywhere()
            && self.customers.iter().all(Customer::is_over)
            && self.connectors.iter().all(|end| channels(end.stats().channels))
            && self.relays.iter().all(|end| end.stats().iter().all(|(_, stats)| channels(stats.channels)))
    }

    fn held(&self) -> u64 {
        let theirs = self.relays.iter().flat_map(RelayEnd::stats).map(|(_, stats)| stats.held_bytes).sum::<u64>();
        theirs + self.connectors.iter().map(|end| end.stats().held_bytes).sum::<u64>()
    }

    /// Whether each relay has a whole carrier that is attached.
    pub(super) fn stands_everywhere(&self) -> bool {
        (0..self.relays.len()).all(|relay| {
            self.relays[relay].is_attached(&identity()) && self.carriers.iter().any(|carrier| carrier.relay == relay && carrier.is_whole())
        })
    }

    /// One step: up to `millis` later, everything due happens.
    fn step(&mut self, millis: u64) {
        self.now += Duration::from_millis(1 + self.rng.below(millis));
        self.lose_carriers();
        self.dial();
        self.deliver();
        self.confirm();
        self.come_back();
        for relay in &mut self.relays {
            relay.handle_timeout(self.now);
        }
        for connector in &mut self.connectors {
            connector.handle_timeout(self.now);
        }
        let commits = if self.calm { 100 } else { self.rng.below(4) as usize };
        for (relay, effect) in self.desk.commit(commits) {
            self.trace.note(self.now, || format!("the desk asks of relay {relay}: {effect:?}"));
            self.connectors[relay].handle_command(effect, self.now);
        }
        self.drain();
        self.pump();
        self.out.violations.append(&mut self.desk.violations);
    }

    fn break_something(&mut self) {
        let faults = self.faults;
        let mut strikes = |rate: u64| self.rng.below(1000) < rate;
        let (goes, cuts, pierces) = (strikes(faults.goaways), strikes(faults.cuts), strikes(faults.holes));
        let (connector, relay) = (strikes(faults.connector_crashes), strikes(faults.relay_crashes));
        if goes {
            self.go_away();
        }
        if cuts {
            let (now, slow, all) = (self.now, self.rng.chance(15), self.rng.chance(50));
            let relay = self.rng.below(self.relays.len() as u64) as usize;
            for carrier in self.carriers.iter_mut().filter(|carrier| all || carrier.relay == relay) {
                carrier.cut(&mut self.rng, slow, now);
            }
        }
        if pierces && !self.carriers.is_empty() {
            let index = self.rng.below(self.carriers.len() as u64) as usize;
            self.carriers[index].pierce(&mut self.rng);
        }
        if connector {
            self.connector_crashes();
        }
        if relay {
            let relay = self.rng.below(self.relays.len() as u64) as usize;
            self.relay_crashes(relay);
        }
    }

    fn connector_crashes(&mut self) {
        let pick = self.rng.next() as usize;
        let regresses = self.desk.snapshots.is_some() && self.rng.chance(40) && self.desk.regress(pick);
        if !regresses {
            self.desk.crash();
        }
        self.trace.note(self.now, || format!("the connector crashes, its store {}", if regresses { "older" } else { "as committed" }));
        if regresses {
            self.note_harm();
        }
        self.count();
        let ends = (0..self.relays.len()).map(|_| ConnectorEnd::new(self.settings.clone(), [7; 16]));
        self.connectors = ends.collect();
        self.held_open = None;
        for carrier in &mut self.carriers {
            carrier.cut(&mut self.rng, false, self.now);
            carrier.connector_has = false;
            if regresses {
                // Nobody restores a disk while what was sent from it is still on the way.
                carrier.clear();
            }
        }
    }

    fn relay_crashes(&mut self, relay: usize) {
        self.trace.note(self.now, || format!("relay {relay} crashes"));
        self.count();
        self.relays[relay] = relay_end(&self.settings, self.rng.next());
        for carrier in self.carriers.iter_mut().filter(|carrier| carrier.relay == relay) {
            carrier.cut(&mut self.rng, false, self.now);
            carrier.relay_has = false;
        }
        self.customers_lose_relay(relay);
    }

    /// Someone says that he, or a carrier, will go; what comes of it is up to the connector's shell.
    fn go_away(&mut self) {
        let deadline = Duration::from_millis(500 + self.rng.below(5_000));
        let goaway = GoAway { reason: GoAwayReason::Stopping, deadline, alternates: Vec::new() };
        let relay = self.rng.below(self.relays.len() as u64) as usize;
        match self.rng.below(4) {
            0 => self.relays[relay].drain(goaway, self.now),
            1 => self.connectors[relay].drain(goaway, self.now),
            _ => {
                if let Some(carrier) = self.carriers.iter().find(|carrier| carrier.relay_has && carrier.relay == relay) {
                    self.relays[relay].retire(carrier.id, deadline, self.now);
                }
            }
        }
    }

    fn lose_carriers(&mut self) {
        for carrier in &mut self.carriers {
            if carrier.relay_has && carrier.relay_loses_at.is_some_and(|at| at <= self.now) {
                carrier.relay_has = false;
                self.relays[carrier.relay].carrier_lost(carrier.id, self.now);
            }
            if carrier.connector_has && carrier.connector_loses_at.is_some_and(|at| at <= self.now) {
                carrier.connector_has = false;
                self.connectors[carrier.relay].carrier_lost(carrier.id, self.now);
            }
        }
        self.carriers.retain(|carrier| carrier.relay_has || carrier.connector_has);
    }

    fn dial(&mut self) {
        for relay in 0..self.relays.len() {
            let lonely = self.carriers.iter().all(|carrier| !carrier.connector_has || carrier.relay != relay);
            let beside = !self.calm && self.rng.below(1000) < self.faults.switches;
            if self.now >= self.dial_at[relay] && (lonely || beside) {
                self.dial_one(relay);
            }
        }
    }

    /// Brings up one more carrier.
    fn dial_one(&mut self, relay: usize) {
        let id = CarrierId(self.next_carrier);
        self.next_carrier += 1;
        self.carriers.push(SimCarrier::new(id, relay));
        self.relays[relay].carrier_opened(id, identity(), self.now);
        self.connectors[relay].carrier_opened(id, self.now);
        self.dial_at[relay] = self.now + Duration::from_millis(10 + self.rng.below(300));
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
        const ACK: u8 = 10;
        let (towards, lane) = PIPES[pipe];
        let (id, relay) = (self.carriers[index].id, self.carriers[index].relay);
        loop {
            let carrier = &mut self.carriers[index];
            let readable = match towards {
                Towards::Relay => carrier.relay_has && self.relays[relay].may_read(id, lane),
                Towards::Connector => carrier.connector_has && self.connectors[relay].may_read(id, lane),
            };
            if !readable {
                return;
            }
            let Some(frame) = carrier.frame(pipe) else { return };
            if self.deaf[relay] && towards == Towards::Relay && frame.kind == ACK {
                continue;
            }
            let twice = (lane == Lane::Data || frame.kind == ACK) && self.rng.below(1000) < self.faults.duplicates;
            self.trace.note(self.now, || format!("{towards:?} {relay}, carrier {}: {}", id.0, named(&frame)));
            let again = twice.then(|| frame.clone());
            for frame in [Some(frame), again].into_iter().flatten() {
                match towards {
                    Towards::Relay => self.relays[relay].handle_frame(id, frame, self.now),
                    Towards::Connector => self.frame_to_connector(relay, id, frame),
                }
            }
            self.drain();
        }
    }

    fn frame_to_connector(&mut self, relay: usize, id: CarrierId, mut frame: Frame) {
        const ATTACHED: u8 = 4;
        const OPEN: u8 = 6;
        if self.plant == Some(Plant::DataBeforeOpen) && frame.kind == OPEN && self.held_open.is_none() {
            self.held_open = Some(frame);
            return;
        }
        if self.plant == Some(Plant::EpochReused) && frame.kind == ATTACHED {
            // Tag and 16 bytes of the tunnel's id, then the epoch.
            let mut body = frame.body.to_vec();
            if let Some(epoch @ 2..128) = body.get_mut(19) {
                *epoch -= 1;
            }
            frame.body = body.into();
        }
        let late = if matches!(frame.kind, 6 | 9) { self.held_open.take() } else { None };
        self.connectors[relay].handle_frame(id, frame, self.now);
        if let Some(frame) = late {
            self.connectors[relay].handle_frame(id, frame, self.now);
        }
    }

    fn drain(&mut self) {
        for relay in 0..self.relays.len() {
            while let Some(event) = self.relays[relay].poll_event() {
                self.trace.note(self.now, || format!("relay {relay} is told {event:?}"));
                self.relay_says(relay, event);
            }
            while let Some(event) = self.connectors[relay].poll_event() {
                self.trace.note(self.now, || format!("the desk is told of relay {relay}: {event:?}"));
                self.connector_says(relay, event);
            }
        }
    }

    fn connector_says(&mut self, relay: usize, event: ConnectorEvent) {
        match event {
            ConnectorEvent::CloseCarrier { carrier, .. } => {
                self.pump();
                self.connectors[relay].carrier_lost(carrier, self.now);
                let lag = Duration::from_millis(self.rng.below(200));
                if let Some(carrier) = self.carriers.iter_mut().find(|one| one.id == carrier) {
                    carrier.connector_has = false;
                    carrier.relay_loses_at.get_or_insert(self.now + lag);
                }
            }
            ConnectorEvent::CandidateReady { carrier } => {
                if self.rng.chance(90) && self.connectors[relay].switch_to(carrier, self.now) {
                    self.deaf[relay] |= self.plant == Some(Plant::AcksLostAfterSwitch);
                }
            }
            ConnectorEvent::GoAway { .. } => self.dial_one(relay),
            ConnectorEvent::Refused { ref code, retry_after } => {
                self.out.governed += u64::from(code == "busy");
                self.dial_at[relay] = self.dial_at[relay].max(self.now + retry_after);
                self.desk.handle(relay, event, self.now);
            }
            ConnectorEvent::Attached { epoch, resumed } => {
                if resumed && epoch <= self.epochs[relay] {
                    self.out.violations.push(format!("epoch {epoch} after {}", self.epochs[relay]));
                }
                self.epochs[relay] = epoch;
                self.desk.handle(relay, event, self.now);
            }
            ConnectorEvent::Detached
            | ConnectorEvent::Open { .. }
            | ConnectorEvent::Data { .. }
            | ConnectorEvent::Counted { .. }
            | ConnectorEvent::Own { .. }
            | ConnectorEvent::OutHandled { .. }
            | ConnectorEvent::Fin { .. }
            | ConnectorEvent::Reset { .. }
            | ConnectorEvent::Check { .. } => self.desk.handle(relay, event, self.now),
        }
    }

    /// Takes what the ends want to send and puts it on the way.
    pub(super) fn pump(&mut self) {
        let mut attached = [0; 4];
        for carrier in &mut self.carriers {
            let relay = carrier.relay;
            for (pipe, (towards, lane)) in PIPES.into_iter().enumerate() {
                for _ in 0..4 {
                    let max = [64, 1_000, 40_000][self.rng.below(3) as usize];
                    let (mut bytes, id, now) = (BytesMut::new(), carrier.id, self.now);
                    let any = match towards {
                        Towards::Connector if carrier.relay_has => self.relays[relay].poll_transmit(id, lane, max, &mut bytes, now),
                        Towards::Relay if carrier.connector_has => self.connectors[relay].poll_transmit(id, lane, max, &mut bytes, now),
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
            attached[relay] += usize::from(carrier.relay_has && self.relays[relay].may_read(carrier.id, Lane::Data));
        }
        if attached.iter().any(|count| *count > 1) {
            self.out.violations.push("two carriers are attached at a relay".to_owned());
        }
    }

    fn end_all(&mut self) {
        for index in 0..self.customers.len() {
            if self.rng.chance(50) {
                self.customer_leaves(index);
            }
        }
        self.relays_give_up_who_left();
        for secret in self.desk.open_sessions() {
            self.desk.say(secret, Out::Fin);
        }
    }

    pub(super) fn count(&mut self) {
        for connector in &self.connectors {
            let mine = connector.stats();
            self.out.replayed += mine.replayed;
            self.out.duplicates += mine.duplicates;
            self.out.switched += mine.switched;
        }
        for (_, theirs) in self.relays.iter().flat_map(RelayEnd::stats) {
            self.out.replayed += theirs.replayed;
            self.out.duplicates += theirs.duplicates;
            self.out.attached += theirs.attached;
        }
    }

    /// What the connector's ends hold for replay, by their common account.
    pub(super) fn accounted(&self) -> u64 {
        self.settings.replay_memory.held()
    }

    pub(super) fn new_key(&mut self) -> SessionKey {
        self.next_key += 1;
        SessionKey(self.next_key)
    }
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
        waited: Duration::ZERO,
    }
}
