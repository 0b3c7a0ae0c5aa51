//! Links by their names: how often each was used, and which were taken back; what that does to live sessions, and who must know.

use std::collections::BTreeMap;

use serde::Serialize;

use super::admission::{link_digest, link_use};
use super::short_codes::code_use;
use super::{Desk, DoorEffect, Effect, LINKS_EVERY, Timer, Told};
use crate::link::code::CODE_ISSUER;
use crate::link::{LinkTerms, NEVER_EXPIRES, RevokedLink};
use crate::proto::tunnel::policy::MAX_REVOKED;
use crate::session::{CloseReason, SessionId};
use crate::store::{LinkUse, Op};

/// How long after its expiry a revoked link is remembered: clocks differ.
const AFTER_EXPIRY: u64 = 24 * 3600;

/// Links that one list shows: what an answer on the admin socket has room for.
const MAX_LISTED: usize = 8192;

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

/// How often a link was used, and until when that matters.
#[derive(Clone, Debug)]
pub(super) struct LinkUses {
    pub(super) link: LinkUse,
    /// The last session that it began.
    pub(super) session: Option<SessionId>,
}

/// Codes that stand, and links that were used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkList {
    /// In the order of their ends.
    pub links: Vec<LinkStatus>,
    /// Others for which there is no room here.
    pub left_out: usize,
}

/// A code or a used link, by its name: never what lets anyone in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkStatus {
    /// Who signed it; "code" for a short code.
    pub issuer: String,
    /// Its name.
    pub jti: String,
    /// Where it leads.
    pub queue: String,
    /// Sessions that it has begun.
    pub uses: u32,
    /// Sessions that it is for; `None` is any number.
    pub max_sessions: Option<u32>,
    /// When it ends, seconds since 1970.
    pub expires: u64,
    /// "good", "used-up", "expired" or "revoked".
    pub state: &'static str,
    /// Whether the last session that it began still lives.
    pub live: bool,
}

/// A link that nobody has used yet.
fn unused(terms: &LinkTerms) -> LinkUses {
    LinkUses::restore(LinkUse {
        digest: link_use(terms),
        issuer: terms.issuer.clone(),
        jti: terms.jti.clone(),
        queue: terms.queue.clone(),
        max_sessions: terms.max_sessions,
        uses: 0,
        expires: terms.expires,
    })
}

impl LinkUses {
    pub(super) fn restore(link: LinkUse) -> Self {
        Self { link, session: None }
    }
}

impl Desk {
    /// How often this link was used.
    pub(super) fn uses_of(&self, terms: &LinkTerms) -> u32 {
        self.link_uses.get(&link_use(terms)).map_or(0, |uses| uses.link.uses)
    }

    pub(super) fn use_link(&mut self, session: SessionId, terms: &LinkTerms) {
        let digest = link_use(terms);
        let uses = self.link_uses.entry(digest).or_insert_with(|| unused(terms));
        uses.link.uses += 1;
        uses.link.expires = terms.expires;
        uses.session = Some(session);
        let link = Box::new(uses.link.clone());
        self.op(Op::LinkUsed(link));
        self.watch_links();
    }

    /// The customer withdrew before anyone answered: the link is as good as before.
    pub(super) fn return_link(&mut self, id: SessionId) {
        let Some(link) = self.sessions.get_mut(&id).and_then(|session| session.record.link_use.take()) else { return };
        if let Some(uses) = self.link_uses.get_mut(&link) {
            uses.link.uses = uses.link.uses.saturating_sub(1);
            uses.session = None;
        }
        self.op(Op::LinkReturned { session: id });
    }

    /// An expired link is refused as such: how often it was used matters no more, but where its one session lives.
    pub(super) fn forget_expired_links(&mut self) {
        let before = self.now.unix_millis / 1000;
        let sessions = &self.sessions;
        let lives = |id: &SessionId| sessions.get(id).is_some_and(|session| !session.is_closed());
        self.link_uses.retain(|_, uses| uses.link.expires >= before || uses.session.as_ref().is_some_and(lives));
        self.op(Op::LinksExpired { before });
        self.forget_expired_codes();
        self.links_due = false;
        self.watch_links();
    }

    pub(super) fn watch_links(&mut self) {
        let is_wanted = !self.link_uses.is_empty() || self.short_codes.len() > 0;
        if is_wanted && !std::mem::replace(&mut self.links_due, true) {
            self.arm(LINKS_EVERY, Timer::Links);
        }
    }

    /// Shows what stands; the answer bears the number `ask`.
    pub(super) fn list_links(&mut self, ask: u64) {
        let idle = self.short_codes.all().filter(|code| !self.link_uses.contains_key(&code_use(&code.terms.jti)));
        let codes = idle.map(|code| self.status_of(&unused(&code.terms)));
        let mut links: Vec<LinkStatus> = codes.chain(self.link_uses.values().map(|uses| self.status_of(uses))).collect();
        links.sort_by(|a, b| (a.expires, &a.jti).cmp(&(b.expires, &b.jti)));
        let left_out = links.len().saturating_sub(MAX_LISTED);
        links.truncate(MAX_LISTED);
        self.answer(ask, Ok(Told::Links(LinkList { links, left_out })));
    }

    fn status_of(&self, uses: &LinkUses) -> LinkStatus {
        let link = &uses.link;
        let is_revoked = self.revoked.names(&link.issuer, &link.jti) || self.short_codes.is_revoked(&link.issuer, &link.jti);
        let state = if is_revoked {
            "revoked"
        } else if self.now.unix_millis / 1000 >= link.expires {
            "expired"
        } else if link.max_sessions.is_some_and(|most| link.uses >= most) {
            "used-up"
        } else {
            "good"
        };
        LinkStatus {
            issuer: link.issuer.clone(),
            jti: link.jti.clone(),
            queue: link.queue.clone(),
            uses: link.uses,
            max_sessions: link.max_sessions,
            expires: link.expires,
            state,
            live: uses.session.is_some_and(|id| self.sessions.get(&id).is_some_and(|session| !session.is_closed())),
        }
    }

    /// Takes a link back; the answer bears the number `ask`.
    pub(super) fn revoke(&mut self, ask: u64, revocation: &Revocation) {
        let done = if self.names_a_code(revocation) { Ok(self.take_back_code(revocation)) } else { self.try_revoke(revocation) };
        self.answer(ask, done.map(Told::Revoked));
    }

    pub(super) fn answer(&mut self, ask: u64, done: Result<Told, String>) {
        self.effect(Effect::Door(DoorEffect::Answer { ask, done }));
    }

    fn names_a_code(&self, revocation: &Revocation) -> bool {
        self.short_codes.names(revocation.issuer.as_deref().unwrap_or(CODE_ISSUER), &revocation.jti)
    }

    /// Relays need not know: they ask about every code.
    fn take_back_code(&mut self, revocation: &Revocation) -> RevocationDone {
        self.revoke_code(&revocation.jti);
        let ended = match revocation.live {
            LiveSessions::End => self.end_sessions_of(code_use(&revocation.jti)),
            LiveSessions::Stay => 0,
        };
        RevocationDone { revoked: self.revoked.len(), ended }
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
                ended += self.end_sessions_of(link_digest(&issuer, &revocation.jti));
            }
        }
        self.tell_revoked();
        Ok(RevocationDone { revoked: self.revoked.len(), ended })
    }

    fn end_sessions_of(&mut self, link: [u8; 32]) -> usize {
        let digest = Some(link);
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
