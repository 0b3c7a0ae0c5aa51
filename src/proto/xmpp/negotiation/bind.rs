//! After login: resource binding (RFC 6120 §7) or resumption (XEP-0198 §5).

use super::{Action, Negotiation, Phase, escaped, write_in};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::reader::AFTER_LOGIN;
use crate::proto::xmpp::stanza::Element;

/// Most requests that are answered without binding.
const MAX_REPLIES: u8 = 16;
/// Longest id of an iq that is said back.
const MAX_ID_BYTES: usize = 1024;
/// Longest resource (RFC 7622 §3.4).
const MAX_RESOURCE_BYTES: usize = 1023;
/// XEP-0478.
const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";

impl Negotiation {
    pub(super) fn offer_bind(&mut self) {
        write_in(&mut self.output, "bind", ns::BIND, "");
        write_in(&mut self.output, "session", ns::SESSION, "<optional/>");
        if self.settings.stream_management {
            write_in(&mut self.output, "sm", ns::STREAM_MANAGEMENT, "");
        }
        write_in(&mut self.output, "limits", STREAM_LIMITS, &format!("<max-bytes>{}</max-bytes>", AFTER_LOGIN.stanza_bytes));
    }

    pub(super) fn take_in_before_bind(&mut self, element: &Element) {
        self.replies = self.replies.saturating_add(1);
        if self.replies > MAX_REPLIES {
            return self.fail("policy-violation", "Bind a resource first.", "policy-violation");
        }
        match (element.namespace(), element.name()) {
            (ns::CLIENT, "iq") => self.take_in_iq(element),
            (ns::STREAM_MANAGEMENT, "resume") => self.take_in_resume(element),
            (ns::STREAM_MANAGEMENT, "enable") => self.refuse_resumption("unexpected-request"),
            (ns::CLIENT, "message" | "presence") => self.fail("not-authorized", "Bind a resource first.", "not-authorized"),
            _ => self.fail("unsupported-stanza-type", "", "unsupported-stanza-type"),
        }
    }

    fn take_in_iq(&mut self, iq: &Element) {
        let id = iq.attribute("id").unwrap_or_default();
        if id.len() > MAX_ID_BYTES {
            return self.fail("policy-violation", "", "policy-violation");
        }
        let bind = iq.child("bind", ns::BIND);
        match (iq.attribute("type"), bind) {
            (Some("set"), Some(bind)) => match wished_resource(bind) {
                Ok(resource) => {
                    let action = Action::Bind { domain: self.domain_name(), user: self.user_name(), resource };
                    self.actions.push_back(action);
                    self.phase = Phase::Address(id.to_owned());
                }
                Err(condition) => self.refuse_iq(id, "modify", condition),
            },
            (Some("set" | "get"), _) => self.refuse_iq(id, "cancel", "not-allowed"),
            (Some("result" | "error"), _) => {}
            _ => self.refuse_iq(id, "modify", "bad-request"),
        }
    }

    fn refuse_iq(&mut self, id: &str, kind: &str, condition: &str) {
        let id = escaped(id);
        self.output.push_str(&format!("<iq type='error' id='{id}'><error type='{kind}'>"));
        write_in(&mut self.output, condition, ns::STANZA_ERRORS, "");
        self.output.push_str("</error></iq>");
    }

    fn take_in_resume(&mut self, resume: &Element) {
        let previd = resume.attribute("previd").filter(|previd| !previd.is_empty() && previd.len() <= MAX_ID_BYTES);
        let h = resume.attribute("h").and_then(|h| h.parse().ok());
        match (previd, h) {
            (Some(previd), Some(h)) if self.settings.resumption => {
                let action = Action::Resume { domain: self.domain_name(), user: self.user_name(), previd: previd.to_owned(), h };
                self.actions.push_back(action);
                self.phase = Phase::Resumption;
            }
            (Some(_), Some(_)) => self.refuse_resumption("item-not-found"),
            _ => self.refuse_resumption("bad-request"),
        }
    }

    pub(super) fn refuse_resumption(&mut self, condition: &str) {
        let mut inner = String::new();
        write_in(&mut inner, condition, ns::STANZA_ERRORS, "");
        write_in(&mut self.output, "failed", ns::STREAM_MANAGEMENT, &inner);
    }

    pub(super) fn tell_address(&mut self, id: &str, full_jid: &str) {
        let jid = escaped(full_jid);
        self.output.push_str(&format!("<iq type='result' id='{}'>", escaped(id)));
        write_in(&mut self.output, "bind", ns::BIND, &format!("<jid>{jid}</jid>"));
        self.output.push_str("</iq>");
    }

    fn user_name(&self) -> String {
        self.user.clone().unwrap_or_default()
    }
}

/// The resource in a bind request: none, or one that an address can carry.
fn wished_resource(bind: &Element) -> Result<Option<String>, &'static str> {
    let wish = bind.child("resource", ns::BIND).map(Element::text).filter(|text| !text.is_empty());
    match wish {
        Some(text) if text.len() > MAX_RESOURCE_BYTES || text.chars().any(char::is_control) => Err("bad-request"),
        other => Ok(other),
    }
}
