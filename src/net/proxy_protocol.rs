//! The PROXY protocol, versions 1 and 2: a trusted proxy tells, ahead of all other bytes, whose connection it passes on.
//!
//! Nothing behind the header is read here. Whoever is no trusted proxy is not listened to: his header is none.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How version 2 begins.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
pub const WORD: &[u8] = b"PROXY ";

/// Signature, command, family and length of version 2.
const FIXED: usize = 16;

/// Longest header of version 1 with its line end.
const LONGEST_LINE: usize = 107;

/// Longest header of version 2: addresses, and what proxies tell of TLS besides.
const LONGEST: usize = 4096;

/// Who is behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client: its address, and the one that it connected to.
    Client(SocketAddr, SocketAddr),
    /// The proxy itself, which looks whether anybody is here, or does not know.
    Proxy,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFault {
    /// None came in time.
    #[error("no PROXY header came in time")]
    Late,
    /// The connection ended before its end.
    #[error("the connection ended within the PROXY header")]
    Ended(#[source] io::Error),
    /// What came is none.
    #[error("what a trusted proxy sent first is no PROXY header; let it send one (HAProxy: `send-proxy-v2`)")]
    Wrong,
}

/// Reads the header, all of it within `within`.
///
/// # Errors
/// There is none, or it is not whole.
pub async fn read(transport: &mut (impl AsyncRead + Unpin), within: Duration) -> Result<Origin, HeaderFault> {
    let bytes = timeout(within, collect(transport)).await.map_err(|_elapsed| HeaderFault::Late)??;
    let (header, length) =
        ProxyHeader::parse(&bytes, ParseConfig { include_tlvs: false, ..ParseConfig::default() }).map_err(|_| HeaderFault::Wrong)?;
    if length != bytes.len() {
        return Err(HeaderFault::Wrong);
    }
    match header.proxied_address() {
        Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
            Ok(Origin::Client(canonical(*source), canonical(*destination)))
        }
        Some(ProxiedAddress { protocol: Protocol::Datagram, .. }) => Err(HeaderFault::Wrong),
        None => Ok(Origin::Proxy),
    }
}

/// An IPv4 address as such.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Reads as many bytes as the header has, and none more.
async fn collect(transport: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HeaderFault> {
    // The shortest line of version 1, "PROXY UNKNOWN" and its end, is longer than what tells the versions apart.
    let mut bytes = vec![0; SIGNATURE.len()];
    transport.read_exact(&mut bytes).await.map_err(HeaderFault::Ended)?;
    if bytes == SIGNATURE {
        bytes.resize(FIXED, 0);
        transport.read_exact(bytes.get_mut(SIGNATURE.len()..).unwrap_or_default()).await.map_err(HeaderFault::Ended)?;
        let length = bytes.last_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        if FIXED + length > LONGEST {
            return Err(HeaderFault::Wrong);
        }
        bytes.resize(FIXED + length, 0);
        transport.read_exact(bytes.get_mut(FIXED..).unwrap_or_default()).await.map_err(HeaderFault::Ended)?;
        return Ok(bytes);
    }
    if !bytes.starts_with(WORD) {
        return Err(HeaderFault::Wrong);
    }
    while !bytes.ends_with(b"\n") {
        if bytes.len() == LONGEST_LINE {
            return Err(HeaderFault::Wrong);
        }
        bytes.push(transport.read_u8().await.map_err(HeaderFault::Ended)?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    async fn read_all(mut bytes: &[u8]) -> (Result<Origin, HeaderFault>, usize) {
        let before = bytes.len();
        let outcome = read(&mut bytes, WITHIN).await;
        (outcome, before - bytes.len())
    }

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap();
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), addresses].concat()
    }

    #[tokio::test]
    async fn both_versions_tell_the_client_and_nothing_behind_them_is_read() {
        let client = Origin::Client("192.0.2.7:4711".parse().unwrap(), "198.51.100.1:5222".parse().unwrap());
        let lines: [(&[u8], Origin); 4] = [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 5222\r\n", client),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4711 5222\r\n", client),
            (b"PROXY UNKNOWN\r\n", Origin::Proxy),
            (b"PROXY UNKNOWN ffff:f:f:f:f:f:f:ffff ffff:f:f:f:f:f:f:ffff 65535 65535\r\n", Origin::Proxy),
        ];
        for (line, expected) in lines {
            let (origin, taken) = read_all(&[line, b"\x16\x03\x01"].concat()).await;
            assert_eq!((origin.unwrap(), taken), (expected, line.len()), "{line:?}");
        }
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x14, 0x66];
        let with_tls = [&v4[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        for header in [version_2(0x21, 0x11, &v4), version_2(0x21, 0x11, &with_tls)] {
            let (origin, taken) = read_all(&[&header[..], b"<stream"].concat()).await;
            assert_eq!((origin.unwrap(), taken), (client, header.len()));
        }
        for header in [version_2(0x20, 0x00, &[]), version_2(0x20, 0x11, &v4), version_2(0x21, 0x00, &[])] {
            assert_eq!(read_all(&header).await.0.unwrap(), Origin::Proxy);
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_and_a_short_one_ends() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x14, 0x66];
        let wrong: [Vec<u8>; 9] = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00".to_vec(),
            b"<?xml version='1.0'?>".to_vec(),
            b"PROXY TCP4 192.0.2.300 198.51.100.1 4711 5222\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 5222\n".to_vec(),
            [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            version_2(0x21, 0x12, &v4),
            version_2(0x31, 0x11, &v4),
            version_2(0x21, 0x11, &v4[..8]),
            version_2(0x21, 0x11, &[0; LONGEST]),
        ];
        for bytes in wrong {
            let (outcome, _) = read_all(&bytes).await;
            assert!(matches!(outcome, Err(HeaderFault::Wrong)), "{bytes:?}: {outcome:?}");
        }
        let whole = version_2(0x21, 0x11, &v4);
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 5222\r\n";
        for header in [&whole[..], line] {
            for short in 0..header.len() {
                let (outcome, _) = read_all(&header[..short]).await;
                assert!(matches!(outcome, Err(HeaderFault::Ended(_))), "{short}: {outcome:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_proxy_that_says_nothing_is_not_waited_for() {
        let (_proxy, mut transport) = tokio::io::duplex(64);
        assert!(matches!(read(&mut transport, Duration::from_millis(5)).await, Err(HeaderFault::Late)));
    }
}
