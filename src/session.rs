//! A customer's conversation: its names and its phases.

use std::fmt;

use uuid::Uuid;

/// Names one session for its whole life. A UUIDv7, minted by the connector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub Uuid);

impl SessionId {
    /// Makes an id from the time in milliseconds since the Unix epoch and ten random bytes (RFC 9562 §5.7).
    pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes a replayed OPEN recognisable: 128 random bits from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpenId(pub [u8; 16]);

/// Proves that a relay held the session before: 128 random bits from the relay, never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionSecret(pub [u8; 16]);

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(MASKED)")
    }
}

/// Which way an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the customer to the LAN.
    In,
    /// From the LAN to the customer.
    Out,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The customer closed it.
    CustomerLeft,
    /// The customer's connection was lost and could not be resumed.
    CustomerLost,
    /// The agent said `!done`.
    AgentDone,
    /// One side is stopping.
    Shutdown,
    /// The tunnel stayed away longer than the detach window.
    DetachExpired,
    /// The store is older than what was acknowledged.
    StoreRegressed,
    /// A fault of our own or of the other side.
    Fault,
}

impl CloseReason {
    /// The word used in records, logs and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CustomerLeft => "customer-left",
            Self::CustomerLost => "customer-lost",
            Self::AgentDone => "agent-done",
            Self::Shutdown => "shutdown",
            Self::DetachExpired => "detach-expired",
            Self::StoreRegressed => "store-regressed",
            Self::Fault => "fault",
        }
    }
}
