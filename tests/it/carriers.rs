//! Promises of the carriers on real sockets: they find a way to the relay, and back to the better one, and what fails on the way
//! is told in words.

mod addresses;
mod crowds;
pub(crate) mod proxies;
mod transports;
mod wires;
