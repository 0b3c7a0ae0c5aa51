//! Bytes of an XML stream into stanzas, within limits.
//!
//! rxml's raw parser judges the syntax; this module resolves namespaces, counts what each top-level element costs while it
//! arrives, and joins the pieces into an [`Element`]. It never holds more than one element within its limits and one push.
//! Of foreign attributes only `xml:lang` is kept; namespace prefixes are gone once a name is resolved.

mod build;
mod names;

use rxml::{Parse, RawParser};

use self::build::Builder;
use super::stanza::Element;

/// Longest name or attribute value that the tokenizer takes; longer text is joined from pieces.
const TOKEN_BYTES: usize = 8 * 1024;

/// What a stream may cost before and after login.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// Bytes of one top-level element (and of the stream header). Whitespace between elements does not count.
    pub stanza_bytes: usize,
    /// Elements in one top-level element.
    pub elements: usize,
    /// Nesting of one top-level element.
    pub depth: usize,
    /// Attributes of one element.
    pub attributes: usize,
}

/// Before login: 8 KiB, 32 elements, depth 8.
pub const BEFORE_LOGIN: ReaderLimits = ReaderLimits { stanza_bytes: 8 * 1024, elements: 32, depth: 8, attributes: 64 };
/// After login: 256 KiB, 2000 elements, depth 32.
pub const AFTER_LOGIN: ReaderLimits = ReaderLimits { stanza_bytes: 256 * 1024, elements: 2000, depth: 32, attributes: 64 };

/// What the reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadEvent {
    /// `<stream:stream …>`: its `to`, `from`, `version`, `xml:lang` as attributes of an element without children.
    StreamOpen(Element),
    /// One whole top-level element: stanza or nonza.
    Stanza(Element),
    /// `</stream:stream>`.
    StreamClose,
}

/// Why a stream must end; maps to a stream error (RFC 6120 §4.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// Ill-formed XML.
    #[error("not-well-formed")]
    NotWellFormed,
    /// A DTD, processing instruction, comment or entity (RFC 6120 §11.1).
    #[error("restricted-xml")]
    RestrictedXml,
    /// A limit was passed.
    #[error("policy-violation")]
    PolicyViolation,
    /// Wrong namespace of the stream.
    #[error("invalid-namespace")]
    InvalidNamespace,
    /// Bad UTF-8 or another encoding.
    #[error("unsupported-encoding")]
    UnsupportedEncoding,
    /// Not a stream at all.
    #[error("bad-format")]
    BadFormat,
}

impl StreamFault {
    /// The condition's element name.
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotWellFormed => "not-well-formed",
            Self::RestrictedXml => "restricted-xml",
            Self::PolicyViolation => "policy-violation",
            Self::InvalidNamespace => "invalid-namespace",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::BadFormat => "bad-format",
        }
    }
}

/// Where in the stream the next byte falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but whitespace has come.
    Start,
    /// Between top-level elements: only whitespace, an element or the stream's end may follow.
    Between,
    /// Inside a top-level element or the stream header.
    Inside,
    /// The header has just been told: the same tag may also have ended the stream.
    HeaderTold,
    /// After `</stream:stream>`.
    Closed,
    /// After a fault.
    Dead(StreamFault),
}

/// Reads one XML stream.
pub struct Reader {
    place: Place,
    limits: ReaderLimits,
    next_limits: ReaderLimits,
    parser: RawParser,
    builder: Builder,
    unread: Vec<u8>,
    taken: usize,
    used: usize,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What was read may hold a password: only sizes are shown.
        f.debug_struct("Reader")
            .field("place", &self.place)
            .field("unread", &self.unread())
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader at the start of a stream.
    pub fn new(limits: ReaderLimits) -> Self {
        Self {
            place: Place::Start,
            limits,
            next_limits: limits,
            parser: new_parser(),
            builder: Builder::default(),
            unread: Vec::new(),
            taken: 0,
            used: 0,
        }
    }

