//! Sans-IO protocols: bytes on one side, values on the other. No sockets, clocks, randomness or tasks.

pub mod tunnel;
pub mod xmpp;
