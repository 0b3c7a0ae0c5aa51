//! A client's byte stream: TCP, and TLS once it is up. Reads leave no buffer behind while a client is silent.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::proxy_protocol;
use super::tls::{self, TlsError};
use crate::fingerprint::Fingerprint;

/// Bytes read at once. They live on the stack of the one poll that reads.
const CHUNK: usize = 8 * 1024;

/// How long a closing transport may take to say goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A client's byte stream.
#[derive(Debug)]
pub enum Stream {
    /// Not encrypted.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed; nothing is left.
    Gone,
}

/// What a client's TLS hello has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The server name that it asked for.
    pub sni: Option<String>,
    /// How it said hello.
    pub fingerprint: Fingerprint,
}

/// What the first bytes of a connection announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A TLS handshake record.
    Tls,
    /// HTTP's method.
    Http,
    /// SSH's version.
    Ssh,
    /// A header of the PROXY protocol, from somebody who is not trusted to send one.
    Proxy,
    /// XML, or something that its reader refuses.
    Xml,
    /// Closed without a byte.
    Nothing,
}

impl Stream {
    /// Looks at the first bytes without taking them.
    pub async fn peek(&self) -> io::Result<Opening> {
        let Self::Plain(socket) = self else { return Ok(Opening::Xml) };
        let mut first = [0; PROXY.len()];
        Ok(match socket.peek(&mut first).await? {
            0 => Opening::Nothing,
            count => opening_of(first.get(..count).unwrap_or_default()),
        })
    }

    /// Does the TLS handshake within `within`, unless `screen` has a reason against the client's hello.
    pub async fn start_tls(
        &mut self,
        acceptor: &tls::Acceptor,
        within: Duration,
        screen: impl FnOnce(&Fingerprint) -> Result<(), &'static str>,
    ) -> Result<Greeting, TlsError> {
        let Self::Plain(socket) = std::mem::replace(self, Self::Gone) else {
            return Err(TlsError::Failed(io::Error::from(io::ErrorKind::InvalidInput)));
        };
        let accepted = Box::pin(acceptor.accept(socket, within, screen)).await?;
        let greeting = Greeting { sni: accepted.server_name().map(str::to_owned), fingerprint: accepted.fingerprint };
        *self = Self::Tls(Box::new(accepted.stream));
        Ok(greeting)
    }

    /// Hands the next bytes to `take`. `None` at the end of the stream.
    pub async fn read<T>(&mut self, mut take: impl FnMut(&[u8]) -> T) -> io::Result<Option<T>> {
        std::future::poll_fn(|cx| {
            let mut memory = [const { MaybeUninit::uninit() }; CHUNK];
            let mut chunk = ReadBuf::uninit(&mut memory);
            match self {
                Self::Plain(socket) => ready!(Pin::new(socket).poll_read(cx, &mut chunk))?,
                Self::Tls(stream) => ready!(Pin::new(stream).poll_read(cx, &mut chunk))?,
                Self::Gone => {}
            }
            let bytes = chunk.filled();
            Poll::Ready(Ok(if bytes.is_empty() { None } else { Some(take(bytes)) }))
        })
        .await
    }

    /// Writes all of `bytes`, within `within`.
    pub async fn write(&mut self, bytes: &[u8], within: Duration) -> io::Result<()> {
        let written = async {
            match self {
                Self::Plain(socket) => socket.write_all(bytes).await,
                Self::Tls(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
                Self::Gone => Err(io::Error::from(io::ErrorKind::NotConnected)),
            }
        };
        tokio::time::timeout(within, written).await?
    }

    /// Says goodbye (TLS close_notify, FIN).
    pub async fn close(mut self) {
        let closed = async {
            match &mut self {
                Self::Plain(socket) => socket.shutdown().await,
                Self::Tls(stream) => stream.shutdown().await,
                Self::Gone => Ok(()),
            }
        };
        // A client that is gone already need not hear it.
        let _gone = tokio::time::timeout(CLOSE_WITHIN, closed).await;
    }
}

/// How an SSH client begins (RFC 4253 §4.2); no HTTP method does.
const SSH: &[u8] = b"SSH-";

/// How a header of the PROXY protocol begins, version 1; no HTTP method does.
const PROXY: &[u8] = proxy_protocol::WORD;

/// The same of version 2: no XML declaration stands behind an empty line, and no NUL anywhere.
const PROXY_2: &[u8] = b"\r\n\r\n\0";

/// Tells the protocol by its first bytes: TLS handshake records begin with 22 (RFC 8446 §5.1), HTTP with a capital letter.
pub fn opening_of(bytes: &[u8]) -> Opening {
    match bytes.first() {
        None => Opening::Nothing,
        Some(22) => Opening::Tls,
        Some(b'S') if bytes.starts_with(SSH) => Opening::Ssh,
        Some(_) if bytes.starts_with(PROXY) || bytes.starts_with(PROXY_2) => Opening::Proxy,
        Some(b'A'..=b'Z') => Opening::Http,
        Some(_) => Opening::Xml,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        for first in [b'<', b' ', b'\t', b'\r', b'\n', 0, b'a', 0x15, 0x17, 0xff] {
            assert_eq!(opening_of(&[first]), Opening::Xml, "{first:#04x} is the XML reader's, which refuses what is none");
        }
        assert_eq!(opening_of(&[0x16]), Opening::Tls);
        assert_eq!(opening_of(b"GET /"), Opening::Http);
        assert_eq!(opening_of(b"SEARCH /"), Opening::Http);
        assert_eq!(opening_of(b"SSH-2.0-OpenSSH"), Opening::Ssh);
        assert_eq!(opening_of(b"PROXY TCP4 192.0.2.7"), Opening::Proxy);
        assert_eq!(opening_of(b"PROPFIND /"), Opening::Http);
        assert_eq!(opening_of(&proxy_protocol::SIGNATURE), Opening::Proxy);
    }
}
