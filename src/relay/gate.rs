//! Who may be here, by where he comes from: from the accepted connection to its end, each has a [`Permit`].
//!
//! The order, cheapest first: new connections of the address, of the network, in all; a place among those who have not logged in, for
//! which somebody else may have to give way; one among the TLS handshakes; the failures of his neighbours before his login is looked
//! at; a place among those who have logged in. For a while after a start only the rate in all counts;
//! an exempt address has no rate, and takes a place like all others.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::admission::headcount::{Bounds, Headcount};
use crate::admission::source::{Full, Source};
use crate::admission::waiting::{Ticket, Waiting};
use crate::net::accept_rate::{AcceptRate, Beyond, Ticks};
use crate::net::negotiate::Handshake;
use crate::net::shutdown::Stop;

use super::settings::{Limits, Strangers};

/// How often is forgotten what matters no more.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// Those who give way at one time. Nobody is let in before one of them has gone: a busy relay would hold far more than it has places.
const MOST_LEAVING: usize = 64;

/// The reason's code of one who gave way before he had logged in.
const GAVE_WAY: &str = "gave-way";

/// The same within his TLS handshake.
const HANDSHAKE_GAVE_WAY: &str = "handshake-gave-way";

/// All strangers and customers of one relay.
#[derive(Debug)]
pub(super) struct Gate {
    crowd: Mutex<Crowd>,
    rate: AcceptRate,
    strangers: Strangers,
    /// No prefix takes more of the places before login than half, not even after a start.
    half: Bounds,
    ticks: Ticks,
}

#[derive(Debug)]
struct Crowd {
    before_login: Waiting<Arc<Call>>,
    handshakes: Waiting<Arc<Call>>,
    logged_in: Headcount,
    /// Those who were told to give way and have not gone yet.
    leaving: usize,
}

/// Who knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knocker {
    /// A client.
    Client(IpAddr),
    /// A trusted proxy, which has yet to tell for whom.
    Proxy,
}

/// For `outgate status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GateStatus {
    /// Whether addresses and networks are not counted yet because the relay has just started.
    pub is_returning: bool,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// Addresses, networks and links that are remembered.
    pub remembered: usize,
    /// How often one had to be forgotten that still mattered, because there was no room.
    pub forgotten: u64,
}

impl Gate {
    pub(super) fn new(limits: &Limits, strangers: Strangers, ticks: Ticks) -> Self {
        let half = limits.before_login.div_ceil(2);
        Self {
            crowd: Mutex::new(Crowd {
                before_login: Waiting::new(limits.before_login),
                handshakes: Waiting::new(limits.handshakes),
                logged_in: Headcount::default(),
                leaving: 0,
            }),
            rate: AcceptRate::new(strangers.rates, ticks.clone()),
            strangers,
            half: Bounds { per_address: half, per_network: half },
            ticks,
        }
    }

    /// Lets somebody come in as far as his login.
    ///
    /// # Errors
    /// The reason's code.
    pub(super) fn knock(self: &Arc<Self>, knocker: Knocker) -> Result<Permit, &'static str> {
        let source = self.source_of(knocker);
        let charged = source.filter(|_| !self.is_returning());
        if source.is_some() {
            self.rate.admit(charged).map_err(reason_of)?;
        }
        let mut permit = Permit {
            gate: Arc::clone(self),
            source,
            charged,
            attempted: None,
            call: Arc::default(),
            before_login: None,
            handshake: None,
            stands: false,
            has_left: false,
        };
        permit.wait_for_login();
        Ok(permit)
    }

    /// Whether somebody may knock now.
    pub(super) fn has_room(&self) -> bool {
        self.crowd().leaving < MOST_LEAVING
    }

    /// The rates, for what the door charges.
    pub(super) fn rate(&self) -> &AcceptRate {
        &self.rate
    }

    pub(super) fn status(&self) -> GateStatus {
        GateStatus {
            is_returning: self.is_returning(),
            handshakes: self.crowd().handshakes.len(),
            remembered: self.rate.remembered(),
            forgotten: self.rate.forgotten(),
        }
    }

    /// Forgets now and then what matters no more, until `stop`.
    pub(super) async fn keep_clean(self: Arc<Self>, mut stop: Stop) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(CLEAN_EVERY) => self.rate.clean(),
                () = stop.requested() => return,
            }
        }
    }

    /// None for who is not counted by where he comes from.
    fn source_of(&self, knocker: Knocker) -> Option<Source> {
        match knocker {
            Knocker::Client(address) if !self.strangers.exempt.allows(address) => Some(Source::of(address)),
            Knocker::Client(_) | Knocker::Proxy => None,
        }
    }

    fn is_returning(&self) -> bool {
        self.ticks.elapsed() < self.strangers.returning
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    fn send_away(&mut self, leaves: Option<Arc<Call>>, reason: &'static str) {
        if let Some(call) = leaves.filter(|call| call.send_away(reason)) {
            self.leaving += 1;
            drop(call);
        }
    }
}

