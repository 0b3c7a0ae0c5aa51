//! The task of one relay.
//!
//! Events wait in the backlog while the desk is busy; frames are read meanwhile, so that a store that stalls costs no carrier. Commands
//! are always taken, also while a name is looked up. Where there is no carrier, a round of dials follows the other at the pace of `pace`; what opens is offered to the
//! tunnel's end, and the first that is attached ends the round. A carrier is changed by a round beside the one that stands.

mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::net::carrier::{CarrierInput, Carriers, Cause, Dial, Lanes, Transport};
use crate::net::entropy;
use crate::net::shutdown::Stop;
use crate::proto::tunnel::policy::PolicyAnswer;
use crate::proto::tunnel::{self, CarrierId, ConnectorEnd, ConnectorEvent};
use crate::telemetry::HOP;

use super::backlog::Backlog;
use super::certificates::CertificateLink;
use super::lookup::Lookup;
use super::pace::Pace;
use super::preference::{Change, Preference};
use super::race::{Attempt, Race};
use super::standby::Duty;
use super::ways::Ways;
use super::{RelayAddress, Request, TunnelStatus};
use crate::connector::desk::{Input, RelayIndex};
use crate::connector::policy;

/// Inputs or commands taken at once.
const BATCH: usize = 256;

pub(super) struct Link {
    index: RelayIndex,
    pub(super) relay: RelayAddress,
    pub(super) duty: Duty,
    pub(super) end: ConnectorEnd,
    carriers: Carriers,
    lanes: Lanes,
    pub(super) ways: Ways,
    pub(super) pace: Pace,
    pub(super) preference: Preference,
    pub(super) round: Option<Round>,
    /// What every open carrier came of.
    standing: BTreeMap<CarrierId, Attempt>,
    /// The carrier that carries the tunnel.
    pub(super) attached: Option<(CarrierId, Attempt)>,
    /// The relay's addresses as last found.
    known: Vec<SocketAddr>,
    /// What the desk had no room for yet.
    backlog: Backlog,
    /// When the status is to be told anew.
    pub(super) report_at: Option<Instant>,
    last_end: Option<String>,
    certificates: CertificateLink,
    /// Whether the relay has said that it stops.
    pub(super) is_left: bool,
    /// What the relay last said of the policy.
    policy: PolicyAnswer,
    status: watch::Sender<Vec<TunnelStatus>>,
}

/// What a round of dials is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// There is no carrier.
    Attach,
    /// There is one, and another is sought.
    Change(Change),
}

/// A round of dials.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) aim: Aim,
    race: Race,
    pub(super) dials: BTreeMap<CarrierId, (Dial, Attempt)>,
    /// The last fault of each transport.
    faults: BTreeMap<Transport, String>,
    /// What must pass before the next round.
    pause: Option<Duration>,
}

impl Link {
    pub(super) fn new(
        index: RelayIndex,
        (relay, duty): (RelayAddress, Duty),
        end: ConnectorEnd,
        carriers: Carriers,
        ways: Ways,
        certificates: CertificateLink,
        status: watch::Sender<Vec<TunnelStatus>>,
    ) -> Self {
        let preference = Preference::new(relay.transport, relay.proxy.is_some(), relay.switch_every, relay.climb_every);
        Self {
            index,
            relay,
            duty,
            end,
            carriers,
            lanes: Lanes::default(),
            ways,
            pace: Pace::new(now()),
            preference,
            round: None,
            standing: BTreeMap::new(),
            attached: None,
            known: Vec::new(),
            backlog: Backlog::default(),
            report_at: Some(now()),
            last_end: None,
            certificates,
            is_left: false,
            policy: PolicyAnswer::default(),
            status,
        }
    }

