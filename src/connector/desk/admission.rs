//! Who may come in: CHECK and OPEN.

use aws_lc_rs::digest::{SHA256, digest};

use super::relay_door::{RelayDoor, Signature, busy};
use super::session::Session;
use super::{Audit, Desk, DoorEffect, Effect, LINKS_EVERY, Pending, RelayIndex, SOFTWARE_WITHIN, Timer};
use crate::fingerprint::{ClientSoftware, Denial};
use crate::im::Availability;
use crate::link::{LinkRefusal, LinkTerms};
use crate::names::{shown_line, shown_name};
use crate::proto::tunnel::{Admission, Assertion, ChannelId, ConnectorCommand, Open, OpenKind, RefusalCode, ResetCode};
use crate::session::{OpenId, SessionId, SessionSecret};
use crate::store::{Op, Place, SecretDigest, SessionRecord};
use crate::telemetry::audit::link_hash;

/// Longest name or reason taken over from a link, in characters. Its issuer is trusted, but what it puts into a link a visitor may
/// have typed.
const MAX_LINK_TEXT: usize = 120;

/// Longest name, version or system of a client's software, in characters.
const MAX_SOFTWARE_TEXT: usize = 64;

/// Why a customer is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// As the relay is told.
    pub(super) code: RefusalCode,
    /// As it is counted.
    pub(super) reason: &'static str,
    /// What the customer is told.
    pub(super) text: String,
}

impl Desk {
    /// Judges a CHECK: nothing is counted but the question itself.
    pub(super) fn check(&mut self, relay: RelayIndex, admission: &Admission) -> Result<(), Refusal> {
        self.takes_sessions()?;
        let now = self.now.instant;
        self.relay_door(relay).check(now)?;
        self.judge(admission).map(|_| ())
    }

    /// Judges terms of entry without counting anything: the link's terms, or `None` for public entry. What the relay says of the
    /// link beside the token itself counts for nothing.
    pub(super) fn judge(&self, admission: &Admission) -> Result<Option<LinkTerms>, Refusal> {
        let key = (admission.domain.clone(), admission.queue.clone());
        let Some(queue) = self.queues.get(&key) else {
            return Err(refusal(RefusalCode::NoQueue, "no-queue", "There is no such queue here."));
        };
        let token = match &admission.assertion {
            Assertion::Anonymous if queue.config.public => return Ok(None),
            Assertion::Anonymous => return Err(refusal(RefusalCode::BadLink, "no-link", "This queue needs a link.")),
            Assertion::Link { token, .. } => token,
        };
        let terms = (self.outside.verify_link)(token, &admission.domain, self.now.unix_millis / 1000).map_err(bad_link)?;
        if terms.queue != admission.queue {
            return Err(refusal(RefusalCode::BadLink, "link-other-queue", "This link leads to another queue."));
        }
        if self.revoked.names(&terms.issuer, &terms.jti) {
            return Err(bad_link(LinkRefusal::Revoked));
        }
        let used = self.link_uses.get(&link_use(&terms)).map_or(0, |uses| uses.count);
        if terms.max_sessions.is_some_and(|most| used >= most) {
            return Err(refusal(RefusalCode::BadLink, "link-used-up", "This link has been used up."));
        }
        Ok(Some(terms))
    }

    /// Judges a new session, cheapest first: what it would cost, then its terms, then its software; gives it a place among those
    /// that are not answered yet.
    fn judge_open(&mut self, relay: RelayIndex, open: &Open) -> Result<(Option<LinkTerms>, Pending), Refusal> {
        self.takes_sessions()?;
        let now = self.now.instant;
        self.relay_door(relay).open(now)?;
        let terms = self.judge(&open.admission)?;
        if let Some(denial) = self.denial_of(&open.software) {
            return Err(refusal(RefusalCode::Policy, "client-denied", denial.sentence()));
        }
        let signature = if terms.is_some() { Signature::Verified } else { Signature::None };
        let pending = self.relay_door(relay).admit(signature)?;
        Ok((terms, pending))
    }

