//! From configuration to [`RelaySettings`]: reads the files it names, takes inherited sockets or binds the configured addresses.
//!
//! All sockets of the relay's life are opened here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::admin::socket;
use crate::config::relay::{Domain, RelayConfig};
use crate::net::carrier::Carriers;
use crate::net::certificates::{load, load_authorities};
use crate::net::inherited::{Inherited, Origin};
use crate::net::link_keys::LinkKeys;
use crate::net::listener::Listener;
use crate::net::quic;
use crate::net::tls::Acceptor;
use crate::proto::tunnel::{self, Identity};

use super::client::Idle;
use super::settings::{Limits, RelaySettings, ServedDomain, ServedQueue, VerifyLink};

/// Everything that `config` asks for, on `inherited` sockets where there are such.
///
/// # Errors
/// A file cannot be used, or a socket cannot be bound.
pub fn settings_of(config: &RelayConfig, inherited: &mut Inherited) -> anyhow::Result<RelaySettings> {
    let tls = load(&config.tls.certificate, &config.tls.key).context("the customers' certificate")?;
    warn_all(&tls.warnings);
    let tunnel_tls = load(&config.tunnel_tls.certificate, &config.tunnel_tls.key).context("the tunnel's certificate")?;
    warn_all(&tunnel_tls.warnings);
    let authorities = load_authorities(&config.tunnel_tls.ca).context("the tunnel's CA")?;
    let credentials = quic::Credentials { chain: tunnel_tls.chain, key: tunnel_tls.key, authorities };
    let clients = client_sockets(config, inherited)?;
    let (mut acceptor, carriers) = Carriers::new();
    let tunnel_address = accept_carriers(config, inherited, &credentials, &mut acceptor)?;
    Ok(RelaySettings {
        domains: config.domains.iter().map(served).collect(),
        verify_link: verifier(config)?,
        tls: Arc::new(Acceptor::new(tls.chain, tls.key).context("the customers' certificate")?),
        clients,
        admin: Some(socket::open(&config.listen.admin, inherited)?),
        writable: acceptor.writable(),
        acceptor: Some(acceptor),
        carriers,
        tunnel_address: Some(tunnel_address),
        limits: limits_of(config),
        tunnel: tunnel::Settings { node: "relay".to_owned(), ..tunnel::Settings::default() },
    })
}

fn warn_all(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

fn client_sockets(config: &RelayConfig, inherited: &mut Inherited) -> anyhow::Result<Vec<Listener>> {
    let handed_over = inherited.tcp("client")?;
    if !handed_over.is_empty() {
        let take = |socket| Listener::from_std(socket).context("the customers' inherited socket");
        return handed_over.into_iter().map(take).collect();
    }
    let bind = |addr: &SocketAddr| Listener::bind(*addr).with_context(|| format!("cannot listen for customers on {addr}"));
    config.listen.client.iter().map(bind).collect()
}

/// Accepts carriers; returns where.
fn accept_carriers(
    config: &RelayConfig,
    inherited: &mut Inherited,
    credentials: &quic::Credentials,
    acceptor: &mut Carriers,
) -> anyhow::Result<SocketAddr> {
    let (socket, origin) = match inherited.udp("tunnel-quic")?.pop() {
        Some(socket) => (socket, Origin::Inherited),
        None => {
            let addr = config.listen.tunnel;
            (quic::bind(addr).with_context(|| format!("cannot listen for tunnels on {addr}"))?, Origin::Bound)
        }
    };
    let endpoint = quic::server(socket, origin, credentials)?;
    let addr = endpoint.local_addr().context("the tunnel's socket")?;
    acceptor.accept(endpoint);
    Ok(addr)
}

fn verifier(config: &RelayConfig) -> anyhow::Result<Arc<VerifyLink>> {
    let mut keys = LinkKeys::default();
    for issuer in &config.issuers {
        keys.add_file(issuer)?;
    }
    let leeway = config.link.leeway;
    Ok(Arc::new(move |token: &str, domain: &str, now: u64| keys.verify_link(token, now, domain, leeway)))
}

fn served(domain: &Domain) -> ServedDomain {
    let queues = domain.queues.iter().map(|queue| ServedQueue {
        id: queue.id.clone(),
        name: queue.id.clone(),
        identity: Identity(queue.connector.clone()),
    });
    ServedDomain { name: domain.name.clone(), public_queue: domain.public_queue.clone(), queues: queues.collect() }
}

/// A silent client is pinged after two fifths of the time after which it is closed: four of ten minutes.
fn limits_of(config: &RelayConfig) -> Limits {
    let limits = &config.limits;
    let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let ping_after: Duration = limits.idle * 2 / 5;
    Limits {
        connections: size(limits.connections),
        before_login: size(limits.pre_auth_connections),
        login_within: limits.negotiation,
        tls_within: limits.tls_handshake,
        idle: Idle { ping_after, close_after: limits.idle },
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_shipped_limits_ping_at_four_minutes_and_close_at_ten() {
        let text = include_str!("../../config/relay.toml");
        let limits = limits_of(&RelayConfig::parse(Path::new("relay.toml"), text).unwrap());
        assert_eq!((limits.idle.ping_after, limits.idle.close_after), (Duration::from_secs(240), Duration::from_secs(600)));
    }
}