    pub(super) async fn run(
        mut self,
        mut carrier_inputs: mpsc::Receiver<CarrierInput>,
        mut requests: mpsc::Receiver<Request>,
        desk: mpsc::Sender<Input>,
        mut policy: policy::Latest,
        mut stop: Stop,
    ) {
        let writable = self.carriers.writable();
        let mut frames = Vec::with_capacity(BATCH);
        let mut asked = Vec::with_capacity(BATCH);
        let mut lookup = Lookup::default();
        loop {
            self.drain_events();
            self.backlog.pass_on(&desk);
            self.lanes.hold_data(self.backlog.is_long());
            self.certificates.pass(&mut self.end, now());
            self.lanes.fill(&mut self.end, now());
            self.report_if_due();
            let due = self.poll_timeout();
            tokio::select! {
                _taken = carrier_inputs.recv_many(&mut frames, BATCH), if !self.backlog.is_full() => {}
                taken = requests.recv_many(&mut asked, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                }
                permit = desk.reserve(), if !self.backlog.is_empty() => {
                    let Ok(permit) = permit else { break };
                    self.backlog.pass_one_on(permit);
                }
                () = writable.notified() => {}
                () = self.certificates.changed() => {}
                () = self.duty.changed() => self.handle_duty(),
                latest = policy::next(&mut policy) => latest.into_iter().for_each(|latest| self.end.push_policy(latest)),
                found = lookup.done() => self.handle_addresses(found),
                () = wait_until(due) => self.handle_timeout(&mut lookup),
                () = stop.requested() => break,
            }
            // Whoever else can run does so first: what they bring leaves in the same frames and datagrams.
            tokio::task::yield_now().await;
            while !self.backlog.is_full()
                && frames.len() < BATCH
                && let Ok(input) = carrier_inputs.try_recv()
            {
                frames.push(input);
            }
            while asked.len() < BATCH
                && let Ok(request) = requests.try_recv()
            {
                asked.push(request);
            }
            if !frames.is_empty() || !asked.is_empty() {
                self.report_soon();
            }
            frames.drain(..).for_each(|input| self.handle_carrier(input));
            asked.drain(..).for_each(|request| self.handle_request(request));
        }
        drop(self.lanes);
        self.carriers.shutdown().await;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let dialling = match (&self.round, &self.attached) {
            (Some(round), _) => round.race.poll_timeout(),
            (None, Some(_)) => self.preference.poll_timeout(),
            (None, None) if self.standing.is_empty() && self.duty.is_called() => self.pace.dial_at(),
            (None, None) => None,
        };
        [self.end.poll_timeout(), self.lanes.poll_timeout(), dialling, self.report_at].into_iter().flatten().min()
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Command(command) => self.end.handle_command(command, now()),
            Request::Drain(goaway, told) => {
                self.end.drain(goaway, now());
                self.report();
                // Who asked may have given up.
                let _unheard = told.send(());
            }
            Request::Certificate(id, answer) => self.end.answer_certificate(id, &answer, now()),
            Request::Reattach => {
                self.abandon_round();
                let open: Vec<CarrierId> = self.lanes.open().collect();
                for carrier in open {
                    self.lanes.remove(carrier);
                    self.end.carrier_lost(carrier, now());
                    self.handle_end(carrier, Cause::Ours, "an operator asked for a new one");
                }
                self.preference.forget_faults();
                self.pace.given_up(now());
            }
        }
    }

    pub(super) fn handle_carrier(&mut self, input: CarrierInput) {
        match input {
            CarrierInput::Opened { carrier, identity, transport, handle } => {
                // One that was given up may have come up all the same: with its handle it goes.
                let Some((_, attempt)) = self.round.as_mut().and_then(|round| round.dials.remove(&carrier)) else { return };
                let (relay, transport) = (&self.relay.address, transport.as_str());
                tracing::info!(relay, identity = %identity.0, carrier = carrier.0, transport, "carrier opened");
                self.standing.insert(carrier, attempt);
                self.lanes.insert(carrier, handle);
                self.end.carrier_opened(carrier, now());
            }
            CarrierInput::Frames { carrier, lane: _, frames } => {
                if self.lanes.is_open(carrier) {
                    for frame in frames {
                        self.end.handle_frame(carrier, frame, now());
                    }
                }
            }
            // Nothing is accepted here.
            CarrierInput::Refused { .. } => {}
            CarrierInput::Lost { carrier, cause, why } => {
                if let Some((_, attempt)) = self.round.as_mut().and_then(|round| round.dials.remove(&carrier)) {
                    self.handle_failure(attempt, cause, &why);
                } else if self.lanes.remove(carrier) {
                    self.end.carrier_lost(carrier, now());
                    self.handle_end(carrier, cause, &why);
                }
            }
        }
    }

    /// An open carrier is gone, which the tunnel's end knows already.
    fn handle_end(&mut self, carrier: CarrierId, cause: Cause, why: &str) {
        let Some(attempt) = self.standing.remove(&carrier) else { return };
        let (relay, transport) = (&self.relay.address, attempt.transport.as_str());
        let was_attached = self.attached.take_if(|(attached, _)| *attached == carrier).is_some();
        // A candidate that is lost is a dial that failed; one that lost a race whose winner has not been told of yet is none.
        let is_beaten = was_attached || self.attached.is_none();
        if is_beaten && self.end.attached_carrier().is_some_and(|successor| successor != carrier) {
            return tracing::info!(relay, carrier = carrier.0, transport, why, "carrier given up");
        }
        if !was_attached {
            tracing::debug!(relay, carrier = carrier.0, transport, why, "carrier not needed");
            return self.handle_failure(attempt, cause, why);
        }
        tracing::warn!(relay, carrier = carrier.0, transport, why, "carrier lost");
        self.last_end = Some(format!("{transport}: {why}"));
        self.preference.ended(attempt.transport, cause, now());
        self.pace.lost(now(), chance());
        if let Some(round) = &mut self.round {
            round.aim = Aim::Attach;
        }
        self.report_at = Some(now());
    }

    /// A dial, or the carrier that came of it, failed before it was attached.
    fn handle_failure(&mut self, attempt: Attempt, cause: Cause, why: &str) {
        tracing::debug!(relay = self.relay.address, transport = attempt.transport.as_str(), target = ?attempt.target, why, "dial failed");
        if attempt.transport == Transport::Quic {
            self.ways.forget();
        }
        let pause = self.preference.failed(attempt.transport, cause, now());
        let Some(round) = &mut self.round else { return };
        if matches!(cause, Cause::Inspected | Cause::Configuration) {
            tracing::warn!(relay = self.relay.address, transport = attempt.transport.as_str(), why, "only an admin can mend this");
        }
        round.faults.insert(attempt.transport, why.to_owned());
        round.pause = round.pause.max(pause);
        round.race.failed(attempt.transport, now());
        self.end_round_if_over();
    }

    fn end_round_if_over(&mut self) {
        let Some(Round { aim, faults, pause, .. }) = self.round.take_if(|round| round.race.is_over()) else { return };
        let words: Vec<String> = faults.iter().map(|(transport, why)| format!("{}: {why}", transport.as_str())).collect();
        let why = if words.is_empty() { "its name has no address".to_owned() } else { words.join("; ") };
        match (aim, &self.attached) {
            (Aim::Change(change), Some((_, attempt))) => {
                tracing::info!(relay = self.relay.address, why, ?change, "the carrier stays");
                self.preference.unchanged(attempt.transport, change, now(), chance());
            }
            (Aim::Attach | Aim::Change(_), _) => {
                let mut retry = self.pace.failed(now(), chance());
                if let Some(pause) = pause {
                    self.pace.no_sooner(now() + pause);
                    retry = pause;
                }
                tracing::warn!(relay = self.relay.address, why, retry_ms = retry.as_millis(), "cannot reach the relay");
                self.last_end = Some(why);
                self.report_at = Some(now());
                self.duty.call_all();
            }
        }
    }

    fn handle_timeout(&mut self, lookup: &mut Lookup) {
        self.end.handle_timeout(now());
        if self.round.is_none() {
            let aim = match self.attached {
                Some(_) => self.preference.due(now()).map(Aim::Change),
                None => (self.standing.is_empty() && self.duty.is_called() && self.pace.is_due(now())).then_some(Aim::Attach),
            };
            if let Some(aim) = aim {
                self.begin_round(aim);
                lookup.begin(self.relay.address.clone(), &self.relay.resolver);
            }
        }
        self.dial_due();
    }

    pub(super) fn begin_round(&mut self, aim: Aim) {
        let field = match aim {
            Aim::Attach => self.preference.field(now()),
            Aim::Change(change) => {
                tracing::info!(relay = self.relay.address, ?change, "looking for another carrier");
                // What a change is to find out is whether a new flow gets through.
                self.ways.forget();
                let transport = self.attached.map(|(_, attempt)| attempt.transport);
                self.preference.field_for(change, transport, now())
            }
        };
        let race = Race::new(field, now());
        self.round = Some(Round { aim, race, dials: BTreeMap::new(), faults: BTreeMap::new(), pause: None });
    }

    pub(super) fn handle_addresses(&mut self, found: Result<Vec<SocketAddr>, String>) {
        match found {
            Ok(addresses) if !addresses.is_empty() => self.known = addresses,
            Ok(_) => {}
            Err(why) => {
                let known = self.known.len();
                tracing::warn!(relay = self.relay.address, why, known, "going by the addresses that were found before");
                if let Some(round) = self.round.as_mut().filter(|_| known == 0) {
                    round.faults.insert(Transport::Quic, why);
                }
            }
        }
        if let Some(round) = &mut self.round {
            if self.known.is_empty() { round.race.no_addresses(now()) } else { round.race.addresses(&self.known, now()) }
        }
        self.dial_due();
        self.end_round_if_over();
    }

    fn dial_due(&mut self) {
        while let Some(round) = &mut self.round {
            let Some(attempt) = round.race.due(now()) else { return };
            match self.ways.dial(attempt, &mut self.carriers) {
                Ok(dial) => {
                    round.dials.insert(dial.carrier, (dial, attempt));
                }
                Err(why) => self.handle_failure(attempt, Cause::Unreachable, &why),
            }
        }
    }

    fn handle_attached(&mut self, epoch: u64, resumed: bool) {
        let Some(winner) = self.end.attached_carrier() else { return };
        let Some(&attempt) = self.standing.get(&winner) else { return };
        let transport = self.ways.describe(attempt);
        tracing::info!(relay = self.relay.address, epoch, resumed, carrier = winner.0, transport, "tunnel attached");
        self.abandon_round();
        self.is_left = false;
        self.duty.call_none();
        self.attached = Some((winner, attempt));
        self.preference.attached(attempt.transport, attempt.target, now(), chance());
        self.pace.attached(now());
        let losers: Vec<CarrierId> = self.standing.keys().copied().filter(|carrier| *carrier != winner).collect();
        for loser in losers {
            self.standing.remove(&loser);
            self.lanes.close(loser, now());
            self.end.carrier_lost(loser, now());
        }
        self.report_at = Some(now());
    }

    /// A candidate has proven itself; no other may come in its way.
    fn switch_to(&mut self, carrier: CarrierId) {
        let Some(Aim::Change(change)) = self.round.as_ref().map(|round| round.aim) else { return };
        if self.end.switch_to(carrier, now()) {
            tracing::info!(relay = self.relay.address, carrier = carrier.0, ?change, "changing the carrier");
            self.last_end = self.attached.map(|(_, attempt)| format!("{}: replaced ({change:?})", attempt.transport.as_str()));
        }
    }

    pub(super) fn abandon_round(&mut self) {
        if let Some(round) = self.round.take() {
            round.dials.into_values().for_each(|(dial, _)| dial.give_up());
        }
    }

    pub(super) fn drain_events(&mut self) {
        if let Some(ahead_seconds) = self.end.poll_clock() {
            tracing::warn!(relay = self.relay.address, ahead_seconds, "the relay's clock differs from ours: set both right (NTP)");
        }
        while let Some(answer) = self.end.poll_policy_answer() {
            self.handle_policy_answer(answer);
        }
        while let Some(event) = self.end.poll_event() {
            match &event {
                ConnectorEvent::CloseCarrier { carrier, why } => {
                    self.lanes.fill(&mut self.end, now());
                    self.lanes.close(*carrier, now());
                    self.end.carrier_lost(*carrier, now());
                    let cause = if why == tunnel::SILENT { Cause::Silent } else { Cause::Broken };
                    self.handle_end(*carrier, cause, why);
                    continue;
                }
                ConnectorEvent::Refused { code, retry_after } => {
                    tracing::warn!(relay = self.relay.address, code, retry_ms = retry_after.as_millis(), "the relay refused");
                    self.last_end = Some(format!("the relay refused: {code}"));
                    self.abandon_round();
                    self.pace.no_sooner(now() + *retry_after);
                    self.pace.failed(now(), chance());
                }
                ConnectorEvent::Attached { epoch, resumed } => {
                    self.certificates.attached();
                    self.handle_attached(*epoch, *resumed);
                }
                ConnectorEvent::CandidateReady { carrier } => {
                    self.switch_to(*carrier);
                    continue;
                }
                ConnectorEvent::GoAway { goaway } => {
                    self.handle_goaway(goaway);
                    continue;
                }
                ConnectorEvent::Detached => {
                    tracing::warn!(relay = self.relay.address, "tunnel detached");
                }
                ConnectorEvent::Open { .. }
                | ConnectorEvent::Data { .. }
                | ConnectorEvent::Counted { .. }
                | ConnectorEvent::Own { .. }
                | ConnectorEvent::OutHandled { .. }
                | ConnectorEvent::Fin { .. }
                | ConnectorEvent::Reset { .. }
                | ConnectorEvent::Check { .. } => {}
            }
            if let ConnectorEvent::Data { number, .. } = &event {
                tracing::trace!(target: HOP, "connector: event {number} came through the tunnel");
            }
            self.backlog.push(Input::Tunnel { relay: self.index, event });
        }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let [a, b, c, d, ..] = entropy::sixteen();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the tunnel's pure end")]
pub(super) fn now() -> Instant {
    Instant::now()
}
