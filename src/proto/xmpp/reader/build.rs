//! Parser events into elements: names are resolved, costs are counted as they arise.

use std::borrow::Cow;

use rxml::{NcName, RawEvent};

use super::names;
use super::{ReadEvent, ReaderLimits, StreamFault};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;

/// Namespace declarations in scope at once; a bound on what looking one up may cost.
const MAX_BINDINGS: usize = 128;
/// Longest namespace name; each element of a tree may hold a copy of it.
const MAX_NAMESPACE_BYTES: usize = 256;
/// The namespace that `xmlns` itself belongs to: nothing may be bound to it (Namespaces in XML 1.0 §3).
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

type Prefix = Option<NcName>;

/// `xmlns='…'` or `xmlns:p='…'`, and the depth of the element that says so.
#[derive(Debug)]
struct Binding {
    depth: usize,
    prefix: Prefix,
    namespace: Cow<'static, str>,
}

/// An element whose start tag has not ended.
#[derive(Debug)]
struct Head {
    prefix: Prefix,
    name: NcName,
    attributes: Vec<(Cow<'static, str>, String)>,
    prefixed: Vec<(NcName, NcName, String)>,
    count: usize,
}

/// Builds one top-level element at a time.
#[derive(Debug, Default)]
pub(super) struct Builder {
    opened: bool,
    head: Option<Head>,
    open: Vec<Element>,
    bindings: Vec<Binding>,
    elements: usize,
}

impl Builder {
    /// A new top-level element begins: its costs are counted from nothing.
    pub(super) fn begin(&mut self) {
        self.elements = 0;
    }

    /// Gives memory back between elements.
    pub(super) fn release(&mut self) {
        self.open = Vec::new();
        self.bindings.shrink_to_fit();
    }

    /// Takes in one event; yields what it completes.
    pub(super) fn take_in(&mut self, event: RawEvent, limits: &ReaderLimits) -> Result<Option<ReadEvent>, StreamFault> {
        match event {
            RawEvent::XmlDeclaration(..) => Ok(None),
            RawEvent::ElementHeadOpen(_, (prefix, name)) => self.head_opens(prefix, name, limits).map(|()| None),
            RawEvent::Attribute(_, (prefix, name), value) => self.attribute(prefix, name, value, limits).map(|()| None),
            RawEvent::ElementHeadClose(_) => self.head_closes(),
            RawEvent::ElementFoot(_) => Ok(self.foot()),
            RawEvent::Text(_, text) => match self.open.last_mut() {
                Some(element) => {
                    element.append_text(text);
                    Ok(None)
                }
                None => Err(StreamFault::BadFormat),
            },
        }
    }

    /// Depth of the innermost open element: 0 is the stream itself.
    fn depth(&self) -> usize {
        self.open.len() + usize::from(self.opened)
    }

    fn head_opens(&mut self, prefix: Prefix, name: NcName, limits: &ReaderLimits) -> Result<(), StreamFault> {
        self.elements += 1;
        if self.elements > limits.elements || self.open.len() >= limits.depth {
            return Err(StreamFault::PolicyViolation);
        }
        self.head = Some(Head { prefix, name, attributes: Vec::new(), prefixed: Vec::new(), count: 0 });
        Ok(())
    }

    fn attribute(&mut self, prefix: Prefix, name: NcName, value: String, limits: &ReaderLimits) -> Result<(), StreamFault> {
        let depth = self.depth();
        let head = self.head.as_mut().ok_or(StreamFault::NotWellFormed)?;
        head.count += 1;
        if head.count > limits.attributes {
            return Err(StreamFault::PolicyViolation);
        }
        match prefix {
            None if name == "xmlns" => self.bind(depth, None, value),
            None => {
                if head.attributes.iter().any(|(known, _)| name == **known) {
                    return Err(StreamFault::NotWellFormed);
                }
                head.attributes.push((names::name(&name), value));
                Ok(())
            }
            Some(prefix) if prefix == "xmlns" => self.bind(depth, Some(name), value),
            Some(prefix) => {
                head.prefixed.push((prefix, name, value));
                Ok(())
            }
        }
    }

    fn bind(&mut self, depth: usize, prefix: Prefix, namespace: String) -> Result<(), StreamFault> {
        let twice = self.bindings.iter().rev().take_while(|known| known.depth == depth).any(|known| known.prefix == prefix);
        if twice || namespace == XMLNS {
            return Err(StreamFault::NotWellFormed);
        }
        if namespace.len() > MAX_NAMESPACE_BYTES || self.bindings.len() >= MAX_BINDINGS {
            return Err(StreamFault::PolicyViolation);
        }
        self.bindings.push(Binding { depth, prefix, namespace: names::namespace(namespace) });
        Ok(())
    }

    fn resolve(&self, prefix: Option<&NcName>) -> Result<Cow<'static, str>, StreamFault> {
        if prefix.is_some_and(|prefix| prefix == "xml") {
            return Ok(Cow::Borrowed(rxml::parser::XMLNS_XML));
        }
        match self.bindings.iter().rev().find(|known| known.prefix.as_ref() == prefix) {
            Some(binding) => Ok(binding.namespace.clone()),
            None if prefix.is_none() => Ok(Cow::Borrowed("")),
            None => Err(StreamFault::NotWellFormed),
        }
    }

    fn head_closes(&mut self) -> Result<Option<ReadEvent>, StreamFault> {
        let mut head = self.head.take().ok_or(StreamFault::NotWellFormed)?;
        let namespace = self.resolve(head.prefix.as_ref())?;
        self.keep_language(&mut head)?;
        let element = Element::from_parts(names::name(&head.name), namespace, head.attributes);
        if self.opened {
            self.open.push(element);
            return Ok(None);
        }
        self.opened = true;
        if element.namespace() != ns::STREAM || self.resolve(None)? != ns::CLIENT {
            return Err(StreamFault::InvalidNamespace);
        }
        if element.name() != "stream" {
            return Err(StreamFault::BadFormat);
        }
        Ok(Some(ReadEvent::StreamOpen(element)))
    }

    /// Judges the prefixed attributes and keeps `xml:lang` alone.
    fn keep_language(&self, head: &mut Head) -> Result<(), StreamFault> {
        if head.prefixed.is_empty() {
            return Ok(());
        }
        let mut seen: Vec<(Cow<'static, str>, NcName)> = Vec::with_capacity(head.prefixed.len());
        for (prefix, name, value) in head.prefixed.drain(..) {
            let namespace = self.resolve(Some(&prefix))?;
            if seen.iter().any(|(known, local)| *known == namespace && *local == name) {
                return Err(StreamFault::NotWellFormed);
            }
            if name == "lang" && namespace == rxml::parser::XMLNS_XML {
                head.attributes.push((Cow::Borrowed("xml:lang"), value));
            }
            seen.push((namespace, name));
        }
        Ok(())
    }

    fn foot(&mut self) -> Option<ReadEvent> {
        let Some(element) = self.open.pop() else {
            return Some(ReadEvent::StreamClose);
        };
        let depth = self.depth();
        while self.bindings.last().is_some_and(|binding| binding.depth >= depth) {
            self.bindings.pop();
        }
        match self.open.last_mut() {
            Some(parent) => {
                parent.push_child(element);
                None
            }
            None => Some(ReadEvent::Stanza(element)),
        }
    }
}
