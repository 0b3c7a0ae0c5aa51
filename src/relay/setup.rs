//! From configuration to [`RelaySettings`]: reads the files it names, takes inherited sockets or binds the configured addresses.
//!
//! All sockets of the relay's life are opened here.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::admin::socket;
use crate::admission::allow_list::{Access, AllowList};
use crate::admission::failures::Tolerance;
use crate::admission::headcount::Bounds;
use crate::admission::quota::{Allowance, Rate};
use crate::config::Confinement;
use crate::config::proxy::Accepted;
use crate::config::relay::{Domain, RelayConfig, limits as config};
use crate::net::accept_rate::{Frequency, Rates};
use crate::net::allow_files::AllowFiles;
use crate::net::carrier::Carriers;
use crate::net::certificates::reload::{LOOK_EVERY, Shown, take_up_revocations};
use crate::net::certificates::{Live, finish_pair, load, load_authorities};
use crate::net::inherited::{Inherited, Origin};
use crate::net::link_keys::LinkKeyFiles;
use crate::net::listener::Listener;
use crate::net::process_memory::replay_memory;
use crate::net::quic;
use crate::net::tls::Acceptor;
use crate::net::wall_clock::unix_millis;
use crate::proto::tunnel::{self, Identity};
use crate::telemetry::audit::Audit;

use super::certificates::Keeper;
use super::client::Idle;
use super::settings::{AllowLists, Leave, Limits, RelaySettings, ServedDomain, ServedQueue, Strangers, VerifyLink};
use super::software_policy::SoftwarePolicy;

/// Ports tried where any will do and one is wanted that is free for UDP and TCP.
const PORT_TRIES: usize = 16;

