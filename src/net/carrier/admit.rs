//! The relay's accept loops: handshakes run beside them, bounded in number and time, so that no silent peer holds up another.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Endpoint, Incoming};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{CarrierInput, DialFault, HANDSHAKE, Owner, Standing, quic_pump, serve, tls_pump};
use crate::net::crowd::{Begun, Crowd, Limits};
use crate::net::dial::tune;
use crate::net::listener::Listener;

/// Handshakes under way at once on one socket.
const PENDING: Limits = Limits { in_all: 256, per_source: 64 };

/// QUIC handshakes under way above which a newcomer must first prove its address (Retry, RFC 9000 §8.1.2).
const PENDING_UNPROVEN: usize = 32;

/// Accepts carriers over QUIC until the endpoint is closed.
pub(super) async fn accept_quic(endpoint: Endpoint, owner: Owner) {
    let mut pending = Pending::new(owner.clone());
    let mut standing = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if pending.len() >= PENDING_UNPROVEN && incoming.may_retry() => {
                    // It may retry, so this cannot fail.
                    drop(incoming.retry());
                }
                Some(incoming) => {
                    let address = incoming.remote_address();
                    pending.begin(address, take_quic(incoming));
                }
                None => break,
            },
            Some(came) = pending.next() => {
                if let Some(came) = came {
                    standing.spawn(serve(came, owner.next(), owner.clone()));
                }
            }
            Some(_) = standing.join_next() => {}
        }
    }
    standing.shutdown().await;
}

/// Accepts carriers over TLS until the set of carriers is dropped.
pub(super) async fn accept_tls(listener: Listener, tls: Arc<rustls::ServerConfig>, owner: Owner) {
    let acceptor = TlsAcceptor::from(tls);
    let mut pending = Pending::new(owner.clone());
    let mut standing = JoinSet::new();
    loop {
        tokio::select! {
            (socket, address) = listener.accept() => pending.begin(address, take_tls(socket, acceptor.clone())),
            Some(came) = pending.next() => {
                if let Some(came) = came {
                    standing.spawn(serve(came, owner.next(), owner.clone()));
                }
            }
            Some(_) = standing.join_next() => {}
        }
    }
}

async fn take_quic(incoming: Incoming) -> Result<Standing, DialFault> {
    let connection = incoming.await.map_err(|fault| quic_pump::told(&fault))?;
    Ok(Standing::Quic(quic_pump::take(connection).await?))
}

async fn take_tls(socket: TcpStream, acceptor: TlsAcceptor) -> Result<Standing, DialFault> {
    // Fails only on a connection that is gone already, as its first read will show.
    drop(tune((&socket).into()));
    let stream = acceptor.accept(socket).await.map_err(|fault| tls_pump::handshake_failed(&fault))?;
    Ok(Standing::Tls(Box::new(stream.into())))
}

/// The handshakes under way on one socket.
#[derive(Debug)]
struct Pending {
    crowd: Crowd<Option<Standing>>,
    owner: Owner,
}

impl Pending {
    fn new(owner: Owner) -> Self {
        Self { crowd: Crowd::new(PENDING), owner }
    }

    fn len(&self) -> usize {
        self.crowd.len()
    }

    fn begin(&mut self, address: SocketAddr, handshake: impl Future<Output = Result<Standing, DialFault>> + Send + 'static) {
        let owner = self.owner.clone();
        let begun = self.crowd.begin(address, |_place| async move {
            let why = match timeout(HANDSHAKE, handshake).await {
                Ok(Ok(came)) => return Some(came),
                Ok(Err(fault)) => fault.why,
                Err(_) => "the handshake took too long".to_owned(),
            };
            // An owner that is gone needs no word.
            drop(owner.inputs.send(CarrierInput::Refused { address, why }).await);
            None
        });
        if let Begun::InsteadOf(address) = begun {
            // What a busy owner does not hear of is one stranger among hundreds.
            drop(self.owner.inputs.try_send(CarrierInput::Refused { address, why: "it gave way to a newcomer".into() }));
        }
    }

    /// The next handshake that ended; `None` within when it failed, without when none is under way.
    async fn next(&mut self) -> Option<Option<Standing>> {
        Some(self.crowd.next().await?.flatten())
    }
}
