//! Names and namespaces that are met all the time, kept once and lent out.

use std::borrow::Cow;

use rxml::NcName;

use crate::proto::xmpp::ns;

macro_rules! known {
    ($text:expr; $($name:literal)*) => {
        match $text {
            $($name => Some($name),)*
            _ => None,
        }
    };
}

/// An element's or attribute's local name.
pub(super) fn name(name: &NcName) -> Cow<'static, str> {
    known_name(name.as_str()).map_or_else(|| Cow::Owned(name.as_str().to_owned()), Cow::Borrowed)
}

/// A namespace name.
pub(super) fn namespace(namespace: String) -> Cow<'static, str> {
    known_namespace(&namespace).map_or(Cow::Owned(namespace), Cow::Borrowed)
}

#[rustfmt::skip]
fn known_name(name: &str) -> Option<&'static str> {
    known!(name;
        "message" "presence" "iq" "body" "subject" "thread" "active" "composing" "paused" "inactive" "gone" "query" "item" "group"
        "request" "received" "displayed" "acknowledged" "markable" "replace" "reply" "x" "url" "desc" "show" "status" "priority"
        "c" "delay" "nick" "ping" "error" "text" "enable" "enabled" "resume" "resumed" "failed" "r" "a" "auth" "response" "abort"
        "success" "failure" "challenge" "mechanism" "mechanisms" "bind" "resource" "jid" "session" "starttls" "proceed" "required"
        "optional" "stream" "features" "id" "from" "to" "type" "version" "node" "ver" "hash" "h" "previd" "max" "code" "stamp"
        "name" "os" "var" "category" "xmlns" "subscription" "ask" "vCard" "storage" "conference" "identity" "feature" "blocklist"
        "block" "unblock" "store" "private" "sent" "forwarded" "result" "html" "span" "origin-id" "stanza-id" "by" "limits" "sm"
    )
}

fn known_namespace(namespace: &str) -> Option<&'static str> {
    const KNOWN: &[&str] = &[
        ns::CLIENT,
        ns::STREAM,
        ns::STREAM_ERRORS,
        ns::STANZA_ERRORS,
        ns::TLS,
        ns::SASL,
        ns::BIND,
        ns::SESSION,
        ns::STREAM_MANAGEMENT,
        ns::PING,
        ns::VERSION,
        ns::DISCO_INFO,
        ns::DISCO_ITEMS,
        ns::ROSTER,
        ns::CHAT_STATES,
        ns::RECEIPTS,
        ns::MARKERS,
        ns::CORRECTION,
        ns::REPLY,
        ns::OOB,
        ns::DELAY,
        ns::NICK,
        ns::CAPS,
        ns::CARBONS,
        ns::PRIVATE,
        ns::VCARD,
        ns::BLOCKING,
        ns::HINTS,
    ];
    KNOWN.iter().find(|known| **known == namespace).copied()
}