/// Everything that `config` asks for, on `inherited` sockets where there are such.
///
/// # Errors
/// A file cannot be used, or a socket cannot be bound.
pub fn settings_of(config: &RelayConfig, inherited: &mut Inherited) -> anyhow::Result<RelaySettings> {
    drop(finish_pair(&config.tunnel_tls.certificate, &config.tunnel_tls.key));
    let replay_memory = replay_memory(config.tunnel.replay_memory_mib)?;
    let tls = load(&config.tls.certificate, &config.tls.key).context("the customers' certificate")?;
    warn_all(&tls.warnings);
    let tunnel_tls = load(&config.tunnel_tls.certificate, &config.tunnel_tls.key).context("the tunnel's certificate")?;
    warn_all(&tunnel_tls.warnings);
    let authorities = load_authorities(&config.tunnel_tls.ca).context("the tunnel's CA")?;
    let credentials = Live::new(&quic::Credentials { chain: tunnel_tls.chain, key: tunnel_tls.key, authorities })?;
    warn_all(take_up_revocations(&credentials, &config.tunnel_tls).err().as_slice());
    let tls = Arc::new(Acceptor::new(tls.chain, tls.key).context("the customers' certificate")?);
    let clients = client_sockets(config, inherited)?;
    let access = AllowLists {
        client: Arc::new(AllowFiles::open(config.access.client.clone()).context("the customers' allow-list")?),
        tunnel: Arc::new(AllowFiles::open(config.access.tunnel.clone()).context("the tunnels' allow-list")?),
    };
    let software = SoftwarePolicy::open(&config.clients).map_err(anyhow::Error::msg).context("the list of client software")?;
    let (mut acceptor, carriers) = Carriers::new();
    acceptor.trust(credentials.clone());
    acceptor.admit_only(access.tunnel.watched());
    let tunnel_address = accept_carriers(config, inherited, &credentials, &mut acceptor)?;
    let leeway = config.link.leeway;
    let link_files = match config.issuers.as_slice() {
        [] => None,
        issuers => Some(Arc::new(LinkKeyFiles::open(issuers)?)),
    };
    Ok(RelaySettings {
        domains: config.domains.iter().map(served).collect(),
        labels: config.labels.iter().map(|(label, connector)| (*label, Identity(connector.clone()))).collect(),
        verify_link: link_files.as_ref().map(|files| verifier(files, leeway)),
        link_files,
        leeway,
        tls: Arc::clone(&tls),
        software: Arc::new(software),
        access,
        clients,
        admin: Some(socket::open(&config.listen.admin, inherited)?),
        writable: acceptor.writable(),
        acceptor: Some(acceptor),
        carriers,
        tunnel_address: Some(tunnel_address),
        leave: Leave { within: config.tunnel.drain, alternates: config.alternates.clone() },
        limits: limits_of(&config.limits),
        strangers: Strangers::of(&config.limits),
        tunnel: tunnel::Settings { node: "relay".to_owned(), replay_memory, clock: unix_millis, ..tunnel::Settings::default() },
        certificates: Some(Keeper { live: credentials.clone(), files: config.tunnel_tls.clone() }),
        shown: vec![Shown::Tunnel(credentials, config.tunnel_tls.clone()), Shown::People("customers", tls, config.tls.clone())],
        look_every: LOOK_EVERY,
        file: None,
        confinement: Confinement::Off,
        audit: Audit::off(),
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
    credentials: &Live,
    acceptor: &mut Carriers,
) -> anyhow::Result<SocketAddr> {
    let sockets = tunnel_sockets(config, inherited)?;
    let mut address = None;
    for (socket, origin) in sockets.udp {
        let endpoint = quic::server(socket, origin, credentials)?;
        address = address.or(Some(endpoint.local_addr().context("the tunnel's UDP socket")?));
        acceptor.accept(endpoint);
    }
    for listener in sockets.tcp {
        address = address.or(Some(listener.local_addr().context("the tunnel's TCP socket")?));
        acceptor.accept_tls(listener, credentials)?;
    }
    address.context("no socket for tunnels was handed over: `tunnel-quic` for UDP, `tunnel` for TCP")
}

/// Where connectors knock.
struct TunnelSockets {
    udp: Vec<(UdpSocket, Origin)>,
    tcp: Vec<Listener>,
}

/// Inherited sockets where there are such, and no others beside them; else both at one address and port.
fn tunnel_sockets(config: &RelayConfig, inherited: &mut Inherited) -> anyhow::Result<TunnelSockets> {
    let (udp, tcp) = (inherited.udp("tunnel-quic")?, inherited.tcp("tunnel")?);
    if !udp.is_empty() || !tcp.is_empty() {
        let take = |socket| Listener::from_std(socket).context("the tunnel's inherited TCP socket");
        let udp = udp.into_iter().map(|socket| (socket, Origin::Inherited)).collect();
        return Ok(TunnelSockets { udp, tcp: tcp.into_iter().map(take).collect::<anyhow::Result<_>>()? });
    }
    let (wanted, accepted) = (config.listen.tunnel, &config.listen.tunnel_transports);
    let mut last = None;
    for _ in 0..PORT_TRIES {
        match bind_tunnel(wanted, accepted) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => last = Some(error),
        }
        if wanted.port() != 0 {
            break;
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into())).with_context(|| format!("cannot listen for tunnels on {wanted}"))
}

fn bind_tunnel(wanted: SocketAddr, accepted: &[Accepted]) -> std::io::Result<TunnelSockets> {
    let mut sockets = TunnelSockets { udp: Vec::new(), tcp: Vec::new() };
    let mut address = wanted;
    if accepted.contains(&Accepted::Quic) {
        let socket = quic::bind(address)?;
        address = socket.local_addr()?;
        sockets.udp.push((socket, Origin::Bound));
    }
    if accepted.contains(&Accepted::Tls) {
        sockets.tcp.push(Listener::bind(address)?);
    }
    Ok(sockets)
}

fn verifier(files: &Arc<LinkKeyFiles>, leeway: Duration) -> Arc<VerifyLink> {
    let files = Arc::clone(files);
    Arc::new(move |token: &str, domain: &str, now: u64| files.keys().verify_link(token, now, domain, leeway))
}

fn served(domain: &Domain) -> ServedDomain {
    let queues = domain.queues.iter().map(|queue| ServedQueue {
        id: queue.id.clone(),
        name: queue.name.clone(),
        identity: Identity(queue.connector.clone()),
    });
    ServedDomain { name: domain.name.clone(), public_queue: domain.public_queue.clone(), queues: queues.collect() }
}

/// A silent client is pinged after two fifths of the time after which it is closed: four of ten minutes.
fn limits_of(limits: &config::Limits) -> Limits {
    let ping_after: Duration = limits.idle * 2 / 5;
    let session = &limits.session;
    Limits {
        connections: size(limits.connections),
        before_login: size(limits.pre_auth_connections),
        handshakes: size(limits.pending_handshakes),
        login_within: limits.negotiation,
        tls_within: limits.tls_handshake,
        idle: Idle { ping_after, close_after: limits.idle },
        session: Allowance {
            bytes: Rate { per_second: session.bytes_per_second, at_once: session.bytes_at_once },
            messages: Rate { per_second: session.messages_per_second, at_once: session.messages_at_once },
            patience: session.patience,
        },
        ..Limits::default()
    }
}

impl Strangers {
    /// As the configuration says.
    pub fn of(limits: &config::Limits) -> Self {
        let config::Limits { address, network, window, .. } = limits;
        let bounds = |count: fn(&config::PerPrefix) -> u32| Bounds { per_address: size(count(address)), per_network: size(count(network)) };
        let often = |count: u32| Frequency { count, within: *window };
        let tolerance = |prefix: &config::PerPrefix| Tolerance { free: prefix.failed_logins, within: *window };
        Self {
            before_login: bounds(|prefix| prefix.pre_auth_connections),
            logged_in: bounds(|prefix| prefix.connections),
            rates: Rates {
                address: often(address.new_connections),
                network: often(network.new_connections),
                in_all: Frequency { count: limits.new_connections_per_second, within: Duration::from_secs(1) },
                failures_of_address: tolerance(address),
                failures_of_network: tolerance(network),
                link: often(limits.logins_per_link),
            },
            returning: limits.returning,
            exempt: AllowList::new(limits.exempt.clone(), Access::Deny),
        }
    }
}

impl Default for Strangers {
    /// As shipped.
    fn default() -> Self {
        Self::of(&config::Limits::default())
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_shipped_limits_ping_at_four_minutes_and_close_at_ten() {
        let text = include_str!("../../config/relay.toml");
        let limits = limits_of(&RelayConfig::parse(Path::new("relay.toml"), text).unwrap().limits);
        assert_eq!((limits.idle.ping_after, limits.idle.close_after), (Duration::from_secs(240), Duration::from_secs(600)));
    }
}
