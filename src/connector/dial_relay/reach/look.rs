//! Tries every way to one relay.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::config::proxy::TransportChoice;
use crate::config::{ConnectorConfig, connector};
use crate::connector::dial_relay::lookup::{Resolver, resolve};
use crate::connector::dial_relay::race::{Attempt, Target};
use crate::connector::dial_relay::ways::Ways;
use crate::connector::dial_relay::{CLIMB_EVERY, RelayAddress};
use crate::net::carrier::{CarrierInput, Carriers, Cause, Transport};
use crate::net::certificates::{Live, load, load_authorities};
use crate::net::quic::Credentials;
use crate::proto::tunnel::{Settings, clock_ahead, probe};

use super::judge::judge_datagrams;
use super::{Finding, Line, Reach, Status};

/// How long one attempt may take in all: a proxy may have to reach the relay itself.
const ATTEMPT: Duration = Duration::from_secs(20);

/// How long a relay may take to answer HELLO.
const ANSWER: Duration = Duration::from_secs(5);

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

/// How long QUIC may look for larger datagrams.
const DISCOVERY: Duration = Duration::from_millis(1500);

/// The largest datagrams that QUIC looks for.
const LARGE: u16 = 1452;

/// What an attempt came to.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Answered(probe::Answer),
    Fault(Cause, String),
}

/// One relay, and what was found so far.
pub(super) struct Look<'a> {
    pub(super) relay: &'a connector::Relay,
    pub(super) credentials: Result<Live, String>,
    pub(super) now: u64,
    began: Instant,
    /// By how many seconds the relay's clock was ahead, where it told one that differs.
    pub(super) clock_ahead: Option<i64>,
    settings: Settings,
    pub(super) outcomes: Vec<Outcome>,
}

impl<'a> Look<'a> {
    pub(super) fn new(config: &ConnectorConfig, relay: &'a connector::Relay, now: u64) -> Self {
        let files = &config.tunnel_tls;
        let credentials = load(&files.certificate, &files.key).and_then(|own| {
            let authorities = load_authorities(&files.ca)?;
            Ok(Credentials { chain: own.chain, key: own.key, authorities })
        });
        let credentials = credentials.map_err(|fault| fault.to_string());
        let credentials = credentials.and_then(|credentials| Live::new(&credentials).map_err(|fault| fault.to_string()));
        let settings = Settings { node: config.name.clone(), ..Settings::default() };
        Self { relay, credentials, now, began: Instant::now(), clock_ahead: None, settings, outcomes: Vec::new() }
    }

    pub(super) async fn all(mut self, alternate_of: Option<String>) -> Reach {
        let addresses = resolve(&self.relay.address).await;
        let dns = self.name(&addresses);
        let addresses: Vec<SocketAddr> = addresses.unwrap_or_default().into_iter().take(MAX_ADDRESSES).collect();
        let allowed = |transport| match self.relay.transport {
            TransportChoice::Auto => true,
            TransportChoice::Quic => transport == Transport::Quic,
            TransportChoice::Tls => transport == Transport::Tls,
        };
        let (quic, tls) = (allowed(Transport::Quic), allowed(Transport::Tls));
        let proxied = self.relay.proxy.is_some();
        let (udp, reached) = match quic {
            true => self.direct(Transport::Quic, &addresses).await,
            false => (self.not_wanted(), None),
        };
        let tcp = match (tls, proxied) {
            (true, false) => self.direct(Transport::Tls, &addresses).await.0,
            (true, true) => (Status::Skipped, "TCP goes through the proxy".to_owned(), None),
            (false, _) => self.not_wanted(),
        };
        let proxy = match (tls, proxied) {
            (true, true) => self.proxied().await,
            _ => (Status::Skipped, "none is used".to_owned(), None),
        };
        let mtu = self.datagrams(reached).await;
        let works = self.welcome().is_some();
        let findings = [
            ("dns", dns),
            ("udp", udp),
            ("tcp", tcp),
            ("proxy", proxy),
            ("certificate", self.certificate()),
            ("clock", self.clock()),
            ("version", self.version()),
            ("mtu", mtu),
        ];
        let lines = findings.map(|(check, (status, found, remedy))| Line { check, status, found, remedy });
        Reach { relay: self.relay.address.clone(), alternate_of, works, lines: lines.into() }
    }

