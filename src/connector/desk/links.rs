//! Links that were taken back: who says so, what that does to live sessions, and who must know.

use std::collections::BTreeMap;

use super::admission::link_digest;
use super::{Desk, DoorEffect, Effect};
use crate::link::{NEVER_EXPIRES, RevokedLink};
use crate::proto::tunnel::policy::MAX_REVOKED;
use crate::session::{CloseReason, SessionId};
use crate::store::Op;

/// How long after its expiry a revoked link is remembered: clocks differ.
const AFTER_EXPIRY: u64 = 24 * 3600;

/// Revoked links: issuer and name, and when the link ends.
#[derive(Debug, Default)]
pub(super) struct Revoked(BTreeMap<(String, String), u64>);

/// An admin takes a link back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Who signed it; `None`: whoever of the trusted issuers did.
    pub issuer: Option<String>,
    /// Its name.
    pub jti: String,
    /// When it ends, seconds since 1970; `None` where that is not known.
    pub expires: Option<u64>,
    /// What becomes of sessions that live.
    pub live: LiveSessions,
}

/// What becomes of the live sessions of a revoked link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveSessions {
    /// They go on.
    Stay,
    /// They end.
    End,
}

/// What a revocation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationDone {
    /// Links that are revoked now.
    pub revoked: usize,
    /// Sessions that ended.
    pub ended: usize,
}

impl Revoked {
    pub(super) fn restore(links: Vec<RevokedLink>) -> Self {
        Self(links.into_iter().map(|link| ((link.issuer, link.jti), link.expires)).collect())
    }

    pub(super) fn names(&self, issuer: &str, jti: &str) -> bool {
        !self.0.is_empty() && self.0.contains_key(&(issuer.to_owned(), jti.to_owned()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn list(&self) -> Vec<RevokedLink> {
        let link = |((issuer, jti), expires): (&(String, String), &u64)| RevokedLink {
            issuer: issuer.clone(),
            jti: jti.clone(),
            expires: *expires,
        };
        self.0.iter().map(link).collect()
    }
}

impl Desk {
    /// Takes a link back; the answer bears the number `ask`.
    pub(super) fn revoke(&mut self, ask: u64, revocation: &Revocation) {
        let done = self.try_revoke(revocation);
        if done.is_ok() {
            self.tell_revoked();
        }
        self.effect(Effect::Door(DoorEffect::Answer { ask, done }));
    }

    fn try_revoke(&mut self, revocation: &Revocation) -> Result<RevocationDone, String> {
        let now = self.now.unix_millis / 1000;
        self.revoked.0.retain(|_, expires| expires.saturating_add(AFTER_EXPIRY) > now);
        let issuers = match &revocation.issuer {
            Some(issuer) if self.door.issuers.contains(issuer) => vec![issuer.clone()],
            Some(issuer) => return Err(format!("no issuer \"{issuer}\" is trusted here")),
            None if self.door.issuers.is_empty() => return Err("no issuer is trusted here".to_owned()),
            None => self.door.issuers.clone(),
        };
        if revocation.jti.is_empty() || revocation.jti.len() > 255 || revocation.jti.chars().any(char::is_control) {
            return Err("that is no link's name".to_owned());
        }
        if self.revoked.len() + issuers.len() > MAX_REVOKED {
            return Err(format!("{MAX_REVOKED} links are revoked already: rotate the key that signed them instead"));
        }
        let mut ended = 0;
        for issuer in issuers {
            let expires = revocation.expires.unwrap_or(NEVER_EXPIRES).min(NEVER_EXPIRES);
            let known = self.revoked.0.entry((issuer.clone(), revocation.jti.clone())).or_insert(expires);
            *known = expires.max(*known);
            let link = RevokedLink { issuer: issuer.clone(), jti: revocation.jti.clone(), expires: *known };
            self.op(Op::Revoke { link, forget_before: now.saturating_sub(AFTER_EXPIRY) });
            if revocation.live == LiveSessions::End {
                ended += self.end_sessions_of(&issuer, &revocation.jti);
            }
        }
        Ok(RevocationDone { revoked: self.revoked.len(), ended })
    }

    fn end_sessions_of(&mut self, issuer: &str, jti: &str) -> usize {
        let digest = Some(link_digest(issuer, jti));
        let live = self.sessions.values().filter(|session| session.record.link_use == digest && !session.is_closed());
        let mut ids: Vec<SessionId> = live.map(|session| session.record.id).collect();
        ids.sort_unstable();
        for id in &ids {
            let text = "This link has been withdrawn; the conversation is closed.";
            self.finish(*id, CloseReason::AgentDone, text, "The customer's link was withdrawn; the conversation is closed.");
        }
        ids.len()
    }

    /// Tells the relays' side which links are revoked.
    pub(super) fn tell_revoked(&mut self) {
        let links = self.revoked.list();
        self.effect(Effect::Door(DoorEffect::Revoked(links)));
    }
}
