//! A stanza as a small tree of elements, and its way back to text.
//!
//! Only what is rebuilt with [`Element`] is ever written to anyone: the bytes that a stranger sent never are.

use std::borrow::Cow;

/// One XML element with its namespace resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    name: Cow<'static, str>,
    namespace: Cow<'static, str>,
    attributes: Vec<(Cow<'static, str>, String)>,
    children: Vec<Node>,
}

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Another element.
    Element(Element),
    /// Character data.
    Text(String),
}

impl Element {
    /// Makes an empty element.
    pub fn new(name: impl Into<Cow<'static, str>>, namespace: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), namespace: namespace.into(), attributes: Vec::new(), children: Vec::new() }
    }

    /// An element as it was read: attribute names are distinct already.
    pub(super) fn from_parts(name: Cow<'static, str>, namespace: Cow<'static, str>, attributes: Vec<(Cow<'static, str>, String)>) -> Self {
        Self { name, namespace, attributes, children: Vec::new() }
    }

    /// Appends a piece of text, joining it with the text before it.
    pub(super) fn append_text(&mut self, piece: String) {
        match self.children.last_mut() {
            Some(Node::Text(text)) => text.push_str(&piece),
            Some(Node::Element(_)) | None => self.children.push(Node::Text(piece)),
        }
    }

    /// Sets an attribute and gives the element back.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.set_attribute(name, value);
        self
    }

    /// Appends a child element and gives the element back.
    #[must_use]
    pub fn with_child(mut self, child: Self) -> Self {
        self.push_child(child);
        self
    }

    /// Appends text and gives the element back.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.push_text(text);
        self
    }

    /// Sets an attribute. Prefixed names ("xml:lang") are kept as they are written.
    pub fn set_attribute(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let name = name.into();
        let value = value.into();
        match self.attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => self.attributes.push((name, value)),
        }
    }

    /// Appends a child element.
    pub fn push_child(&mut self, child: Self) {
        self.children.push(Node::Element(child));
    }

    /// Appends text.
    pub fn push_text(&mut self, text: impl Into<String>) {
        self.children.push(Node::Text(text.into()));
    }

    /// The local name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether this is `name` in `namespace`.
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.namespace == namespace
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first child `name` in `namespace`.
    pub fn child(&self, name: &str, namespace: &str) -> Option<&Self> {
        self.elements().find(|child| child.is(name, namespace))
    }

    /// All child elements, in order.
    pub fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            Node::Text(_) => None,
        })
    }

    /// All of the element's own text, joined.
    pub fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|node| match node {
                Node::Text(text) => Some(text.as_str()),
                Node::Element(_) => None,
            })
            .collect()
    }

    /// Appends the element as text, declaring its namespace where it differs from `outer`, the namespace around it.
    pub fn write(&self, outer: &str, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        if self.namespace != outer {
            out.push_str(" xmlns='");
            escape_attribute(&self.namespace, out);
            out.push('\'');
        }
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("='");
            escape_attribute(value, out);
            out.push('\'');
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for node in &self.children {
            match node {
                Node::Element(child) => child.write(&self.namespace, out),
                Node::Text(text) => escape_text(text, out),
            }
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }

    /// The element as text within a stream whose default namespace is `jabber:client`.
    pub fn to_xml(&self) -> String {
        let mut out = String::with_capacity(128);
        self.write(super::ns::CLIENT, &mut out);
        out
    }
}

/// Appends text with markup replaced. Characters that XML 1.0 cannot carry are left out.
pub(super) fn escape_text(text: &str, out: &mut String) {
    escape(text, out, |byte| match byte {
        b'\t' | b'\n' => None,
        other => replacement(other),
    });
}

/// Appends an attribute's value: here tabs and line ends are replaced too, since a parser turns bare ones into spaces.
pub(super) fn escape_attribute(value: &str, out: &mut String) {
    escape(value, out, |byte| match byte {
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        other => replacement(other),
    });
}

fn replacement(byte: u8) -> Option<&'static str> {
    match byte {
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'&' => Some("&amp;"),
        b'\'' => Some("&apos;"),
        b'"' => Some("&quot;"),
        b'\r' => Some("&#xD;"),
        0..=0x1f => Some(""),
        _ => None,
    }
}

fn escape(text: &str, out: &mut String, replacement: impl Fn(u8) -> Option<&'static str>) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let (instead, width) = match replacement(byte) {
            Some(instead) => (instead, 1),
            None if byte == 0xef && text[at..].starts_with(['\u{fffe}', '\u{ffff}']) => ("", 3),
            None => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(instead);
        plain = at + width;
    }
    out.push_str(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::xmpp::ns;

    #[test]
    fn markup_and_forbidden_characters_never_reach_the_stream() {
        let element = Element::new("body", ns::CLIENT).with_attribute("a", "\t\n'\u{1}").with_text("<&>\"\r\n\t\u{0}\u{ffff}é");
        assert_eq!(element.to_xml(), "<body a='&#x9;&#xA;&apos;'>&lt;&amp;&gt;&quot;&#xD;\n\té</body>");
    }

    #[test]
    fn a_namespace_is_declared_only_where_it_changes() {
        let inner = Element::new("jid", ns::BIND).with_text("a@b/c");
        let iq = Element::new("iq", ns::CLIENT).with_child(Element::new("bind", ns::BIND).with_child(inner));
        assert_eq!(iq.to_xml(), "<iq><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>a@b/c</jid></bind></iq>");
        assert_eq!(Element::new("x", "").to_xml(), "<x xmlns=''/>");
    }
}
