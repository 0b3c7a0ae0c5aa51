//! Who may come in: CHECK and OPEN.

use aws_lc_rs::digest::{SHA256, digest};

use super::session::Session;
use super::{Audit, Desk, LinkTerms, RelayIndex, SOFTWARE_WITHIN, Timer};
use crate::im::Availability;
use crate::proto::tunnel::{Admission, Assertion, ChannelId, ConnectorCommand, Open, OpenKind, RefusalCode, ResetCode};
use crate::session::{CloseReason, OpenId, SessionId, SessionSecret};
use crate::store::{Op, Place, SecretDigest, SessionRecord};

/// Longest name or reason taken over from a link, in characters.
const MAX_LINK_TEXT: usize = 120;

type Refusal = (RefusalCode, String);

impl Desk {
    /// Judges terms of entry without counting anything: the link's terms, or `None` for public entry.
    pub(super) fn judge(&self, admission: &Admission) -> Result<Option<LinkTerms>, Refusal> {
        let key = (admission.domain.clone(), admission.queue.clone());
        let Some(queue) = self.queues.get(&key) else {
            return Err((RefusalCode::NoQueue, "There is no such queue here.".to_owned()));
        };
        let token = match &admission.assertion {
            Assertion::Anonymous if queue.config.public => return Ok(None),
            Assertion::Anonymous => return Err((RefusalCode::BadLink, "This queue needs a link.".to_owned())),
            Assertion::Link { token, .. } => token,
        };
        let terms = (self.outside.verify_link)(token, &admission.domain, self.now.unix_millis / 1000)?;
        if terms.queue != admission.queue {
            return Err((RefusalCode::BadLink, "This link leads to another queue.".to_owned()));
        }
        let used = self.link_uses.get(&link_use(&terms)).copied().unwrap_or(0);
        if terms.max_uses.is_some_and(|most| used >= most) {
            return Err((RefusalCode::BadLink, "This link has been used up.".to_owned()));
        }
        Ok(Some(terms))
    }

    pub(super) fn open(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open) {
        match open.kind {
            OpenKind::New { open_id, secret } => match self.open_ids.get(&open_id).copied() {
                Some(session) if self.secrets.get(&secret_digest(secret)) == Some(&session) => {
                    self.attach(relay, channel, session, open.resumable);
                }
                Some(_) => {
                    let text = "That conversation is not yours.".to_owned();
                    self.refuse(relay, channel, open, (RefusalCode::Policy, text));
                }
                None => self.begin(relay, channel, open, open_id, secret),
            },
            OpenKind::Attach { secret, in_next, out_next, client_h: _ } => {
                let Some(session) = self.secrets.get(&secret_digest(secret)).copied() else {
                    let text = "That conversation is over.".to_owned();
                    return self.refuse(relay, channel, open, (RefusalCode::UnknownSession, text));
                };
                if self.is_ahead(session, in_next, out_next) {
                    let text = "The record of this conversation is older than what was confirmed.".to_owned();
                    self.end_at_once(session, CloseReason::StoreRegressed);
                    return self.refuse(relay, channel, open, (RefusalCode::StoreRegressed, text));
                }
                self.attach(relay, channel, session, open.resumable);
            }
        }
    }

    fn refuse(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open, (code, text): Refusal) {
        self.refused(&open.admission.queue, code);
        self.tunnel(relay, ConnectorCommand::Refuse { channel, code, text, retry_after: None });
    }

    /// Whether the relay knows more of the session than the store does.
    fn is_ahead(&self, session: SessionId, in_next: u64, out_next: u64) -> bool {
        let Some(session) = self.sessions.get(&session) else { return false };
        let out_known = session.fin.as_ref().map_or(session.out_last, |(number, _)| *number);
        in_next > session.in_handled + 1 || out_next > out_known + 1
    }

