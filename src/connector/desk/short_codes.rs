//! Short codes: made here, known here alone, kept by their digest.

use std::collections::{BTreeMap, HashMap};

use super::admission::{MAX_LINK_TEXT, Refusal, link_digest, refusal, secret_digest_of};
use super::{Desk, Told};
use crate::link::code::CODE_ISSUER;
use crate::link::{LinkCode, LinkTerms};
use crate::names::shown_line;
use crate::proto::tunnel::RefusalCode;
use crate::store::{Op, SecretDigest, StoredCode};

/// Codes that stand at one time: some 20 MiB.
const MAX_CODES: usize = 65_536;

/// The longest that a code is good for.
const MAX_SECONDS: u64 = 400 * 24 * 3600;

/// How long after its end a code is remembered, so that whoever brings it is told that it is over.
const AFTER_EXPIRY: u64 = 24 * 3600;

/// Longest name of a skill or language, and most skills of a code.
const MAX_NAME: usize = 64;
const MAX_SKILLS: usize = 16;

/// What an admin wants a code to stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCode {
    /// The domain that it is good for; `None` where there is only one.
    pub domain: Option<String>,
    /// The queue that it leads to.
    pub queue: String,
    /// How long it is good, in seconds.
    pub seconds: u64,
    /// How many sessions it is for; `None`: any number.
    pub max_sessions: Option<u32>,
    /// Skills that the agent should have.
    pub skills: Vec<String>,
    /// The customer's language.
    pub lang: Option<String>,
    /// Why the customer comes.
    pub reason: Option<String>,
    /// Whom the company knows the customer as.
    pub subject: Option<String>,
}

/// A code that was made. It is told this once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeCode {
    /// The code.
    pub code: LinkCode,
    /// Its name, for lists and to take it back.
    pub jti: String,
    /// The domain that it is good for.
    pub domain: String,
    /// The queue that it leads to.
    pub queue: String,
    /// When it ends, seconds since 1970.
    pub expires: u64,
}

/// All codes that stand.
#[derive(Debug, Default)]
pub(super) struct ShortCodes {
    codes: HashMap<SecretDigest, StoredCode>,
    names: BTreeMap<String, SecretDigest>,
}

