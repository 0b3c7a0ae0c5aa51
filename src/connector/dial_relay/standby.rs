//! Alternates: relays that are dialled in another's stead, each with a tunnel of its own.
//!
//! A relay that stops takes the tunnel to it along. Its alternates are called while it cannot be reached, and those that it names when it
//! says GOAWAY: the tunnel to them stands before the other ends, which goes on with the sessions it has. Only relays that the
//! configuration names are ever called. One that was called stays until its carrier is lost; then it is dialled no more, unless it
//! is called again.

use tokio::sync::watch;

use crate::proto::tunnel::{GoAway, GoAwayReason};

use super::RelayAddress;
use super::link::{Aim, Link, now};

/// When a relay is dialled, and whom it calls.
#[derive(Debug)]
pub(super) enum Duty {
    /// Always; it calls its alternates.
    Always(Vec<(String, watch::Sender<bool>)>),
    /// When it is called.
    Standby(watch::Receiver<bool>),
}

/// Each relay with its duty, followed by its alternates with theirs.
pub(super) fn with_standbys(relays: Vec<RelayAddress>) -> Vec<(RelayAddress, Duty)> {
    let mut all = Vec::new();
    for relay in relays {
        let (mut calls, mut standbys) = (Vec::new(), Vec::new());
        for address in &relay.alternates {
            let (call, called) = watch::channel(false);
            calls.push((address.clone(), call));
            let standby = RelayAddress { address: address.clone(), alternates: Vec::new(), ..relay.clone() };
            standbys.push((standby, Duty::Standby(called)));
        }
        all.push((relay, Duty::Always(calls)));
        all.append(&mut standbys);
    }
    all
}

impl Duty {
    pub(super) fn is_standby(&self) -> bool {
        matches!(self, Self::Standby(_))
    }

    /// Whether the relay is to be dialled.
    pub(super) fn is_called(&self) -> bool {
        match self {
            Self::Always(_) => true,
            Self::Standby(called) => *called.borrow(),
        }
    }

    /// Waits until that changes.
    pub(super) async fn changed(&mut self) {
        if let Self::Standby(called) = self
            && called.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// The relay cannot be reached.
    pub(super) fn call_all(&self) {
        self.call(|_| true);
    }

    /// The relay names these; only those count that its configuration names too.
    pub(super) fn call_named(&self, names: &[String]) {
        self.call(|address| names.contains(address));
    }

    /// The relay is there.
    pub(super) fn call_none(&self) {
        let Self::Always(alternates) = self else { return };
        for (_, call) in alternates {
            call.send_if_modified(std::mem::take);
        }
    }

    fn call(&self, is_meant: impl Fn(&String) -> bool) {
        let Self::Always(alternates) = self else { return };
        for (_, call) in alternates.iter().filter(|(address, _)| is_meant(address)) {
            call.send_if_modified(|called| !std::mem::replace(called, true));
        }
    }
}

impl Link {
    /// The relay, or the carrier, is about to go. Another carrier to a process that stops would gain nothing.
    pub(super) fn handle_goaway(&mut self, goaway: &GoAway) {
        tracing::info!(relay = self.relay.address, ?goaway, "the relay, or the carrier, is about to go");
        match goaway.reason {
            GoAwayReason::CarrierEnds => self.preference.is_leaving(now()),
            GoAwayReason::Stopping => {
                self.is_left = true;
                self.duty.call_named(&goaway.alternates);
                self.report_at = Some(now());
            }
        }
    }

    /// An alternate was called, or is needed no more.
    pub(super) fn handle_duty(&mut self) {
        if self.duty.is_called() {
            tracing::info!(relay = self.relay.address, "called in another relay's stead");
            self.pace.given_up(now());
        } else if self.round.as_ref().is_some_and(|round| round.aim == Aim::Attach) {
            self.abandon_round();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::proxy::TransportChoice;
    use crate::connector::dial_relay::{CLIMB_EVERY, Resolver};

    fn relay() -> RelayAddress {
        RelayAddress {
            address: "relay.test:1".to_owned(),
            alternates: vec!["second.test:2".to_owned(), "third.test:3".to_owned()],
            server_name: "relay.test".to_owned(),
            transport: TransportChoice::Auto,
            switch_every: Duration::ZERO,
            climb_every: CLIMB_EVERY,
            proxy: None,
            resolver: Resolver::System,
        }
    }

    fn called(all: &[(RelayAddress, Duty)]) -> Vec<&str> {
        all.iter().filter(|(_, duty)| duty.is_called()).map(|(relay, _)| relay.address.as_str()).collect()
    }

    #[test]
    fn only_who_is_configured_is_ever_called() {
        let all = with_standbys(vec![relay()]);
        assert_eq!(called(&all), ["relay.test:1"]);
        let duty = &all[0].1;
        duty.call_named(&["elsewhere.test:9".to_owned(), "third.test:3".to_owned(), "relay.test:1".to_owned()]);
        assert_eq!(called(&all), ["relay.test:1", "third.test:3"]);
        duty.call_none();
        assert_eq!(called(&all), ["relay.test:1"]);
        duty.call_all();
        assert_eq!(called(&all), ["relay.test:1", "second.test:2", "third.test:3"]);
        all[1].1.call_all();
        assert_eq!(all[2].0.server_name, "relay.test", "whoever it is, his certificate has this name");
    }
}
