//! The tunnels' owner: one task that holds the [`RelayEnd`], the carriers' writing halves and the sessions' event queues.
//!
//! Flow: carriers and requests come in through bounded queues; after each batch its events go out to the sessions, never waiting for one
//! of them, and its frames go to the carriers as far as these have room. A session whose queue is full is cut off and counted.

mod certificates;
mod handle;
mod mailbox;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::net::carrier::{CarrierInput, Lanes, Transport, Writable};
use crate::net::entropy;
use crate::proto::tunnel::policy::{PolicyNews, PolicyVerdict};
use crate::proto::tunnel::{
    self, Admission, CarrierId, CheckId, Fin, GoAway, GoAwayReason, Identity, Open, RefusalCode, RelayCommand, RelayEnd, RelayEvent,
    SessionKey, TunnelStats,
};
use crate::session::CloseReason;
use crate::telemetry::audit::{Audit, Event};

use self::mailbox::SendFault;
use super::counters::Counters;
use super::policies::{Policies, PushedCounts};
use super::refusal_log::RefusalLog;

use self::certificates::Certificates;
pub use self::handle::{CheckAnswer, Tunnels};
pub use self::mailbox::SessionEvents;

/// Requests that may wait for the owner; a session that asks beyond it waits.
const REQUESTS: usize = 4096;

/// Events that may wait for one session: above a channel's widest credit of 64 events and the marks beside them.
const SESSION_EVENTS: usize = 256;

/// Questions that may be open at one time.
const MAX_CHECKS: usize = 256;

/// Inputs taken in one go.
const BATCH: usize = 256;

/// Refused claims of one policy that are logged one by one.
const LOGGED_CLAIMS: usize = 16;

/// How long the last frames may take to leave when the relay stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

type Verdict = Result<(), (RefusalCode, String)>;

/// The tunnels' owner.
pub struct TunnelOwner {
    end: RelayEnd,
    lanes: Lanes,
    inputs: mpsc::Receiver<CarrierInput>,
    requests: mpsc::Receiver<Request>,
    writable: Writable,
    sessions: HashMap<SessionKey, mailbox::Sender>,
    checks: HashMap<CheckId, oneshot::Sender<Verdict>>,
    next_check: u64,
    attached: watch::Sender<Arc<BTreeSet<Identity>>>,
    granted: BTreeSet<Identity>,
    policies: Arc<Policies>,
    counters: Arc<Counters>,
    refusals: RefusalLog,
    certificates: Certificates,
    /// Whose each open carrier is, and what carries it.
    standing: HashMap<CarrierId, (Identity, Transport)>,
    /// Connectors that have said that they stop.
    leaving: BTreeSet<Identity>,
    /// Why the last carrier of each connector ended.
    last_ends: BTreeMap<Identity, String>,
}

impl std::fmt::Debug for TunnelOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelOwner").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

/// What the rest of the relay asks of the owner.
#[derive(Debug)]
enum Request {
    Open { session: SessionKey, identity: Identity, open: Box<Open>, events: mailbox::Sender },
    Command(RelayCommand),
    Check { identity: Identity, admission: Box<Admission>, reply: oneshot::Sender<Verdict> },
    Certificates(certificates::Request),
    Drain(GoAway),
    Stats(oneshot::Sender<Vec<TunnelState>>),
}

/// One tunnel as its owner sees it.
#[derive(Clone, Debug)]
pub struct TunnelState {
    /// The connector's name.
    pub identity: Identity,
    /// Its counters.
    pub stats: TunnelStats,
    /// What carries it now, if anything does.
    pub transport: Option<Transport>,
    /// Whether it has said that it stops.
    pub is_leaving: bool,
    /// Why its last carrier ended.
    pub last_end: Option<String>,
    /// The version of the policy that stands; 0 for none.
    pub policy_version: u64,
    /// How much that policy is.
    pub pushed: PushedCounts,
}