    fn begin(&mut self, relay: RelayIndex, channel: ChannelId, open: &Open, open_id: OpenId, secret: SessionSecret) {
        let terms = match self.judge(&open.admission) {
            Ok(terms) => terms,
            Err(refusal) => return self.refuse(relay, channel, open, refusal),
        };
        let record = self.record_of(open, open_id, secret, terms.as_ref());
        let id = record.id;
        let has_bot = self.queues.get(&(record.domain.clone(), record.queue.clone())).is_some_and(|queue| queue.config.bot.is_some());
        let place = if has_bot { Place::Bot } else { Place::Queued };
        if let Some(digest) = record.link_use {
            *self.link_uses.entry(digest).or_insert(0) += 1;
        }
        self.codes.insert(record.code.clone(), id);
        self.open_ids.insert(open_id, id);
        self.secrets.insert(record.secret, id);
        self.counters.sessions_opened += 1;
        let audit = Audit::SessionOpened {
            session: id,
            code: record.code.clone(),
            queue: record.queue.clone(),
            issuer: record.link_issuer.clone(),
            kid: record.link_kid.clone(),
        };
        let named = !record.software.name.is_empty();
        self.op(Op::Begin(Box::new(record.clone())));
        self.op(Op::Attached { session: id, attachment: 1 });
        let enqueued_at = self.queue_time();
        self.op(Op::Place { session: id, place: place.clone(), enqueued_at });
        let mut session = Session::new(record, place);
        session.channel = Some((relay, channel));
        session.enqueued_at = enqueued_at;
        if !named {
            session.software_until = Some(self.arm(SOFTWARE_WITHIN, Timer::Software(id)));
        }
        self.sessions.insert(id, session);
        self.channels.insert((relay, channel), id);
        self.audit(audit);
        self.tunnel(relay, ConnectorCommand::Accept { channel, in_next: 1, out_first: 1, out: Vec::new() });
        if has_bot { self.bot_greets(id) } else { self.join_line(id) }
    }

    fn record_of(&mut self, open: &Open, open_id: OpenId, secret: SessionSecret, terms: Option<&LinkTerms>) -> SessionRecord {
        let code = self.mint_code();
        let customer = terms.and_then(|terms| terms.sub.as_deref()).map(shown).filter(|name| !name.is_empty());
        SessionRecord {
            id: self.mint_id(),
            open_id,
            secret: secret_digest(secret),
            domain: open.admission.domain.clone(),
            queue: open.admission.queue.clone(),
            customer: customer.unwrap_or_else(|| format!("guest-{code}")),
            code,
            reason: terms.and_then(|terms| terms.reason.as_deref()).map(shown).unwrap_or_default(),
            link_issuer: terms.map(|terms| terms.issuer.clone()).unwrap_or_default(),
            link_kid: terms.map(|terms| terms.kid.clone()).unwrap_or_default(),
            link_use: terms.map(link_use),
            client_addr: open.client_addr.to_string(),
            resumable: open.resumable,
            software: open.software.clone(),
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

    /// Puts a known session on a new channel; the older one hears that it moved.
    fn attach(&mut self, relay: RelayIndex, channel: ChannelId, id: SessionId, resumable: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let older = session.channel.replace((relay, channel)).filter(|older| *older != (relay, channel));
        session.attachment += 1;
        session.detached_until = None;
        session.stalled.clear();
        session.record.resumable = resumable;
        session.presence = Availability::Available;
        let attachment = session.attachment;
        let fin = session.fin.clone();
        let accept = ConnectorCommand::Accept {
            channel,
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
        if let Some((number, fin)) = fin {
            self.tunnel(relay, ConnectorCommand::Finish { channel, number, fin });
        }
        self.stir_queue_of(id);
    }
}

/// What a link's uses are counted under.
fn link_use(terms: &LinkTerms) -> [u8; 32] {
    sha256(&[terms.issuer.as_bytes(), &[0], terms.jti.as_bytes()].concat())
}

fn secret_digest(secret: SessionSecret) -> SecretDigest {
    SecretDigest(sha256(&secret.0))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// A link's text as people may see it: one line, bounded, read in the order in which it stands. Its issuer is trusted; but what it
/// puts into a link a visitor may have typed.
fn shown(text: &str) -> String {
    let is_fit = |c: &char| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    text.chars().filter(is_fit).take(MAX_LINK_TEXT).collect::<String>().trim().to_owned()
}
