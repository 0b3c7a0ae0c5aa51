//! Login: SASL inside a stream (RFC 6120 §6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Action, Login, Mechanism, Negotiation, Phase, escaped, write_in};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::sasl::scram::{ClientFirst, ScramServer};
use crate::proto::xmpp::sasl::{SaslCondition, SaslFailure, ScramKeys, plain};
use crate::proto::xmpp::stanza::Element;

/// Rounds that unknown users appear to have.
const INVENTED_ITERATIONS: u32 = 4096;

/// What the client's next `<response/>` is.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The first message of a mechanism that was chosen without one.
    First(Mechanism),
    /// SCRAM's proof.
    Proof(Box<ScramServer>),
}

impl Mechanism {
    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Anonymous => "ANONYMOUS",
        }
    }
}

impl Negotiation {
    pub(super) fn offer_mechanisms(&mut self) {
        let mechanisms: String = self.domain().1.iter().map(|mechanism| format!("<mechanism>{}</mechanism>", mechanism.as_str())).collect();
        write_in(&mut self.output, "mechanisms", ns::SASL, &mechanisms);
    }

    pub(super) fn refuse_outside_tls(&mut self, element: &Element) {
        if element.is("auth", ns::SASL) {
            self.refuse(SaslCondition::EncryptionRequired);
        } else {
            self.fail("not-authorized", "Start TLS first.", "not-authorized");
        }
    }

    pub(super) fn take_in_before_login(&mut self, element: &Element) {
        if element.is("auth", ns::SASL) {
            let mechanism = element.attribute("mechanism");
            let offered = self.domain().1.iter().copied().find(|offered| mechanism == Some(offered.as_str()));
            match (offered, element.text().as_str()) {
                (None, _) => self.refuse(SaslCondition::InvalidMechanism),
                (Some(Mechanism::Anonymous), _) => self.ask_verdict(String::new(), |domain| Login::Anonymous { domain }),
                (Some(mechanism), "") => {
                    self.phase = Phase::Exchange(Exchange::First(mechanism));
                    write_in(&mut self.output, "challenge", ns::SASL, "");
                }
                (Some(mechanism), text) => self.take_in_message(Exchange::First(mechanism), text),
            }
        } else if element.is("abort", ns::SASL) {
            self.refuse(SaslCondition::Aborted);
        } else if element.is("starttls", ns::TLS) {
            write_in(&mut self.output, "failure", ns::TLS, "");
            self.output.push_str("</stream:stream>");
            self.close("starttls-inside-tls");
        } else {
            self.fail("not-authorized", "Log in first.", "not-authorized");
        }
    }

    /// The client answers a challenge.
    pub(super) fn continue_login(&mut self, element: &Element) {
        let Phase::Exchange(exchange) = std::mem::replace(&mut self.phase, Phase::Request) else {
            return;
        };
        if element.is("response", ns::SASL) {
            self.take_in_message(exchange, &element.text());
        } else if element.is("abort", ns::SASL) {
            self.refuse(SaslCondition::Aborted);
        } else {
            self.fail("not-authorized", "Log in first.", "not-authorized");
        }
    }

    fn take_in_message(&mut self, exchange: Exchange, text: &str) {
        let decoded = match text {
            "=" => Ok(Vec::new()),
            text => STANDARD.decode(text),
        };
        let Ok(message) = decoded else {
            return self.refuse(SaslCondition::IncorrectEncoding);
        };
        let result = match exchange {
            Exchange::First(Mechanism::Plain) => self.take_in_plain(&message),
            Exchange::First(Mechanism::ScramSha256) => self.take_in_scram(&message),
            Exchange::First(Mechanism::Anonymous) => Err(SaslCondition::MalformedRequest),
            Exchange::Proof(server) => self.judge_proof(&server, &message),
        };
        if let Err(condition) = result {
            self.refuse(condition);
        }
    }

    fn take_in_plain(&mut self, message: &[u8]) -> Result<(), SaslCondition> {
        let (user, password) = plain::parse(message, &self.domain().0)?;
        let (user, password) = (user.to_owned(), password.to_owned());
        self.ask_verdict(user.clone(), |domain| Login::Plain { domain, user, password });
        Ok(())
    }

    fn take_in_scram(&mut self, message: &[u8]) -> Result<(), SaslCondition> {
        let domain = self.domain_name();
        let first = ClientFirst::parse(message, &domain)?;
        self.actions.push_back(Action::FindScramKeys { domain, user: first.user().to_owned() });
        self.phase = Phase::Keys(first);
        Ok(())
    }

    pub(super) fn challenge_scram(&mut self, first: ClientFirst, keys: Option<ScramKeys>) {
        let genuine = keys.is_some();
        let keys = keys.unwrap_or_else(|| {
            let salt = ScramKeys::invented_salt(&self.settings.salt_secret, &self.domain().0, first.user());
            ScramKeys { iterations: INVENTED_ITERATIONS, salt, stored_key: [0; 32], server_key: [0; 32] }
        });
        let (server, challenge) = ScramServer::new(first, keys, genuine, (self.entropy)());
        write_in(&mut self.output, "challenge", ns::SASL, &STANDARD.encode(challenge));
        self.phase = Phase::Exchange(Exchange::Proof(Box::new(server)));
    }

    fn judge_proof(&mut self, server: &ScramServer, message: &[u8]) -> Result<(), SaslCondition> {
        let last = server.finish(message)?;
        self.log_in(server.user().to_owned(), &STANDARD.encode(last));
        Ok(())
    }

    fn ask_verdict(&mut self, user: String, login: impl FnOnce(String) -> Login) {
        let domain = self.domain_name();
        self.phase = Phase::Verdict(user);
        self.actions.push_back(Action::Verify(login(domain)));
    }

    /// Tells success, with the mechanism's last word in base64, and begins the stream anew.
    pub(super) fn log_in(&mut self, user: String, last_word: &str) {
        write_in(&mut self.output, "success", ns::SASL, last_word);
        self.user = Some(user);
        self.begin_stream();
    }

    fn refuse(&mut self, condition: SaslCondition) {
        let text = match condition {
            SaslCondition::EncryptionRequired => "Start TLS first.",
            SaslCondition::InvalidMechanism => "This mechanism is not offered.",
            SaslCondition::NotAuthorized => "User name or password is wrong.",
            SaslCondition::InvalidAuthzid => "Nobody can act as somebody else.",
            SaslCondition::Aborted
            | SaslCondition::AccountDisabled
            | SaslCondition::CredentialsExpired
            | SaslCondition::IncorrectEncoding
            | SaslCondition::MalformedRequest
            | SaslCondition::TemporaryAuthFailure => "",
        };
        self.refuse_login(&SaslFailure { condition, text: text.to_owned() });
    }

    /// Tells the failure; the stream stays for another attempt until there were enough.
    pub(super) fn refuse_login(&mut self, failure: &SaslFailure) {
        let mut inner = format!("<{}/>", failure.condition.as_str());
        if !failure.text.is_empty() {
            inner.push_str(&format!("<text xml:lang='en'>{}</text>", escaped(&failure.text)));
        }
        write_in(&mut self.output, "failure", ns::SASL, &inner);
        self.phase = Phase::Request;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.settings.attempts {
            self.fail("policy-violation", "Too many login attempts.", "too-many-attempts");
        }
    }
}
