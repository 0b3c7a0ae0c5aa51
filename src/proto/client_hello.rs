//! Reads a TLS ClientHello as it passes (RFC 8446 §4.1.2, §5.1), over TCP in its records or over QUIC without.
//!
//! A hello with a post-quantum key share has some 1,500 bytes: it comes in two TCP segments or two QUIC packets, and a client may cut it
//! into as many records as it likes. So bytes are taken in any pieces, [`MAX_HELLO_BYTES`] at most, until the message is whole. What
//! fingerprints do not ask for is skipped, not judged: the TLS library does that.

use crate::fingerprint::client_hello::{ClientHello, extension};

/// Largest hello that is read, its four bytes of header included.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

/// Largest payload of a plaintext record (RFC 8446 §5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;

/// Type, version and length of a record.
const RECORD_HEADER: usize = 5;

/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;

/// The type of a record that holds handshake messages.
const HANDSHAKE: u8 = 22;

/// The type of a ClientHello among handshake messages.
const CLIENT_HELLO: u8 = 1;

/// Why there is no hello to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloFault {
    /// These bytes are no TLS handshake.
    #[error("no TLS handshake")]
    NotTls,
    /// It is larger than [`MAX_HELLO_BYTES`].
    #[error("the TLS hello is too large")]
    TooLarge,
    /// Its lengths do not agree.
    #[error("the TLS hello is malformed")]
    Malformed,
}

/// Collects a hello from TLS records.
///
/// Give `push` what the socket yields, in its order, until it answers with a hello or a fault.
#[derive(Debug, Default)]
pub struct RecordReader {
    header: Vec<u8>,
    /// Bytes of the present record that are still to come.
    left: usize,
    message: MessageReader,
}

impl RecordReader {
    /// Takes more bytes; yields the hello once it is whole.
    ///
    /// # Errors
    /// There will be none.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Option<ClientHello>, HelloFault> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(RECORD_HEADER - self.header.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                self.read_header()?;
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= part.len();
            bytes = rest;
            if let Some(hello) = self.message.push(part)? {
                return Ok(Some(hello));
            }
        }
        Ok(None)
    }

    fn read_header(&mut self) -> Result<(), HelloFault> {
        match *self.header {
            [kind, ..] if kind != HANDSHAKE => return Err(HelloFault::NotTls),
            [_, major, ..] if major != 3 => return Err(HelloFault::NotTls),
            [_, _, _, high, low] => {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
                // An empty handshake record is forbidden; many of them would be a way to say nothing for ever.
                if self.left == 0 || self.left > MAX_RECORD_BYTES {
                    return Err(HelloFault::Malformed);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Collects a hello from the handshake's own bytes, as QUIC's CRYPTO frames carry them.
#[derive(Debug, Default)]
pub struct MessageReader {
    bytes: Vec<u8>,
}

impl MessageReader {
    /// Takes more bytes; yields the hello once it is whole.
    ///
    /// # Errors
    /// There will be none.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloFault> {
        let room = MAX_HELLO_BYTES - self.bytes.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(taken);
        let [kind, a, b, c, ..] = *self.bytes else {
            return if self.bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) { Err(HelloFault::NotTls) } else { Ok(None) };
        };
        if kind != CLIENT_HELLO {
            return Err(HelloFault::NotTls);
        }
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        if length > MAX_HELLO_BYTES - MESSAGE_HEADER {
            return Err(HelloFault::TooLarge);
        }
        match self.bytes.get(MESSAGE_HEADER..MESSAGE_HEADER + length) {
            Some(body) => read(body).map(Some).ok_or(HelloFault::Malformed),
            None => Ok(None),
        }
    }
}

/// A ClientHello without its header.
fn read(body: &[u8]) -> Option<ClientHello> {
    let mut cursor = Cursor(body);
    let mut hello = ClientHello { legacy_version: cursor.u16()?, ..ClientHello::default() };
    cursor.take(32)?;
    cursor.vector8()?;
    hello.cipher_suites = numbers(cursor.vector16()?)?;
    cursor.vector8()?;
    // Before TLS 1.2 a hello may end here.
    let mut extensions = if cursor.0.is_empty() { Cursor(&[]) } else { Cursor(cursor.vector16()?) };
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = Cursor(extensions.vector16()?);
        match kind {
            extension::SUPPORTED_VERSIONS => hello.supported_versions = Some(numbers(data.vector8()?)?),
            extension::SIGNATURE_ALGORITHMS => hello.signature_schemes = numbers(data.vector16()?)?,
            extension::ALPN => hello.alpn = Cursor(data.vector16()?).vector8().unwrap_or_default().to_vec(),
            _ => {}
        }
        hello.extensions.push(kind);
    }
    cursor.0.is_empty().then_some(hello)
}

fn numbers(bytes: &[u8]) -> Option<Vec<u16>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().copied().map(u16::from_be_bytes).collect())
}

/// Bytes from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// What follows its length in one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?.first().copied()?;
        self.take(usize::from(length))
    }

    /// What follows its length in two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