/// What one connection holds at the gate. Dropping it gives all places back.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    source: Option<Source>,
    /// Where it was charged as a new connection.
    charged: Option<Source>,
    /// Where a login was charged that may fail.
    attempted: Option<Source>,
    call: Arc<Call>,
    before_login: Option<Ticket>,
    handshake: Option<Ticket>,
    /// Whether it is counted among those who have logged in.
    stands: bool,
    /// Whether it has gone after it was told to.
    has_left: bool,
}

impl Permit {
    /// A proxy has told for whom it knocks: he is judged as if he had knocked himself.
    ///
    /// # Errors
    /// The reason's code.
    pub(super) fn identify(&mut self, client: IpAddr) -> Result<(), &'static str> {
        self.leave();
        *self = self.gate.knock(Knocker::Client(client))?;
        Ok(())
    }

    /// The word that this connection is to give way to another.
    pub(super) fn call(&self) -> Arc<Call> {
        Arc::clone(&self.call)
    }

    /// Its TLS handshake begins or is over.
    pub(super) fn handshake(&mut self, handshake: Handshake) {
        match handshake {
            Handshake::Begins => {
                let mut crowd = self.gate.crowd();
                let (ticket, leaves) = crowd.handshakes.enter(self.source, Bounds::NONE, self.call());
                self.handshake = Some(ticket);
                crowd.send_away(leaves, HANDSHAKE_GAVE_WAY);
            }
            Handshake::Over => {
                if let Some(ticket) = self.handshake.take() {
                    self.gate.crowd().handshakes.leave(ticket);
                }
            }
        }
    }

    /// Charges a login before it is looked at.
    ///
    /// # Errors
    /// Nobody from there is listened to for so long.
    pub(super) fn attempt(&mut self) -> Result<(), Duration> {
        let Some(source) = self.source else { return Ok(()) };
        self.gate.rate.attempt(source)?;
        self.attempted = Some(source);
        Ok(())
    }

    /// The login that was charged did not fail, or not by the customer's fault.
    pub(super) fn forgive(&mut self) {
        if let Some(source) = self.attempted.take() {
            self.gate.rate.forgive(source);
        }
    }

    /// The customer may come in: he leaves those who wait and stands among those who have logged in.
    ///
    /// # Errors
    /// The reason's code; he waits on.
    pub(super) fn log_in(&mut self) -> Result<(), &'static str> {
        let mut crowd = self.gate.crowd();
        if let Some(source) = self.source.filter(|_| !self.stands && !self.gate.is_returning()) {
            crowd.logged_in.enter(source, self.gate.strangers.logged_in).map_err(|full| match full {
                Full::Address => "address-full",
                Full::Network => "network-full",
            })?;
            self.stands = true;
        }
        if let Some(ticket) = self.before_login.take() {
            crowd.before_login.leave(ticket);
        }
        Ok(())
    }

    /// The customer was here before: his connection is not counted as new.
    pub(super) fn give_back(&mut self) {
        if let Some(source) = self.charged.take() {
            self.gate.rate.give_back(source);
        }
    }

    fn wait_for_login(&mut self) {
        let bounds = if self.gate.is_returning() { self.gate.half } else { self.gate.strangers.before_login };
        let mut crowd = self.gate.crowd();
        let (ticket, leaves) = crowd.before_login.enter(self.source, bounds, self.call());
        self.before_login = Some(ticket);
        crowd.send_away(leaves, GAVE_WAY);
    }

    /// Gives all places back.
    fn leave(&mut self) {
        let mut crowd = self.gate.crowd();
        if let Some(ticket) = self.before_login.take() {
            crowd.before_login.leave(ticket);
        }
        if let Some(ticket) = self.handshake.take() {
            crowd.handshakes.leave(ticket);
        }
        if let Some(source) = self.source.filter(|_| self.stands) {
            crowd.logged_in.leave(source);
            self.stands = false;
        }
        if self.call.reason.get().is_some() && !std::mem::replace(&mut self.has_left, true) {
            crowd.leaving = crowd.leaving.saturating_sub(1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The word to give way.
#[derive(Debug, Default)]
pub(super) struct Call {
    reason: OnceLock<&'static str>,
    told: Notify,
}

impl Call {
    /// Waits until this connection is to give way, which may be never; the reason's code.
    pub(super) async fn sent_away(&self) -> &'static str {
        loop {
            if let Some(reason) = self.reason.get() {
                return reason;
            }
            self.told.notified().await;
        }
    }

    /// Tells it, unless it was told before.
    fn send_away(&self, reason: &'static str) -> bool {
        let is_first = self.reason.set(reason).is_ok();
        if is_first {
            self.told.notify_one();
        }
        is_first
    }
}

fn reason_of(beyond: Beyond) -> &'static str {
    match beyond {
        Beyond::Source(Full::Address) => "address-rate",
        Beyond::Source(Full::Network) => "network-rate",
        Beyond::InAll => "connection-rate",
    }
}

#[cfg(test)]
mod tests;
