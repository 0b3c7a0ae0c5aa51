//! The header of the PROXY protocol, versions 1 and 2: bytes that a proxy sends ahead of a connection that it passes on.
//!
//! [`step`] is asked after every read, first with nothing, and says how many more bytes belong to the header: nothing behind it is read.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};

/// How version 2 begins.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
pub const WORD: &[u8] = b"PROXY ";

/// Longest header of version 1 with its line end.
pub const LONGEST_LINE: usize = 107;

/// Longest header of version 2: addresses, and what proxies tell of TLS besides.
pub const LONGEST: usize = 4096;

/// Signature, command, family and length of version 2.
const FIXED: usize = 16;

/// Who is behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client: its address, and the one that it connected to.
    Client(SocketAddr, SocketAddr),
    /// The proxy itself, which looks whether anybody is here, or does not know.
    Proxy,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes more belong to the header at least: one or more.
    Read(usize),
    /// That was all of it.
    Whole(Origin),
}

/// What came is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

/// What the bytes so far ask for.
///
/// # Errors
/// They are no header, or do not begin one.
pub fn step(bytes: &[u8]) -> Result<Step, NoHeader> {
    // The shortest line of version 1, "PROXY UNKNOWN" and its end, is longer than what tells the versions apart.
    let Some(beginning) = bytes.first_chunk::<{ SIGNATURE.len() }>() else { return Ok(Step::Read(SIGNATURE.len() - bytes.len())) };
    let length = if *beginning == SIGNATURE { version_2(bytes)? } else { version_1(bytes)? };
    if bytes.len() < length {
        return Ok(Step::Read(length - bytes.len()));
    }
    parse(bytes).map(Step::Whole)
}

/// How long the header is at least.
fn version_2(bytes: &[u8]) -> Result<usize, NoHeader> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Ok(FIXED) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST { Err(NoHeader) } else { Ok(length) }
}

/// The same for a line, whose end is found byte by byte.
fn version_1(bytes: &[u8]) -> Result<usize, NoHeader> {
    if !bytes.starts_with(WORD) {
        return Err(NoHeader);
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => Ok(end + 1),
        None if bytes.len() >= LONGEST_LINE => Err(NoHeader),
        None => Ok(bytes.len() + 1),
    }
}

fn parse(bytes: &[u8]) -> Result<Origin, NoHeader> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (header, length) = ProxyHeader::parse(bytes, config).map_err(|_| NoHeader)?;
    if length != bytes.len() {
        return Err(NoHeader);
    }
    match header.proxied_address() {
        Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
            Ok(Origin::Client(canonical(*source), canonical(*destination)))
        }
        Some(ProxiedAddress { protocol: Protocol::Datagram, .. }) => Err(NoHeader),
        None => Ok(Origin::Proxy),
    }
}

/// An IPv4 address as such.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
