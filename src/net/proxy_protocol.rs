//! The PROXY protocol, versions 1 and 2: a trusted proxy tells, ahead of all other bytes, whose connection it passes on.
//!
//! Nothing behind the header is read here. Whoever is no trusted proxy is not listened to: his header is none.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::proto::proxy_header::{NoHeader, Step, step};

pub use crate::proto::proxy_header::{Origin, SIGNATURE, WORD};

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
    timeout(within, collect(transport)).await.map_err(|_elapsed| HeaderFault::Late)?
}

/// Reads as many bytes as the header has, and none more.
async fn collect(transport: &mut (impl AsyncRead + Unpin)) -> Result<Origin, HeaderFault> {
    let mut bytes = Vec::new();
    loop {
        match step(&bytes).map_err(|NoHeader| HeaderFault::Wrong)? {
            Step::Whole(origin) => return Ok(origin),
            Step::Read(count) => {
                let held = bytes.len();
                bytes.resize(held + count, 0);
                transport.read_exact(bytes.get_mut(held..).unwrap_or_default()).await.map_err(HeaderFault::Ended)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::proxy_header::LONGEST;

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
