//! Conversations between real clients, each behind a small driver (tests/drivers) that speaks one JSON object a line.
//!
//! [`driver`] starts a client and waits for what it shows; [`prosody`] is a neutral server on which the drivers prove
//! themselves ([`drivers`]); [`demo`] is the stack under test, on which every pair of clients talks ([`matrix`]).

mod demo;
pub(crate) mod driver;
mod drivers;
pub(crate) mod matrix;
mod needs;
pub(crate) mod prosody;

pub(crate) use driver::{Driver, Event, Kind, Login, Tls};
pub(crate) use needs::{Needs, drivers_home};
