//! Sockets: the only users of rustls and quinn.
//!
//! ```text
//! inherited | bound ─▶ listener ─▶ negotiate (stream, tls) ─▶ a customer's or an agent's stream
//!                  └─▶ quic ─▶ carrier ─▶ frames of a tunnel
//! ```
//! [`confinement`] gives up what a role does not need once its sockets stand.

pub mod accept_rate;
pub mod allow_files;
pub mod carrier;
pub mod certificates;
pub mod client;
pub mod confinement;
pub mod crowd;
pub mod dial;
pub mod entropy;
pub mod https;
pub mod inherited;
pub mod issuer_named;
pub mod link_keys;
pub mod listener;
pub mod negotiate;
pub mod process_memory;
pub mod proxy_protocol;
pub mod quic;
pub mod shutdown;
mod signatures;
pub mod stream;
pub mod tls;
pub mod wall_clock;