impl TunnelOwner {
    /// Makes the owner and the handle to it. Carriers of identities that `policies` grant no queue are closed.
    pub fn new(
        settings: tunnel::Settings,
        policies: Arc<Policies>,
        inputs: mpsc::Receiver<CarrierInput>,
        writable: Writable,
        counters: Arc<Counters>,
        audit: Audit,
    ) -> (Self, Tunnels) {
        let (requests_in, requests) = mpsc::channel(REQUESTS);
        let (attached, attached_out) = watch::channel(Arc::default());
        let owner = Self {
            end: RelayEnd::new(settings, Box::new(entropy::sixteen)),
            lanes: Lanes::default(),
            inputs,
            requests,
            writable,
            sessions: HashMap::new(),
            checks: HashMap::new(),
            next_check: 1,
            attached,
            granted: policies.identities(),
            policies,
            counters,
            refusals: RefusalLog::new(audit),
            certificates: Certificates::default(),
            standing: HashMap::new(),
            leaving: BTreeSet::new(),
            last_ends: BTreeMap::new(),
        };
        (owner, Tunnels::new(requests_in, attached_out))
    }

    /// Runs until every handle is dropped, then lets the last frames leave.
    pub async fn run(mut self) {
        let mut carriers_open = true;
        loop {
            self.drain_events();
            self.lanes.fill(&mut self.end, now());
            let deadline = [self.end.poll_timeout(), self.lanes.poll_timeout()].into_iter().flatten().min().map(Instant::from_std);
            tokio::select! {
                input = self.inputs.recv(), if carriers_open => match input {
                    Some(input) => self.handle_carrier(input),
                    None => carriers_open = false,
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => break,
                },
                () = self.writable.notified() => {}
                () = sleep_until(deadline) => self.end.handle_timeout(now()),
            }
            // Whoever else can run does so first: what they bring leaves in the same frames and datagrams.
            tokio::task::yield_now().await;
            self.take_waiting();
        }
        self.leave().await;
    }

    /// Takes what came meanwhile, both ways, without waiting.
    fn take_waiting(&mut self) {
        for _ in 0..BATCH {
            let Ok(input) = self.inputs.try_recv() else { break };
            self.handle_carrier(input);
        }
        for _ in 0..BATCH {
            let Ok(request) = self.requests.try_recv() else { break };
            self.handle_request(request);
        }
    }

