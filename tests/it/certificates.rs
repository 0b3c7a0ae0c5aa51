//! Certificates that look after themselves, on real sockets: enrolment, renewal, revocation, roll-over, reload (fault 29).

mod clock;
mod expiry;
mod reload;
mod renewal;
mod revocation;
mod roll;
mod service;
mod site;
