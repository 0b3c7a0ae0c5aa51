//! Entity capabilities (XEP-0115): the hash by which a client names the list of what it can, and whether a list has that hash.
//!
//! The hash is weak against those who choose their lists: names with a `<` run into each other (§8.1 tells more). A list with one is
//! taken for what it says and never remembered.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::{ns, stanza::Element};
use crate::fingerprint::MAX_SOFTWARE_BYTES;

/// What a client's presence says of its capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    algorithm: &'static Algorithm,
    /// The hash, in base64.
    pub(super) ver: String,
}

impl Announced {
    /// Reads `<c/>`; `None` where it names no hash of a kind that is known.
    pub(super) fn of(caps: &Element) -> Option<Self> {
        let algorithm = match caps.attribute("hash")? {
            "sha-1" => &SHA1_FOR_LEGACY_USE_ONLY,
            "sha-256" => &SHA256,
            _ => return None,
        };
        let ver = caps.attribute("ver").filter(|ver| !ver.is_empty() && ver.len() <= MAX_SOFTWARE_BYTES)?;
        Some(Self { algorithm, ver: ver.to_owned() })
    }

    /// Whether `query`, an answer to disco#info, has this hash.
    pub(super) fn is_of(&self, query: &Element) -> bool {
        let hashed = verification(query).map(|text| STANDARD.encode(digest(self.algorithm, text.as_bytes())));
        hashed.as_deref() == Some(self.ver.as_str())
    }
}

/// The text that is hashed (§5.1); `None` where the list is ill-formed (§5.4) or could be another's.
fn verification(query: &Element) -> Option<String> {
    let own = || query.elements().filter(|child| child.namespace() == ns::DISCO_INFO);
    let identities = own()
        .filter(|child| child.name() == "identity")
        .map(|identity| ["category", "type", "xml:lang", "name"].map(|name| identity.attribute(name).unwrap_or_default().to_owned()));
    let identities = sorted(identities.collect())?.iter().map(|fields| fields.join("/")).collect();
    let features = own().filter(|child| child.name() == "feature").map(|feature| feature.attribute("var").unwrap_or_default().to_owned());
    let mut forms: Vec<_> = query.elements().filter(|child| child.is("x", ns::DATA_FORM)).filter_map(form).collect::<Option<_>>()?;
    forms.sort();
    if forms.windows(2).any(|pair| matches!(pair, [one, other] if one.first() == other.first())) {
        return None;
    }
    let lines = [identities, sorted(features.collect())?, forms.concat()].concat();
    if lines.iter().any(|line| line.contains('<')) {
        return None;
    }
    Some(lines.iter().flat_map(|line| [line.as_str(), "<"]).collect())
}

/// In order, and none twice.
fn sorted<T: Ord>(mut lines: Vec<T>) -> Option<Vec<T>> {
    lines.sort();
    lines.windows(2).all(|pair| matches!(pair, [one, other] if one != other)).then_some(lines)
}

/// A form's lines, its type first: nothing for a form without a type, `None` within for one with several.
fn form(form: &Element) -> Option<Option<Vec<String>>> {
    let values =
        |field: &Element| -> Vec<String> { field.elements().filter(|child| child.is("value", ns::DATA_FORM)).map(Element::text).collect() };
    let fields = || form.elements().filter(|child| child.is("field", ns::DATA_FORM));
    let kind = fields().find(|field| field.attribute("var") == Some("FORM_TYPE") && field.attribute("type") == Some("hidden"))?;
    let Ok([kind]) = <[String; 1]>::try_from(values(kind)) else { return Some(None) };
    let mut named: Vec<(String, Vec<String>)> =
        fields().filter_map(|field| Some((field.attribute("var").filter(|var| *var != "FORM_TYPE")?.to_owned(), values(field)))).collect();
    named.sort();
    let lines = named.into_iter().flat_map(|(var, mut values)| {
        values.sort();
        std::iter::once(var).chain(values)
    });
    Some(Some(std::iter::once(kind).chain(lines).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::xmpp::reader::{AFTER_LOGIN, ReadEvent, Reader};

    /// As a client's list is read: `xml:lang` counts.
    fn quoted(xml: &str) -> Element {
        let mut reader = Reader::new(AFTER_LOGIN);
        reader.push(b"<stream:stream version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>");
        reader.push(xml.as_bytes());
        std::iter::from_fn(|| reader.poll().unwrap())
            .find_map(|event| if let ReadEvent::Stanza(stanza) = event { Some(stanza) } else { None })
            .unwrap()
    }

    fn announced(hash: &str, ver: &str) -> Option<Announced> {
        Announced::of(&Element::new("c", ns::CAPS).with_attribute("hash", hash).with_attribute("ver", ver))
    }

    /// The examples of XEP-0115 §5.2 and §5.3.
    #[test]
    fn the_examples_of_the_standard_have_their_hashes() {
        let simple = quoted(
            "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' name='Exodus 0.9.1' type='pc'/>\
             <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>\
             <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/></query>",
        );
        assert!(announced("sha-1", "QgayPKawpkPSDYmwT/WM94uAlu0=").unwrap().is_of(&simple));
        assert!(!announced("sha-1", "QgayPKawpkPSDYmwT/WM94uAlu1=").unwrap().is_of(&simple));
        assert!(!announced("sha-256", "QgayPKawpkPSDYmwT/WM94uAlu0=").unwrap().is_of(&simple));
        let complex = quoted(
            "<query xmlns='http://jabber.org/protocol/disco#info'>\
             <identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/><identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>\
             <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>\
             <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>\
             <x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>\
             <field var='ip_version'><value>ipv4</value><value>ipv6</value></field><field var='os'><value>Mac</value></field>\
             <field var='os_version'><value>10.5.1</value></field><field var='software'><value>Psi</value></field>\
             <field var='software_version'><value>0.11</value></field></x></query>",
        );
        assert!(announced("sha-1", "q07IKJEyjvHSyhy//CH0CxmKi8w=").unwrap().is_of(&complex));
    }

    #[test]
    fn a_list_that_says_something_twice_or_could_be_read_in_two_ways_has_no_hash() {
        for inside in [
            "<feature var='a'/><feature var='a'/>",
            "<identity category='client' type='pc'/><identity category='client' type='pc'/>",
            "<feature var='a&lt;b'/>",
            "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field></x>\
             <x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field></x>",
            "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value><value>b</value></field></x>",
        ] {
            let query = quoted(&format!("<query xmlns='http://jabber.org/protocol/disco#info'>{inside}</query>"));
            assert_eq!(verification(&query), None, "{inside}");
        }
        let ignored = quoted(
            "<query xmlns='http://jabber.org/protocol/disco#info'><feature var='a'/><x xmlns='jabber:x:data'><field var='b'><value>c</value></field></x></query>",
        );
        assert_eq!(verification(&ignored).as_deref(), Some("a<"));
    }

    #[test]
    fn hashes_of_unknown_kinds_and_of_no_bearable_length_are_none() {
        assert_eq!(announced("md5", "x="), None);
        assert_eq!(announced("sha-1", ""), None);
        assert_eq!(announced("sha-1", &"x".repeat(MAX_SOFTWARE_BYTES + 1)), None);
    }
}