    fn name(&self, addresses: &Result<Vec<SocketAddr>, String>) -> Finding {
        let host = self.relay.address.rsplit_once(':').map_or(self.relay.address.as_str(), |(host, _)| host);
        let remedy = format!("see `getent hosts {host}`; name the relay by its address in connector.toml if this host has no DNS");
        match addresses {
            Ok(found) if !found.is_empty() => {
                let found: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
                (Status::Ok, found.join(", "), None)
            }
            Ok(_) => (Status::Failed, "its name has no address".to_owned(), Some(remedy)),
            // A proxy finds the relay itself.
            Err(why) if self.relay.proxy.is_some() => (Status::Warning, format!("{why}; the proxy looks it up itself"), Some(remedy)),
            Err(why) => (Status::Failed, why.clone(), Some(remedy)),
        }
    }

    fn not_wanted(&self) -> Finding {
        let only = if self.relay.transport == TransportChoice::Quic { "quic" } else { "tls" };
        (Status::Skipped, format!("not tried: transport = \"{only}\""), None)
    }

    /// Tries one address after the other; tells the one that answered.
    async fn direct(&mut self, transport: Transport, addresses: &[SocketAddr]) -> (Finding, Option<SocketAddr>) {
        let mut faults = Vec::new();
        let mut remedy = None;
        for address in addresses {
            let began = Instant::now();
            let outcome = self.attempt(Attempt { transport, target: Target::Address(*address) }).await;
            let took = began.elapsed().as_millis();
            self.note(&outcome);
            match outcome {
                Outcome::Answered(_) if faults.is_empty() => {
                    return ((Status::Ok, format!("{address} answers in {took} ms"), None), Some(*address));
                }
                Outcome::Answered(_) => {
                    let found = format!("{address} answers in {took} ms, but {}", faults.join("; "));
                    let remedy = Some("the connector finds the address that answers by itself; take the others out of DNS".to_owned());
                    return ((Status::Warning, found, remedy), Some(*address));
                }
                Outcome::Fault(cause, why) => {
                    faults.push(format!("{address}: {why}"));
                    remedy = Some(self.remedy(transport, cause));
                }
            }
        }
        if faults.is_empty() {
            return ((Status::Skipped, "there is no address to try".to_owned(), None), None);
        }
        ((Status::Failed, faults.join("; "), remedy), None)
    }

