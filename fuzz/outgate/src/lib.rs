//! The product's pure floors 0 and 1 as they are, linked in without the rest: a fuzzer needs its own flags for what it fuzzes, and
//! would otherwise build the TLS, QUIC and SQL libraries once more.
//!
//! Their cryptography is `ring`'s here, which has the same interface as aws-lc-rs and builds in a fraction of its time.

#![allow(dead_code, deprecated, reason = "only a part of the product is compiled here, and ring deprecates what aws-lc-rs does not")]

pub mod fingerprint;
pub mod im;
/// Links, as far as the protocols name them.
pub mod link {
    mod revoked;
    pub use self::revoked::{NEVER_EXPIRES, RevokedLink};
}
/// What reads strangers' bytes.
pub mod proto {
    pub mod client_hello;
    pub mod http_connect;
    pub mod socks5;
    pub mod tunnel;
    pub mod xmpp;
}
pub mod session;
