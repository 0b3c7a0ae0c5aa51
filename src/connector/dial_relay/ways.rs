//! The sockets and settings with which a relay is dialled.

use std::net::SocketAddr;

use crate::config::proxy::Proxy;
use crate::net::carrier::{Carriers, Dial, TlsDialler, Transport};
use crate::net::certificates::Live;
use crate::net::dial::Route;
use crate::net::inherited::Origin;
use crate::net::quic::{self, Endpoint, EndpointError};

use super::RelayAddress;
use super::race::{Attempt, Target};

/// One QUIC endpoint for each address family, made when first needed: a host may have only one. Used until a dial fails: an
/// endpoint whose socket failed never works again, and says nothing but that the relay cannot be reached.
pub(super) struct Ways {
    credentials: Live,
    tls: TlsDialler,
    proxy: Option<Proxy>,
    relay: String,
    server_name: String,
    pub(super) v4: Option<Endpoint>,
    pub(super) v6: Option<Endpoint>,
}

impl Ways {
    pub(super) fn new(credentials: Live, relay: &RelayAddress) -> Result<Self, EndpointError> {
        let tls = TlsDialler::new(&credentials)?;
        let (proxy, server_name) = (relay.proxy.clone(), relay.server_name.clone());
        Ok(Self { credentials, tls, proxy, relay: relay.address.clone(), server_name, v4: None, v6: None })
    }

    /// Begins a dial.
    pub(super) fn dial(&mut self, attempt: Attempt, carriers: &mut Carriers) -> Result<Dial, String> {
        match (attempt.transport, attempt.target) {
            (Transport::Quic, Target::Address(address)) => {
                let endpoint = self.endpoint(address)?;
                Ok(carriers.dial(&endpoint, address, &self.server_name))
            }
            (Transport::Tls, Target::Address(address)) => Ok(carriers.dial_tls(&self.tls, Route::Direct(address), &self.server_name)),
            (Transport::Tls | Transport::Quic, Target::Proxy) => {
                let proxy = self.proxy.clone().ok_or("there is no proxy")?;
                Ok(carriers.dial_tls(&self.tls, Route::Proxied { proxy, relay: self.relay.clone() }, &self.server_name))
            }
        }
    }

    /// The next dial over QUIC makes its socket anew. Carriers that stand on the old one keep it.
    pub(super) fn forget(&mut self) {
        self.v4 = None;
        self.v6 = None;
    }

    /// What the status shows of an attempt that won.
    pub(super) fn describe(&self, attempt: Attempt) -> String {
        let transport = attempt.transport.as_str();
        match (attempt.target, &self.proxy) {
            (Target::Proxy, Some(proxy)) => format!("{transport} through {} proxy", with_article(proxy.url.kind.as_str())),
            _ => transport.to_owned(),
        }
    }

    pub(super) fn endpoint(&mut self, address: SocketAddr) -> Result<Endpoint, String> {
        let (slot, any) = match address {
            SocketAddr::V4(_) => (&mut self.v4, SocketAddr::from(([0, 0, 0, 0], 0))),
            SocketAddr::V6(_) => (&mut self.v6, SocketAddr::from(([0; 16], 0))),
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let socket = quic::bind(any).map_err(|error| format!("no UDP socket: {error}"))?;
        let endpoint = quic::client(socket, Origin::Bound, &self.credentials).map_err(|error| format!("no QUIC endpoint: {error}"))?;
        Ok(slot.insert(endpoint).clone())
    }
}

fn with_article(kind: &str) -> String {
    if kind == "http" { format!("an {kind}") } else { format!("a {kind}") }
}