    async fn proxied(&mut self) -> Finding {
        let url = self.relay.proxy.as_ref().map(|proxy| format!("{}:{}", proxy.url.host, proxy.url.port)).unwrap_or_default();
        let began = Instant::now();
        let outcome = self.attempt(Attempt { transport: Transport::Tls, target: Target::Proxy }).await;
        let took = began.elapsed().as_millis();
        self.note(&outcome);
        match outcome {
            Outcome::Answered(_) => (Status::Ok, format!("the relay answers through {url} in {took} ms"), None),
            Outcome::Fault(cause, why) => {
                let remedy = match cause {
                    Cause::Inspected | Cause::Broken => self.remedy(Transport::Tls, cause),
                    Cause::Configuration => {
                        "correct [relay.proxy] in connector.toml, or the file that its `credentials_file` names".to_owned()
                    }
                    Cause::Ours | Cause::Peer | Cause::Silent | Cause::Blocked | Cause::Unreachable => {
                        format!("see that {url} can be reached and lets CONNECT to {} pass", self.relay.address)
                    }
                };
                (Status::Failed, why, Some(remedy))
            }
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        let now = Duration::from_secs(self.now) + self.began.elapsed();
        if let Outcome::Answered(probe::Answer::Welcome { clock_millis, .. }) = outcome {
            self.clock_ahead = clock_ahead(*clock_millis, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).or(self.clock_ahead);
        }
        self.outcomes.push(outcome.clone());
    }

    /// Dials as the connector would and says HELLO.
    async fn attempt(&self, attempt: Attempt) -> Outcome {
        let credentials = match &self.credentials {
            Ok(credentials) => credentials.clone(),
            Err(why) => return Outcome::Fault(Cause::Configuration, why.clone()),
        };
        let (mut carriers, inputs) = Carriers::new();
        let dialled = Ways::new(credentials, &as_dialled(self.relay)).map_err(|fault| fault.to_string());
        let outcome = match dialled.and_then(|mut ways| ways.dial(attempt, &mut carriers)) {
            Ok(_dial) => timeout(ATTEMPT, self.hear(inputs)).await.unwrap_or_else(|_| no_answer()),
            Err(why) => Outcome::Fault(Cause::Configuration, why),
        };
        carriers.shutdown().await;
        outcome
    }

    async fn hear(&self, mut inputs: mpsc::Receiver<CarrierInput>) -> Outcome {
        let mut held = None;
        loop {
            let input = if held.is_none() { inputs.recv().await } else { timeout(ANSWER, inputs.recv()).await.ok().flatten() };
            match input {
                Some(CarrierInput::Opened { handle, .. }) => {
                    // Where it is gone already, its end says why.
                    let _gone = handle.control.send(probe::hello(&self.settings)).await;
                    held = Some(handle);
                }
                Some(CarrierInput::Frames { frames, .. }) => {
                    if let Some(answer) = frames.iter().find_map(|frame| probe::read(frame, &self.settings)) {
                        return Outcome::Answered(answer);
                    }
                }
                Some(CarrierInput::Lost { cause, why, .. }) => return Outcome::Fault(cause, why),
                Some(CarrierInput::Refused { .. }) => {}
                None => return no_answer(),
            }
        }
    }

    /// What QUIC's own discovery finds on the path.
    async fn datagrams(&self, reached: Option<SocketAddr>) -> Finding {
        let (Some(address), Ok(credentials)) = (reached, &self.credentials) else {
            return (Status::Skipped, "QUIC does not get through, which measures it and needs packets of 1280 bytes".to_owned(), None);
        };
        let endpoint = Ways::new(credentials.clone(), &as_dialled(self.relay)).map_err(|fault| fault.to_string());
        let connecting = endpoint.and_then(|mut ways| {
            let endpoint = ways.endpoint(address)?;
            endpoint.connect(address, &self.relay.server_name).map_err(|fault| fault.to_string())
        });
        let Ok(connecting) = connecting else { return (Status::Skipped, "no second connection was made".to_owned(), None) };
        let Ok(Ok(connection)) = timeout(ANSWER, connecting).await else {
            return (Status::Skipped, "no second connection was made".to_owned(), None);
        };
        let until = Instant::now() + DISCOVERY;
        while connection.stats().path.current_mtu < LARGE && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
        let found = connection.stats().path.current_mtu;
        connection.close(0_u32.into(), b"");
        judge_datagrams(found)
    }
}

fn no_answer() -> Outcome {
    Outcome::Fault(Cause::Silent, "the relay takes the connection and does not answer".to_owned())
}

fn as_dialled(relay: &connector::Relay) -> RelayAddress {
    RelayAddress {
        address: relay.address.clone(),
        alternates: Vec::new(),
        server_name: relay.server_name.clone(),
        transport: relay.transport,
        switch_every: relay.switch_every,
        climb_every: CLIMB_EVERY,
        proxy: relay.proxy.clone(),
        resolver: Resolver::System,
    }
}