    /// The first denial that this software meets.
    pub(super) fn denial_of(&self, software: &ClientSoftware) -> Option<&Denial> {
        self.door.denied.iter().find(|denial| denial.refuses(software))
    }

    /// New sessions need room in the store and a connector that stays; live ones go on without.
    fn takes_sessions(&self) -> Result<(), Refusal> {
        if self.is_leaving {
            return Err(refusal(RefusalCode::Drain, "draining", "This service stops for a moment; please come again."));
        }
        if self.is_store_low { Err(busy("store-full")) } else { Ok(()) }
    }

    fn relay_door(&mut self, relay: RelayIndex) -> &mut RelayDoor {
        let (rate, now) = (self.door.opens, self.now.instant);
        self.relay_doors.entry(relay).or_insert_with(|| RelayDoor::new(rate, now))
    }

    pub(super) fn open(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open) {
        match open.kind {
            OpenKind::New { open_id, secret } => match self.open_ids.get(&open_id).copied() {
                Some(session) if self.secrets.get(&secret_digest(secret)) == Some(&session) => {
                    self.attach((relay, channel), session, open, 1);
                }
                Some(_) => {
                    let not_yours = refusal(RefusalCode::Policy, "not-yours", "That conversation is not yours.");
                    self.refuse(relay, channel, open, not_yours);
                }
                None => self.begin(relay, channel, open, open_id, secret),
            },
            OpenKind::Attach { secret, in_next, out_next, client_h: _, attachment } => {
                let Some(session) = self.secrets.get(&secret_digest(secret)).copied() else {
                    let over = refusal(RefusalCode::UnknownSession, "unknown-session", "That conversation is over.");
                    return self.refuse(relay, channel, open, over);
                };
                if self.is_ahead(session, in_next, out_next, attachment) {
                    let text = "The record of this conversation is older than what was confirmed.";
                    self.store_regressed(session);
                    return self.refuse(relay, channel, open, refusal(RefusalCode::StoreRegressed, "store-regressed", text));
                }
                self.attach((relay, channel), session, open, attachment);
            }
        }
    }

    fn refuse(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open, refusal: Refusal) {
        self.refused(&open.admission, &refusal);
        let Refusal { code, text, .. } = refusal;
        self.tunnel(relay, ConnectorCommand::Refuse { channel, code, text, retry_after: None });
    }

    /// Whether the relay knows more of the session than the store does: an attachment is told once it is kept.
    fn is_ahead(&self, session: SessionId, in_next: u64, out_next: u64, attachment: u32) -> bool {
        let Some(session) = self.sessions.get(&session) else { return false };
        let out_limit = session.unseen_from.unwrap_or_else(|| session.out_end() + 1);
        in_next > session.in_handled + 1 || out_next > out_limit || attachment > session.attachment
    }