    fn handle_carrier(&mut self, input: CarrierInput) {
        match input {
            CarrierInput::Opened { carrier, identity, transport, handle } => {
                if self.granted.contains(&identity) {
                    tracing::info!(identity = %identity.0, carrier = carrier.0, transport = transport.as_str(), "carrier opened");
                    self.lanes.insert(carrier, handle);
                    self.standing.insert(carrier, (identity.clone(), transport));
                    self.end.carrier_opened(carrier, identity, now());
                } else {
                    tracing::warn!(identity = %identity.0, carrier = carrier.0, reason = "unknown-identity", "carrier refused");
                    self.counters.count("unknown-identity");
                    let reason = "unknown-identity";
                    self.refusals.audit().record(Event::Refused { stage: "tunnel", reason, address: None, queue: None, link: None });
                }
            }
            CarrierInput::Frames { carrier, lane: _, frames } => {
                if self.lanes.is_open(carrier) {
                    let now = now();
                    for frame in frames {
                        self.end.handle_frame(carrier, frame, now);
                    }
                }
            }
            CarrierInput::Lost { carrier, cause: _, why } => {
                if self.lanes.remove(carrier) {
                    tracing::info!(carrier = carrier.0, why, "carrier lost");
                    self.note_end(carrier, &why);
                    self.end.carrier_lost(carrier, now());
                }
            }
            CarrierInput::Refused { address, reason, why } => {
                self.counters.count(reason);
                self.refusals.write("tunnel", reason, address);
                tracing::debug!(%address, why, "a carrier did not come up");
            }
        }
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Open { session, identity, open, events } => {
                self.sessions.insert(session, events);
                self.end.handle_command(RelayCommand::Open { session, identity, open }, now());
            }
            Request::Command(command) => {
                if let RelayCommand::Finish { session, .. } = &command {
                    self.sessions.remove(session);
                }
                self.end.handle_command(command, now());
            }
            Request::Certificates(request) => self.certificates.handle(request, &mut self.end, &self.granted, now()),
            Request::Drain(goaway) => self.end.drain(goaway, now()),
            Request::Check { identity, admission, reply } => self.check(identity, admission, reply),
            Request::Stats(reply) => {
                let state = |(identity, stats)| {
                    let carrier = self.end.attached_carrier(&identity);
                    let transport = carrier.and_then(|carrier| self.standing.get(&carrier)).map(|(_, transport)| *transport);
                    let last_end = self.last_ends.get(&identity).cloned();
                    let policy_version = self.end.policy_version(&identity);
                    let pushed = self.policies.of(&identity).map(|pushed| pushed.counts()).unwrap_or_default();
                    let is_leaving = self.leaving.contains(&identity);
                    TunnelState { identity, stats, transport, is_leaving, last_end, policy_version, pushed }
                };
                // The asker may have given up.
                let _unheard = reply.send(self.end.stats().into_iter().map(state).collect());
            }
        }
    }

    fn check(&mut self, identity: Identity, admission: Box<Admission>, reply: oneshot::Sender<Verdict>) {
        if self.checks.len() >= MAX_CHECKS {
            self.checks.retain(|_, reply| !reply.is_closed());
        }
        if self.checks.len() >= MAX_CHECKS {
            let _unheard = reply.send(Err((RefusalCode::Busy, String::new())));
            return;
        }
        let check = CheckId(self.next_check);
        self.next_check += 1;
        self.checks.insert(check, reply);
        self.end.handle_command(RelayCommand::Check { check, identity, admission }, now());
    }

    fn drain_events(&mut self) {
        while let Some(news) = self.end.poll_policy() {
            self.handle_policy(news);
        }
        if let Some((identity, ahead_seconds)) = self.end.poll_clock() {
            self.counters.count("clock-differs");
            tracing::warn!(identity = %identity.0, ahead_seconds, "the connector's clock differs from ours: set both right (NTP)");
        }
        while let Some(event) = self.end.poll_event() {
            match &event {
                RelayEvent::OpenOk { session }
                | RelayEvent::Data { session, .. }
                | RelayEvent::Handled { session, .. }
                | RelayEvent::OwnHandled { session, .. } => self.pass_on(*session, event),
                RelayEvent::OpenRefused { session, .. } | RelayEvent::Fin { session, .. } | RelayEvent::Gone { session, .. } => {
                    let session = *session;
                    self.pass_on(session, event);
                    self.sessions.remove(&session);
                }
                RelayEvent::TunnelUp { .. } | RelayEvent::TunnelDetached { .. } => self.handle_attachment(&event),
                RelayEvent::GoAway { identity, goaway } => {
                    tracing::info!(identity = %identity.0, ?goaway, "the connector is about to go");
                    if goaway.reason == GoAwayReason::Stopping {
                        self.leaving.insert(identity.clone());
                    }
                }
                RelayEvent::Verdict { .. } => self.answer_check(event),
                RelayEvent::CloseCarrier { carrier, why } => self.close_carrier(*carrier, why),
            }
        }
        self.certificates.pass(&mut self.end);
    }

    fn handle_policy(&mut self, news: PolicyNews) {
        match news {
            PolicyNews::Whole { identity, version, policy } => {
                let verdict = self.policies.apply(&identity, *policy);
                match &verdict {
                    PolicyVerdict::Taken { refused } => {
                        self.tell_policy(&identity, version, refused.len());
                        tracing::info!(identity = %identity.0, version, refused_claims = refused.len(), "policy taken");
                        for claim in refused.iter().take(LOGGED_CLAIMS) {
                            let granted_to = self.policies.owner_of(claim).map_or("nobody", |owner| owner.0.as_str());
                            tracing::warn!(identity = %identity.0, %claim, granted_to, reason = "queue-not-granted", "a claimed queue is refused");
                        }
                        refused.iter().for_each(|_| self.counters.count("queue-not-granted"));
                    }
                    PolicyVerdict::Refused { why } => self.policy_refused(&identity, why),
                }
                self.end.judge_policy(&identity, version, &verdict, now());
            }
            PolicyNews::Dropped { identity, why } => self.policy_refused(&identity, why),
        }
    }

    fn tell_policy(&self, identity: &Identity, version: u64, refused_claims: usize) {
        let PushedCounts { keys, revoked, denied } = self.policies.of(identity).map(|pushed| pushed.counts()).unwrap_or_default();
        let identity = identity.0.clone();
        self.refusals.audit().record(Event::PolicyTaken { identity, version, keys, revoked, denied, refused_claims });
    }

    fn policy_refused(&self, identity: &Identity, reason: &'static str) {
        self.counters.count(reason);
        self.refusals.audit().record(Event::PolicyRefused { identity: identity.0.clone(), reason });
        tracing::warn!(identity = %identity.0, reason, "a policy is refused");
    }

    /// Never waits: a session that does not take its events is cut off, its neighbours notice nothing.
    fn pass_on(&mut self, session: SessionKey, event: RelayEvent) {
        let Some(events) = self.sessions.get(&session) else { return };
        match events.try_send(event) {
            Ok(()) => {}
            Err(SendFault::Full) => {
                self.counters.count("session-overflow");
                self.sessions.remove(&session);
                let fin = Fin { reason: CloseReason::Fault, text: String::new() };
                self.end.handle_command(RelayCommand::Finish { session, fin }, now());
            }
            Err(SendFault::Gone) => {
                self.sessions.remove(&session);
            }
        }
    }

    fn handle_attachment(&mut self, event: &RelayEvent) {
        if let RelayEvent::TunnelUp { identity, epoch, resumed } = event {
            tracing::info!(identity = %identity.0, epoch, resumed, "tunnel attached");
            self.refusals.audit().record(Event::TunnelAttached { peer: identity.0.clone(), epoch: Some(*epoch) });
            // Whoever still means to go says so again.
            self.leaving.remove(identity);
            self.attached.send_modify(|attached| {
                Arc::make_mut(attached).insert(identity.clone());
            });
        } else if let RelayEvent::TunnelDetached { identity } = event {
            tracing::info!(identity = %identity.0, "tunnel detached");
            self.refusals.audit().record(Event::TunnelDetached { peer: identity.0.clone() });
            self.attached.send_modify(|attached| {
                Arc::make_mut(attached).remove(identity);
            });
        }
    }

    fn answer_check(&mut self, event: RelayEvent) {
        let RelayEvent::Verdict { check, verdict } = event else { return };
        if let Some(reply) = self.checks.remove(&check) {
            // The customer may have gone.
            let _unheard = reply.send(verdict);
        }
    }

    fn close_carrier(&mut self, carrier: CarrierId, why: &str) {
        tracing::info!(carrier = carrier.0, why, "carrier closed");
        self.note_end(carrier, why);
        // A REFUSED or ERROR for the peer may still be waiting.
        self.lanes.fill(&mut self.end, now());
        self.lanes.close(carrier, now());
        self.end.carrier_lost(carrier, now());
    }

    fn note_end(&mut self, carrier: CarrierId, why: &str) {
        let Some((identity, transport)) = self.standing.remove(&carrier) else { return };
        self.last_ends.insert(identity, format!("{}: {why}", transport.as_str()));
    }

    async fn leave(&mut self) {
        let until = Instant::now() + LAST_WORDS;
        loop {
            self.end.handle_timeout(now());
            self.drain_events();
            self.lanes.fill(&mut self.end, now());
            if self.lanes.is_empty() || Instant::now() >= until {
                return;
            }
            tokio::select! {
                Some(input) = self.inputs.recv() => self.handle_carrier(input),
                () = self.writable.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
