//! What a client's answers say about its software, cut and cleaned.

use super::super::{im::text::cleaned_line, ns, stanza::Element};
use crate::fingerprint::{ClientSoftware, Confidence, MAX_SOFTWARE_BYTES, SoftwareSource};

/// Where well-known clients say that they live (XEP-0115 §4, `node`), as the part of the address that stays.
const HOMES: [(&str, &str); 11] = [
    ("profanity-im.github.io", "Profanity"),
    ("pidgin.im", "Pidgin"),
    ("dino.im", "Dino"),
    ("gajim.org", "Gajim"),
    ("conversations.im", "Conversations"),
    ("conversejs.org", "Converse"),
    ("monal-im.org", "Monal"),
    ("slixmpp.com", "Slixmpp"),
    ("poez.io", "poezio"),
    ("movim.eu", "Movim"),
    ("psi-im.org", "Psi"),
];

/// A version answer (XEP-0092 §3); `None` where it names nothing.
pub(super) fn of_version(query: &Element) -> Option<ClientSoftware> {
    let field = |name| query.child(name, ns::VERSION).map(|field| cut(&field.text())).unwrap_or_default();
    let name = field("name");
    (!name.is_empty()).then(|| ClientSoftware {
        name,
        version: field("version"),
        system: field("os"),
        source: SoftwareSource::Asked,
        confidence: Confidence::Stated,
        ..ClientSoftware::unknown()
    })
}

/// The name of a disco#info answer's identity (XEP-0030 §3), the one of category client first. "Profanity 0.13.1" is taken apart,
/// which is a guess.
pub(super) fn of_identity(query: &Element) -> Option<ClientSoftware> {
    let named = || {
        let identities = query.elements().filter(|child| child.is("identity", ns::DISCO_INFO));
        identities.filter(|identity| identity.attribute("name").is_some_and(|name| !cut(name).is_empty()))
    };
    let identity = named().find(|identity| identity.attribute("category") == Some("client")).or_else(|| named().next())?;
    let stated = cut(identity.attribute("name")?);
    let (name, version, confidence) = match split_version(&stated) {
        Some((name, version)) => (name.to_owned(), version.to_owned(), Confidence::Inferred),
        None => (stated, String::new(), Confidence::Stated),
    };
    Some(ClientSoftware { name, version, source: SoftwareSource::Caps, confidence, ..ClientSoftware::unknown() })
}

/// The software whose home is `node`, where it is well known.
pub(super) fn of_node(node: &str) -> Option<ClientSoftware> {
    let (_, address) = node.split_once("://")?;
    let host = address.split(['/', '#', ':']).next().unwrap_or_default();
    let host = host.strip_prefix("www.").unwrap_or(host);
    let (_, name) = HOMES.iter().find(|(home, _)| host.eq_ignore_ascii_case(home))?;
    Some(ClientSoftware {
        name: (*name).to_owned(),
        source: SoftwareSource::Caps,
        confidence: Confidence::Inferred,
        ..ClientSoftware::unknown()
    })
}

/// The node to ask for (XEP-0115 §6.2), where both parts are there and of bearable length.
pub(super) fn disco_node(node: &str, ver: &str) -> Option<String> {
    let fits = |part: &str| !part.is_empty() && part.len() <= MAX_SOFTWARE_BYTES;
    (fits(node) && fits(ver)).then(|| format!("{node}#{ver}"))
}

/// "Profanity 0.13.1" as its two parts; `None` where the last word is no version.
fn split_version(stated: &str) -> Option<(&str, &str)> {
    let (name, last) = stated.rsplit_once(' ')?;
    let version = last.strip_prefix(['v', 'V']).unwrap_or(last);
    (!name.trim().is_empty() && version.starts_with(|first: char| first.is_ascii_digit())).then(|| (name.trim_end(), version))
}

/// A field on one line, at most [`MAX_SOFTWARE_BYTES`] long.
fn cut(field: &str) -> String {
    cleaned_line(field, MAX_SOFTWARE_BYTES)
}