    /// Takes in bytes as they came from the transport. Call `poll` until it yields `None` before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.place, Place::Closed | Place::Dead(_)) {
            return;
        }
        if self.taken > 0 {
            self.unread.drain(..self.taken);
            self.taken = 0;
        }
        self.unread.extend_from_slice(bytes);
    }

    /// The next event, `None` when more bytes are needed. After an error the reader is dead: it yields the same error again.
    /// After `StreamClose` it yields `None`, whatever else arrives.
    pub fn poll(&mut self) -> Result<Option<ReadEvent>, StreamFault> {
        let result = match self.place {
            Place::Dead(fault) => return Err(fault),
            Place::Closed => return Ok(None),
            Place::Start | Place::Between | Place::Inside | Place::HeaderTold => self.advance(),
        };
        match &result {
            Err(fault) => self.finish(Place::Dead(*fault)),
            Ok(Some(ReadEvent::StreamClose)) => self.finish(Place::Closed),
            Ok(None) => self.release(),
            Ok(Some(ReadEvent::StreamOpen(_) | ReadEvent::Stanza(_))) => {}
        }
        result
    }

    /// Changes the limits from the next top-level element on.
    pub fn set_limits(&mut self, limits: ReaderLimits) {
        self.next_limits = limits;
        if matches!(self.place, Place::Start | Place::Between | Place::HeaderTold) {
            self.limits = limits;
        }
    }

    /// Bytes that were pushed and not yet read.
    pub fn unread(&self) -> usize {
        self.unread.len() - self.taken
    }

    /// Whether an element has begun and not ended: what a completion timer watches.
    pub fn is_inside_element(&self) -> bool {
        self.place == Place::Inside
    }

    /// Begins a new stream (after STARTTLS). Tells how many unread bytes other than whitespace were dropped: any after
    /// `<starttls/>` are an attack.
    pub fn restart(&mut self) -> usize {
        let dropped = self.unread[self.taken..].iter().filter(|byte| !is_space(**byte)).count();
        *self = Self::new(self.next_limits);
        dropped
    }

    /// Begins a new stream, keeping unread bytes (after SASL success a client may pipeline).
    pub fn restart_keeping(&mut self) {
        let unread = self.unread.split_off(self.taken);
        *self = Self { unread, ..Self::new(self.next_limits) };
    }

    fn advance(&mut self) -> Result<Option<ReadEvent>, StreamFault> {
        loop {
            let allowance = if self.place == Place::HeaderTold {
                0
            } else if self.enter()? {
                self.limits.stanza_bytes.saturating_sub(self.used)
            } else {
                return Ok(None);
            };
            let unread = &self.unread[self.taken..];
            let mut slice = &unread[..allowance.min(unread.len())];
            let offered = slice.len();
            let parsed = self.parser.parse(&mut slice, false);
            let consumed = offered - slice.len();
            self.taken += consumed;
            self.used += consumed;
            match parsed {
                Ok(Some(event)) => {
                    if let Some(found) = self.builder.take_in(event, &self.limits)? {
                        self.place = if matches!(found, ReadEvent::StreamOpen(_)) { Place::HeaderTold } else { Place::Between };
                        return Ok(Some(found));
                    }
                }
                Err(rxml::error::EndOrError::NeedMoreData) if self.place == Place::HeaderTold => self.place = Place::Between,
                Err(rxml::error::EndOrError::NeedMoreData) if self.used >= self.limits.stanza_bytes => {
                    return Err(StreamFault::PolicyViolation);
                }
                Err(rxml::error::EndOrError::NeedMoreData) => return Ok(None),
                Err(rxml::error::EndOrError::Error(error)) => return Err(fault_of(&error)),
                Ok(None) => return Err(StreamFault::NotWellFormed),
            }
        }
    }

    /// Passes over whitespace between top-level elements; false when nothing else is there.
    fn enter(&mut self) -> Result<bool, StreamFault> {
        if self.place == Place::Inside {
            return Ok(true);
        }
        let unread = &self.unread[self.taken..];
        let spaces = unread.iter().position(|byte| !is_space(*byte));
        self.taken += spaces.unwrap_or(unread.len());
        match spaces.map(|at| unread[at]) {
            None => return Ok(false),
            Some(b'<') => {}
            Some(0xfe | 0xff) => return Err(StreamFault::UnsupportedEncoding),
            Some(_) if self.place == Place::Start => return Err(StreamFault::NotWellFormed),
            Some(_) => return Err(StreamFault::BadFormat),
        }
        self.place = Place::Inside;
        self.limits = self.next_limits;
        self.used = 0;
        self.builder.begin();
        Ok(true)
    }

    /// Gives memory back when every byte is read: most streams are idle most of the time.
    fn release(&mut self) {
        if self.taken == self.unread.len() {
            self.unread = Vec::new();
            self.taken = 0;
        }
        if self.place != Place::Inside {
            self.parser.release_temporaries();
            self.builder.release();
        }
    }

    fn finish(&mut self, place: Place) {
        *self = Self { place, ..Self::new(self.next_limits) };
    }
}

fn new_parser() -> RawParser {
    <RawParser as rxml::WithOptions>::with_options(rxml::Options { max_token_length: TOKEN_BYTES, ..rxml::Options::default() })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The stream error for what the tokenizer refused. Its texts are pinned by tests: rxml has no finer kinds.
fn fault_of(error: &rxml::Error) -> StreamFault {
    use rxml::Error;
    match error {
        Error::InvalidUtf8Byte(_) | Error::RestrictedXml("only utf-8 encoding is allowed") => StreamFault::UnsupportedEncoding,
        Error::RestrictedXml("long name or reference" | "event too long") => StreamFault::PolicyViolation,
        Error::RestrictedXml(_) | Error::UndeclaredEntity | Error::InvalidSyntax("malformed cdata or comment section start") => {
            StreamFault::RestrictedXml
        }
        Error::InvalidEof(_)
        | Error::InvalidChar(..)
        | Error::UnexpectedChar(..)
        | Error::UnexpectedByte(..)
        | Error::InvalidSyntax(_)
        | Error::UnexpectedToken(..)
        | Error::DuplicateAttribute
        | Error::ElementMismatch
        | Error::MultiColonName(_)
        | Error::EmptyNamePart(_)
        | Error::UndeclaredNamespacePrefix(_)
        | Error::ReservedNamespacePrefix
        | Error::ReservedNamespaceName
        | Error::InvalidLocalName(_)
        | Error::EmptyNamespaceUri => StreamFault::NotWellFormed,
    }
}

#[cfg(test)]
mod tests;
