//! Signed links: the terms on which a stranger may come in.
//!
//! A link is a JWT (RFC 7519) in JWS compact form, signed with EdDSA or ES256. [`token`] takes it
//! apart and judges its claims; [`uri`] writes and reads the addresses that carry it. Time and the
//! signature check come in as arguments. A short code ([`code`]) stands for a link where a token does not fit.

pub mod code;
pub mod revoked;
pub mod token;
pub mod uri;

pub use code::{Label, LinkCode};
pub use revoked::{NEVER_EXPIRES, RevokedLink};
pub use token::{Algorithm, Claims, Header, LinkRefusal, LinkTerms};
