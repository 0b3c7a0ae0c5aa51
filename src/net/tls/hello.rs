//! Reads a client's hello from its socket, once for its fingerprint and once for rustls, before anything is computed.
//!
//! rustls tells nobody which extensions came and in which order. So the bytes are given to a reader of our own beside it, and the
//! stream that follows has nothing of either between it and its socket.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::TlsError;
use crate::fingerprint::ja4::{Fingerprint, Over};
use crate::proto::client_hello::{HelloFault, RecordReader};

/// Bytes read at once: what rustls takes at once, so that nothing is left over when the hello is whole.
const CHUNK: usize = 4096;

/// The fatal alert `access_denied` (RFC 8446 §6) in a record of its own.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// A hello, as it is needed to go on, and its fingerprint.
pub(super) struct Heard {
    pub(super) accepted: Accepted,
    pub(super) fingerprint: Fingerprint,
}

/// Reads one.
pub(super) async fn hear<IO>(io: &mut IO) -> Result<Heard, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut listener = Listener::default();
    loop {
        match next(io, &mut listener).await.map_err(TlsError::Failed)? {
            Step::More => {}
            Step::Whole(heard) => return Ok(*heard),
            Step::Unreadable(fault) => return Err(TlsError::Hello(fault)),
            Step::Refused(fault, alert) => {
                // It says why to whoever still listens.
                drop(io.write_all(&alert).await);
                return Err(TlsError::Failed(io::Error::new(io::ErrorKind::InvalidData, fault)));
            }
        }
    }
}

/// Tells a client that it may not come in.
pub(super) async fn deny<IO: AsyncWrite + Unpin>(mut io: IO) {
    // Whoever is gone need not hear it.
    drop(io.write_all(&ACCESS_DENIED).await);
    drop(io.shutdown().await);
}

/// Reads once, into memory on the stack of this one poll.
async fn next<IO: AsyncRead + Unpin>(io: &mut IO, listener: &mut Listener) -> io::Result<Step> {
    std::future::poll_fn(|cx| {
        let mut memory = [const { MaybeUninit::uninit() }; CHUNK];
        let mut chunk = ReadBuf::uninit(&mut memory);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut chunk))?;
        let bytes = chunk.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(listener.push(bytes))
    })
    .await
}

/// What some bytes have brought.
enum Step {
    More,
    Whole(Box<Heard>),
    Unreadable(HelloFault),
    /// rustls finds a fault, and an alert to tell of it.
    Refused(rustls::Error, Vec<u8>),
}

#[derive(Default)]
struct Listener {
    reader: RecordReader,
    rustls: Acceptor,
}

impl Listener {
    fn push(&mut self, bytes: &[u8]) -> io::Result<Step> {
        let mut rest = bytes;
        self.rustls.read_tls(&mut rest)?;
        let accepted = match self.rustls.accept() {
            Ok(accepted) => accepted,
            Err((fault, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                return Ok(Step::Refused(fault, told));
            }
        };
        let hello = match self.reader.push(bytes) {
            Ok(hello) => hello,
            Err(fault) => return Ok(Step::Unreadable(fault)),
        };
        Ok(match (accepted, hello) {
            (Some(accepted), Some(hello)) if rest.is_empty() => {
                Step::Whole(Box::new(Heard { accepted, fingerprint: Fingerprint::of(&hello, Over::Tcp) }))
            }
            (None, None) if rest.is_empty() => Step::More,
            // The two do not agree on where the hello ends.
            _ => Step::Unreadable(HelloFault::Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    #[test]
    fn a_hello_is_heard_one_byte_after_the_other() {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "chat.example".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let (last, before) = hello.split_last().unwrap();
        let mut listener = Listener::default();
        for byte in before {
            assert!(matches!(listener.push(&[*byte]).unwrap(), Step::More));
        }
        let Step::Whole(heard) = listener.push(&[*last]).unwrap() else { panic!("it is whole") };
        assert_eq!(heard.accepted.client_hello().server_name(), Some("chat.example"));
        let at_once = Listener::default().push(&hello).unwrap();
        assert!(matches!(at_once, Step::Whole(same) if same.fingerprint == heard.fingerprint));
    }
}
