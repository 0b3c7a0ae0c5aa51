//! Sans-IO protocols: bytes on one side, values on the other. No sockets, clocks, randomness or tasks.

pub mod client_hello;
pub mod enrolment;
pub mod http_connect;
pub mod socks5;
pub mod tunnel;
pub mod xmpp;
