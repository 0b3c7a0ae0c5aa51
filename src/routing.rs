//! Who serves whom: values and decisions, without clocks or sockets.
//!
//! A session waits in its queue's [`queue::WaitingLine`]; an agent's presence and commands make up its [`agent::Readiness`];
//! [`strategy`] picks one candidate; an [`offer::Offer`] holds the session for that agent until it is answered or its time is up.
//! The connector's desk keeps the state and calls in here for each decision.

pub mod agent;
pub mod offer;
pub mod queue;
pub mod strategy;
