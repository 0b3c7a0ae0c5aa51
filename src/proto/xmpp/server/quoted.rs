//! Stanzas in tests, as clients write them.

use rxml::{Event, Parse, Parser};

use super::super::stanza::Element;

/// The one stanza that `xml` holds, within a stream whose default namespace is `jabber:client`.
pub(in crate::proto::xmpp) fn quoted(xml: &str) -> Element {
    let document = format!("<?xml version='1.0'?><stream xmlns='jabber:client'>{xml}</stream>");
    let mut bytes = document.as_bytes();
    let mut parser = Parser::new();
    let mut open: Vec<Element> = Vec::new();
    while let Some(event) = parser.parse(&mut bytes, true).expect("quoted XML is well-formed") {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, (namespace, name), attributes) => {
                let element = Element::new(name.to_string(), namespace.to_string());
                let attributes = attributes.iter().map(|((_, name), value)| (name.to_string(), value.clone()));
                open.push(attributes.fold(element, |element, (name, value)| element.with_attribute(name, value)));
            }
            Event::Text(_, text) => open.last_mut().expect("text is inside").push_text(text),
            Event::EndElement(_) => {
                let closed = open.pop().expect("what closes was open");
                match open.last_mut() {
                    Some(outer) => outer.push_child(closed),
                    None => return closed.elements().next().expect("a stanza was quoted").clone(),
                }
            }
        }
    }
    panic!("quoted XML ends")
}
