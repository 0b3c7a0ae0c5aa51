//! What the audit log tells.

use std::collections::BTreeMap;

use serde::Serialize;

/// One decision. Texts in it are names out of configurations, certificates and verified links, or words of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The process serves.
    Started {
        /// "relay" or "connector".
        role: &'static str,
        /// The program's version.
        version: &'static str,
    },
    /// Somebody was not let in, or a stream did not become a session.
    Refused {
        /// Where: "address", "connection", "login", "tunnel", "open".
        stage: &'static str,
        /// The reason's code.
        reason: &'static str,
        /// His address, as far as it is written.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// The queue that he asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        /// The hash of the link that he showed.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<String>,
    },
    /// The relay let a customer in.
    Admitted {
        /// His address, as far as it is written.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// His queue's address.
        queue: String,
        /// His link; none for public entry.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<LinkMark>,
        /// How his client said hello in TLS.
        #[serde(skip_serializing_if = "Option::is_none")]
        ja4: Option<String>,
    },
    /// A customer's stream ended at the relay.
    Left {
        /// His address, as far as it is written.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// His queue's address.
        queue: String,
        /// The reason's code.
        reason: &'static str,
    },
    /// The connector began a session.
    SessionOpened {
        /// Which.
        session: String,
        /// Its queue.
        queue: String,
    },
    /// A session used its link.
    LinkUsed {
        /// Which.
        session: String,
        /// The link.
        link: LinkMark,
        /// How many sessions it has opened, this one among them.
        uses: u32,
    },
    /// An admin took a link back.
    LinkRevoked {
        /// Its issuer, where one was named.
        #[serde(skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
        /// Its `jti`.
        jti: String,
        /// Sessions that ended with it.
        ended: usize,
    },
    /// A session's customer came again.
    SessionAttached {
        /// Which.
        session: String,
        /// How often he has come.
        attachment: u32,
    },
    /// The connector ended a session.
    SessionClosed {
        /// Which.
        session: String,
        /// The reason's code.
        reason: &'static str,
    },
    /// An agent took a session.
    SessionTaken {
        /// Which.
        session: String,
        /// Who.
        agent: String,
    },
    /// The configuration was read again.
    Reloaded {
        /// Who asked for it.
        by: By,
        /// What is in force now and was not before.
        changed: Vec<&'static str>,
        /// What waits for a restart.
        needs_restart: Vec<&'static str>,
    },
    /// The configuration was read again and not taken up.
    ReloadRefused {
        /// Who asked for it.
        by: By,
        /// What is wrong with it.
        fault: String,
    },
    /// A file that is looked at by itself has changed and is in force.
    FileTaken {
        /// What it holds: "access.client", "access.tunnel", "link keys".
        what: &'static str,
        /// How much it is now.
        entries: usize,
    },
    /// What a connector pushed is in force at the relay.
    PolicyTaken {
        /// Whose.
        identity: String,
        /// Its version.
        version: u64,
        /// Link keys, revoked links and refused kinds of software in it.
        keys: usize,
        /// Revoked links in it.
        revoked: usize,
        /// Refused kinds of software in it.
        denied: usize,
        /// Claims in it that the relay's files do not grant.
        refused_claims: usize,
    },
    /// What a connector pushed is not taken.
    PolicyRefused {
        /// Whose.
        identity: String,
        /// The reason's code.
        reason: &'static str,
    },
    /// A tunnel has a carrier.
    TunnelAttached {
        /// The other end.
        peer: String,
        /// Its epoch.
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
    },
    /// A tunnel has lost its carrier.
    TunnelDetached {
        /// The other end.
        peer: String,
    },
    /// The process ends.
    Stopped,
    /// Events without a line of their own.
    LeftOut {
        /// How many.
        count: u64,
        /// How many of each reason or event.
        of: BTreeMap<&'static str, u64>,
    },
}

/// Which link: never the link itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkMark {
    /// Who signed it.
    pub issuer: String,
    /// With which key.
    pub kid: String,
    /// The beginning of its SHA-256, in hexadecimal.
    pub hash: String,
}

/// Who asked for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// SIGHUP.
    Signal,
    /// `outgate reload`, over the admin socket.
    Command,
}

/// By what rate an event is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whoever is outside can bring about any number of them.
    Refusal,
    Other,
}

impl Event {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Refused { .. } => Kind::Refusal,
            Self::Started { .. }
            | Self::Admitted { .. }
            | Self::Left { .. }
            | Self::SessionOpened { .. }
            | Self::LinkUsed { .. }
            | Self::LinkRevoked { .. }
            | Self::SessionAttached { .. }
            | Self::SessionClosed { .. }
            | Self::SessionTaken { .. }
            | Self::Reloaded { .. }
            | Self::ReloadRefused { .. }
            | Self::FileTaken { .. }
            | Self::PolicyTaken { .. }
            | Self::PolicyRefused { .. }
            | Self::TunnelAttached { .. }
            | Self::TunnelDetached { .. }
            | Self::Stopped
            | Self::LeftOut { .. } => Kind::Other,
        }
    }

    /// What it is counted under where it has no line.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Refused { reason, .. } => reason,
            Self::Started { .. } => "started",
            Self::Admitted { .. } => "admitted",
            Self::Left { .. } => "left",
            Self::SessionOpened { .. } => "session-opened",
            Self::LinkUsed { .. } => "link-used",
            Self::LinkRevoked { .. } => "link-revoked",
            Self::SessionAttached { .. } => "session-attached",
            Self::SessionClosed { .. } => "session-closed",
            Self::SessionTaken { .. } => "session-taken",
            Self::Reloaded { .. } => "reloaded",
            Self::ReloadRefused { .. } => "reload-refused",
            Self::FileTaken { .. } => "file-taken",
            Self::PolicyTaken { .. } => "policy-taken",
            Self::PolicyRefused { .. } => "policy-refused",
            Self::TunnelAttached { .. } => "tunnel-attached",
            Self::TunnelDetached { .. } => "tunnel-detached",
            Self::Stopped => "stopped",
            Self::LeftOut { .. } => "left-out",
        }
    }
}