    fn begin(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open, open_id: OpenId, secret: SessionSecret) {
        let (terms, pending) = match self.judge_open(relay, open) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(relay, channel, open, refusal),
        };
        let record = self.record_of(open, open_id, secret, terms.as_ref());
        let id = record.id;
        let has_bot = self.queues.get(&(record.domain.clone(), record.queue.clone())).is_some_and(|queue| queue.config.bot.is_some());
        let place = if has_bot { Place::Bot } else { Place::Queued };
        self.codes.insert(record.code.clone(), id);
        self.open_ids.insert(open_id, id);
        self.secrets.insert(record.secret, id);
        self.counters.sessions_opened += 1;
        let audit = self.opened(&record, &open.admission.assertion);
        let named = !record.software.name.is_empty();
        self.op(Op::Begin(Box::new(record.clone())));
        if let (Some(link), Some(terms)) = (record.link_use, &terms) {
            self.use_link(link, terms.expires);
        }
        self.op(Op::Attached { session: id, attachment: 1 });
        let enqueued_at = self.queue_time();
        self.op(Op::Place { session: id, place: place.clone(), enqueued_at });
        let mut session = Session::new(record, place);
        session.channel = Some((relay, channel));
        session.was_asked_for = true;
        session.is_fresh = true;
        session.enqueued_at = enqueued_at;
        if !named {
            session.software_until = Some(self.arm(SOFTWARE_WITHIN, Timer::Software(id)));
        }
        self.sessions.insert(id, Box::new(session));
        self.channels.insert((relay, channel), id);
        self.audit(audit);
        self.tunnel(relay, ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() });
        self.effect(Effect::Door(DoorEffect::Admitted(pending)));
        if has_bot { self.bot_greets(id) } else { self.join_line(id) }
    }

    fn opened(&self, record: &SessionRecord, assertion: &Assertion) -> Audit {
        let link = match assertion {
            Assertion::Link { token, .. } => link_hash(token),
            Assertion::Anonymous => String::new(),
        };
        let before = record.link_use.and_then(|link| self.link_uses.get(&link)).map_or(0, |uses| uses.count);
        Audit::SessionOpened {
            session: record.id,
            code: record.code.clone(),
            queue: record.queue.clone(),
            issuer: record.link_issuer.clone(),
            kid: record.link_kid.clone(),
            link,
            uses: before.saturating_add(1),
        }
    }

    fn use_link(&mut self, link: [u8; 32], expires: u64) {
        let uses = self.link_uses.entry(link).or_default();
        uses.count += 1;
        uses.expires = expires;
        self.op(Op::LinkExpires { link, at: expires });
        self.watch_links();
    }

    /// The customer withdrew before anyone answered: the link is as good as before.
    pub(super) fn return_link(&mut self, id: SessionId) {
        let Some(link) = self.sessions.get_mut(&id).and_then(|session| session.record.link_use.take()) else { return };
        if let Some(uses) = self.link_uses.get_mut(&link) {
            uses.count = uses.count.saturating_sub(1);
        }
        self.op(Op::LinkReturned { session: id });
    }

    /// An expired link is refused as such: how often it was used matters no more.
    pub(super) fn forget_expired_links(&mut self) {
        let before = self.now.unix_millis / 1000;
        self.link_uses.retain(|_, uses| uses.expires >= before);
        self.op(Op::LinksExpired { before });
        self.links_due = false;
        self.watch_links();
    }

    pub(super) fn watch_links(&mut self) {
        if !self.link_uses.is_empty() && !std::mem::replace(&mut self.links_due, true) {
            self.arm(LINKS_EVERY, Timer::Links);
        }
    }

    fn record_of(&mut self, open: &Open, open_id: OpenId, secret: SessionSecret, terms: Option<&LinkTerms>) -> SessionRecord {
        let code = self.mint_code();
        let customer =
            terms.and_then(|terms| terms.subject.as_deref()).map(|name| shown_name(name, MAX_LINK_TEXT)).filter(|name| !name.is_empty());
        SessionRecord {
            id: self.mint_id(),
            open_id,
            secret: secret_digest(secret),
            domain: open.admission.domain.clone(),
            queue: open.admission.queue.clone(),
            customer: customer.unwrap_or_else(|| format!("guest-{code}")),
            code,
            reason: terms.and_then(|terms| terms.reason.as_deref()).map(|reason| shown_line(reason, MAX_LINK_TEXT)).unwrap_or_default(),
            link_issuer: terms.map(|terms| terms.issuer.clone()).unwrap_or_default(),
            link_kid: terms.map(|terms| terms.kid.clone()).unwrap_or_default(),
            link_use: terms.map(link_use),
            client_addr: open.client_addr.to_string(),
            resumable: open.resumable,
            software: shown_software(&open.software),
            opened_at: self.now.unix_millis,
        }
    }

    fn mint_id(&mut self) -> SessionId {
        let bytes = (self.outside.entropy)();
        let mut random = [0; 10];
        random.copy_from_slice(bytes.split_at(10).0);
        SessionId::new(self.now.unix_millis, random)
    }

    /// A short code that no live session has: four hexadecimal digits, more once these run short.
    fn mint_code(&mut self) -> String {
        for attempt in 0_usize.. {
            let [a, b, c, d, ..] = (self.outside.entropy)();
            let digits = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
            let code = digits.get(..(4 + attempt / 8).min(8)).unwrap_or(&digits).to_owned();
            if !self.codes.contains_key(&code) {
                return code;
            }
        }
        String::new()
    }

    /// Puts a known session on a new channel; the older one hears that it moved. `told` is the attachment that the relay was told,
    /// 0 where the client himself has come. A relay that he has left since asks in vain, and so does one whose question was long under
    /// way: he has asked elsewhere since.
    fn attach(&mut self, (relay, channel): (RelayIndex, ChannelId), id: SessionId, open: &Open, told: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_elsewhere = session.channel.is_some_and(|(at, _)| at != relay);
        let came_at = if told == 0 { self.now.instant.checked_sub(open.waited) } else { None };
        let is_late = came_at.is_some_and(|came| is_elsewhere && session.came_at.is_some_and(|later| came < later));
        if is_late || (told > 0 && (told < session.attachment || (told == session.attachment && is_elsewhere))) {
            return self.tunnel(relay, ConnectorCommand::Reset { channel, code: ResetCode::Moved });
        }
        session.came_at = came_at.or(session.came_at);
        let older = session.channel.replace((relay, channel)).filter(|older| *older != (relay, channel));
        session.attachment = if told == 0 { session.attachment.saturating_add(1) } else { session.attachment };
        session.was_asked_for = true;
        session.unseen_from = None;
        session.is_fresh = matches!(open.kind, OpenKind::New { .. });
        session.detached_until = None;
        session.stalled.clear();
        session.record.resumable = open.resumable;
        session.presence = Availability::Available;
        let attachment = session.attachment;
        let fin = session.fin.clone();
        let (number, sm_in) = (session.in_handled, session.sm_in);
        let accept = ConnectorCommand::Accept {
            channel,
            attachment,
            in_next: session.in_handled + 1,
            out_first: session.out_handled + 1,
            out: session.pending_payloads(),
        };
        if let Some((older_relay, older_channel)) = older {
            self.channels.remove(&(older_relay, older_channel));
            self.tunnel(older_relay, ConnectorCommand::Reset { channel: older_channel, code: ResetCode::Moved });
        }
        self.channels.insert((relay, channel), id);
        self.op(Op::Attached { session: id, attachment });
        self.audit(Audit::SessionAttached { session: id, attachment });
        self.tunnel(relay, accept);
        self.tunnel(relay, ConnectorCommand::Handled { channel, number, sm_in });
        if let Some((number, fin)) = fin {
            self.tunnel(relay, ConnectorCommand::Finish { channel, number, fin });
        }
        self.stir_queue_of(id);
    }
}