impl ShortCodes {
    pub(super) fn restore(codes: Vec<StoredCode>) -> Self {
        let mut all = Self::default();
        for code in codes {
            all.insert(code);
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &StoredCode> {
        self.codes.values()
    }

    pub(super) fn names(&self, issuer: &str, jti: &str) -> bool {
        issuer == CODE_ISSUER && self.names.contains_key(jti)
    }

    pub(super) fn is_revoked(&self, issuer: &str, jti: &str) -> bool {
        let digest = self.names.get(jti).filter(|_| issuer == CODE_ISSUER);
        digest.and_then(|digest| self.codes.get(digest)).is_some_and(|code| code.revoked)
    }

    fn insert(&mut self, code: StoredCode) {
        self.names.insert(code.terms.jti.clone(), code.digest);
        self.codes.insert(code.digest, code);
    }

    fn named(&mut self, jti: &str) -> Option<&mut StoredCode> {
        self.codes.get_mut(self.names.get(jti)?)
    }
}

impl Desk {
    /// Makes a code; the answer bears the number `ask`.
    pub(super) fn make_code(&mut self, ask: u64, wanted: NewCode) {
        let made = self.try_make_code(wanted).map(|made| Told::Code(Box::new(made)));
        self.answer(ask, made);
    }

    fn try_make_code(&mut self, wanted: NewCode) -> Result<MadeCode, String> {
        let Some(label) = self.door.label else {
            return Err("this connector has no `label` in connector.toml, by which relays would know its codes".to_owned());
        };
        let domain = self.domain_of(wanted.domain, &wanted.queue)?;
        if wanted.seconds == 0 || wanted.seconds > MAX_SECONDS || wanted.max_sessions == Some(0) {
            return Err("a code is good for at least a second, at most 400 days, and at least one session".to_owned());
        }
        let is_name = |name: &String| !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
        if wanted.skills.len() > MAX_SKILLS || !wanted.skills.iter().chain(&wanted.lang).all(is_name) {
            return Err(format!("at most {MAX_SKILLS} skills, and names of at most {MAX_NAME} bytes"));
        }
        if self.short_codes.len() >= MAX_CODES {
            return Err(format!("{MAX_CODES} codes stand already; give them shorter lives"));
        }
        let code = LinkCode::new(label, (self.outside.entropy)());
        let now = self.now.unix_millis / 1000;
        let terms = LinkTerms {
            issuer: CODE_ISSUER.to_owned(),
            kid: String::new(),
            jti: self.mint_id().to_string(),
            subject: wanted.subject.as_deref().map(|text| shown_line(text, MAX_LINK_TEXT)),
            queue: wanted.queue,
            skills: wanted.skills,
            lang: wanted.lang,
            reason: wanted.reason.as_deref().map(|text| shown_line(text, MAX_LINK_TEXT)),
            max_sessions: wanted.max_sessions,
            expires: now + wanted.seconds,
            lapsed: false,
        };
        let made = MadeCode { jti: terms.jti.clone(), domain: domain.clone(), queue: terms.queue.clone(), expires: terms.expires, code };
        let digest = secret_digest_of(made.code.as_str().as_bytes());
        let stored = StoredCode { digest, domain, terms, made_at: now, revoked: false };
        self.op(Op::CodeMade(Box::new(stored.clone())));
        self.short_codes.insert(stored);
        self.watch_links();
        Ok(made)
    }

    /// The domain of `queue`, which must be served.
    fn domain_of(&self, domain: Option<String>, queue: &str) -> Result<String, String> {
        let mut served = self.queues.keys().filter(|(at, id)| id == queue && domain.as_ref().is_none_or(|domain| domain == at));
        let Some((found, _)) = served.next() else { return Err(format!("no queue \"{queue}\" is served here for that domain")) };
        if served.next().is_some() {
            return Err(format!("several domains have a queue \"{queue}\": name one"));
        }
        Ok(found.clone())
    }

    /// What a code stands for.
    pub(super) fn terms_of_code(&self, text: &str, domain: &str) -> Result<LinkTerms, Refusal> {
        let wrong = || refusal(RefusalCode::BadLink, "code-wrong", "This code is not valid. Please check it, or ask for a new one.");
        let code = LinkCode::parse(text).ok_or_else(wrong)?;
        let known = self.short_codes.codes.get(&secret_digest_of(code.as_str().as_bytes())).filter(|known| known.domain == domain);
        let mut terms = known.ok_or_else(wrong)?.terms.clone();
        terms.lapsed = self.now.unix_millis / 1000 >= terms.expires;
        Ok(terms)
    }

    /// Takes a code back; tells whether there is one of this name.
    pub(super) fn revoke_code(&mut self, jti: &str) -> bool {
        let Some(code) = self.short_codes.named(jti) else { return false };
        code.revoked = true;
        let digest = code.digest;
        self.op(Op::CodeRevoked { digest });
        true
    }

    /// Codes that ended a day ago, and whose sessions have too.
    pub(super) fn forget_expired_codes(&mut self) {
        let before = (self.now.unix_millis / 1000).saturating_sub(AFTER_EXPIRY);
        let over = |code: &&StoredCode| code.terms.expires < before && self.session_of_link(&code.terms).is_none();
        let over: Vec<(SecretDigest, String)> =
            self.short_codes.codes.values().filter(over).map(|code| (code.digest, code.terms.jti.clone())).collect();
        for (digest, jti) in over {
            self.short_codes.codes.remove(&digest);
            self.short_codes.names.remove(&jti);
            self.op(Op::CodeForgotten { digest });
        }
    }
}

/// What a code's uses are counted under.
pub(super) fn code_use(jti: &str) -> [u8; 32] {
    link_digest(CODE_ISSUER, jti)
}
