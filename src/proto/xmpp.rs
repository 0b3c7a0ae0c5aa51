//! XMPP (RFC 6120, RFC 6121) as Outgate speaks it: always the server's side, except in `cli::demo`.

pub mod client;
pub mod im;
pub mod negotiation;
pub mod reader;
pub mod sasl;
pub mod server;
pub mod software;
pub mod stanza;
pub mod stream_management;

/// Namespaces.
pub mod ns {
    /// RFC 6120: client stanzas.
    pub const CLIENT: &str = "jabber:client";
    /// RFC 6120: the stream.
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    /// RFC 6120: stream errors.
    pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    /// RFC 6120: stanza errors.
    pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// RFC 6120: STARTTLS.
    pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    /// RFC 6120: SASL.
    pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    /// RFC 6120: resource binding.
    pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
    /// RFC 3921: session.
    pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
    /// XEP-0198.
    pub const STREAM_MANAGEMENT: &str = "urn:xmpp:sm:3";
    /// XEP-0199.
    pub const PING: &str = "urn:xmpp:ping";
    /// XEP-0092.
    pub const VERSION: &str = "jabber:iq:version";
    /// XEP-0030.
    pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    /// XEP-0030.
    pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
    /// RFC 6121: roster.
    pub const ROSTER: &str = "jabber:iq:roster";
    /// XEP-0085.
    pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
    /// XEP-0184.
    pub const RECEIPTS: &str = "urn:xmpp:receipts";
    /// XEP-0333.
    pub const MARKERS: &str = "urn:xmpp:chat-markers:0";
    /// XEP-0308.
    pub const CORRECTION: &str = "urn:xmpp:message-correct:0";
    /// XEP-0461.
    pub const REPLY: &str = "urn:xmpp:reply:0";
    /// XEP-0066.
    pub const OOB: &str = "jabber:x:oob";
    /// XEP-0203.
    pub const DELAY: &str = "urn:xmpp:delay";
    /// XEP-0172.
    pub const NICK: &str = "http://jabber.org/protocol/nick";
    /// XEP-0115.
    pub const DATA_FORM: &str = "jabber:x:data";
    /// Entity capabilities (XEP-0115).
    pub const CAPS: &str = "http://jabber.org/protocol/caps";
    /// XEP-0280.
    pub const CARBONS: &str = "urn:xmpp:carbons:2";
    /// XEP-0049.
    pub const PRIVATE: &str = "jabber:iq:private";
    /// XEP-0054.
    pub const VCARD: &str = "vcard-temp";
    /// XEP-0191.
    pub const BLOCKING: &str = "urn:xmpp:blocking";
    /// XEP-0334.
    pub const HINTS: &str = "urn:xmpp:hints";
}
