//! The client's header and our answer to it: which domain, and what it offers now (RFC 6120 §4.7, §4.3.2).

use super::{Mechanism, Negotiation, Phase, Transport, write_in};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::{Element, escape_attribute};

/// Longest address that is said back to a client (RFC 7622 §3.1).
const MAX_JID_BYTES: usize = 3071;

impl Negotiation {
    pub(super) fn open_stream(&mut self, header: &Element) {
        let domain = self.domain_of(header.attribute("to"));
        let is_moved = self.user.is_some() && domain != self.domain;
        if !is_moved {
            self.domain = domain;
        }
        self.send_header(header.attribute("from"));
        if !header.attribute("version").is_some_and(is_version_known) {
            return self.fail("unsupported-version", "", "unsupported-version");
        }
        if domain.is_none() || is_moved {
            return self.fail("host-unknown", "", "host-unknown");
        }
        self.send_features();
        self.phase = Phase::Request;
    }

    /// The served domain that a header means.
    fn domain_of(&self, to: Option<&str>) -> Option<usize> {
        let domains = &self.settings.domains;
        match to {
            Some(to) => domains.iter().position(|(name, _)| name.eq_ignore_ascii_case(to)),
            None if self.user.is_some() => self.domain,
            None => (domains.len() == 1).then_some(0),
        }
    }

    pub(super) fn domain(&self) -> &(String, Vec<Mechanism>) {
        static NOWHERE: (String, Vec<Mechanism>) = (String::new(), Vec::new());
        self.domain.and_then(|at| self.settings.domains.get(at)).or_else(|| self.settings.domains.first()).unwrap_or(&NOWHERE)
    }

    pub(super) fn domain_name(&self) -> String {
        self.domain().0.clone()
    }

    pub(super) fn send_header(&mut self, client: Option<&str>) {
        self.is_header_sent = true;
        let id: String = (self.entropy)().iter().map(|byte| format!("{byte:02x}")).collect();
        let from = self.domain_name();
        let out = &mut self.output;
        out.push_str("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='");
        out.push_str(&id);
        out.push_str("' from='");
        escape_attribute(&from, out);
        if let Some(client) = client.filter(|client| client.len() <= MAX_JID_BYTES) {
            out.push_str("' to='");
            escape_attribute(client, out);
        }
        out.push_str("' version='1.0' xml:lang='en'>");
    }

    fn send_features(&mut self) {
        self.output.push_str("<stream:features>");
        match (self.transport, &self.user) {
            (Transport::Plain, _) => write_in(&mut self.output, "starttls", ns::TLS, "<required/>"),
            (Transport::Tls, None) => self.offer_mechanisms(),
            (Transport::Tls, Some(_)) => self.offer_bind(),
        }
        self.output.push_str("</stream:features>");
    }
}

/// Whether `version` is 1.0 or later (RFC 6120 §4.7.5).
fn is_version_known(version: &str) -> bool {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    version.split_once('.').is_some_and(|(major, minor)| number(major).is_some_and(|major| major >= 1) && number(minor).is_some())
}