/// What a link's uses are counted under.
fn link_use(terms: &LinkTerms) -> [u8; 32] {
    link_digest(&terms.issuer, &terms.jti)
}

pub(super) fn link_digest(issuer: &str, jti: &str) -> [u8; 32] {
    sha256(&[issuer.as_bytes(), &[0], jti.as_bytes()].concat())
}

fn refusal(code: RefusalCode, reason: &'static str, text: &str) -> Refusal {
    Refusal { code, reason, text: text.to_owned() }
}

fn bad_link(why: LinkRefusal) -> Refusal {
    let code = match why {
        LinkRefusal::Queue => RefusalCode::NoQueue,
        LinkRefusal::Malformed
        | LinkRefusal::Algorithm
        | LinkRefusal::UnknownKey
        | LinkRefusal::BadSignature
        | LinkRefusal::Claims
        | LinkRefusal::Issuer
        | LinkRefusal::Audience
        | LinkRefusal::Expired
        | LinkRefusal::NotYetValid
        | LinkRefusal::Revoked => RefusalCode::BadLink,
    };
    refusal(code, why.code(), why.sentence())
}

fn secret_digest(secret: SessionSecret) -> SecretDigest {
    SecretDigest(sha256(&secret.0))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// What a client says of itself, as agents may see it.
pub(super) fn shown_software(software: &ClientSoftware) -> ClientSoftware {
    let shown = |text: &str| shown_name(text, MAX_SOFTWARE_TEXT);
    ClientSoftware { name: shown(&software.name), version: shown(&software.version), system: shown(&software.system), ..software.clone() }
}
