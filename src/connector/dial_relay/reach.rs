//! Whether a relay can be reached from here, and what is in the way: `outgate check --reach`.
//!
//! Each way is tried as the connector would, up to HELLO and no further: a tunnel that stands is not touched. What is found is a line for
//! each of: name, UDP, TCP, proxy, certificates, clock, version, datagram size; a line that is not well says what to do.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::config::proxy::TransportChoice;
use crate::config::{ConnectorConfig, connector};
use crate::net::carrier::{CarrierInput, Carriers, Cause, Transport};
use crate::net::certificates::{Live, Validity, load, load_authorities};
use crate::net::quic::Credentials;
use crate::proto::tunnel::{Settings, probe};

use super::lookup::{Resolver, resolve};
use super::race::{Attempt, Target};
use super::ways::Ways;
use super::{CLIMB_EVERY, RelayAddress};

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

/// Those below which bulk suffers.
const SMALL: u16 = 1350;

/// How a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Well.
    Ok,
    /// It works, but not as it could.
    Warning,
    /// It does not work.
    Failed,
    /// Not tried, or nothing could be seen.
    Skipped,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at: dns, udp, tcp, proxy, certificate, clock, version, mtu.
    pub check: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What was found about one relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Its address as configured.
    pub relay: String,
    /// Whether a tunnel could stand, over a transport that the configuration allows.
    pub works: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// How a line stands, what was found and what to do.
type Finding = (Status, String, Option<String>);

/// Looks at every relay of a connector; `now` is in seconds since 1970.
pub async fn reach(config: &ConnectorConfig, now: u64) -> Vec<Reach> {
    let mut all = Vec::new();
    for relay in &config.relays {
        all.push(Look::new(config, relay, now).all().await);
    }
    all
}

/// What an attempt came to.
#[derive(Clone, Debug)]
enum Outcome {
    Answered(probe::Answer),
    Fault(Cause, String),
}

struct Look<'a> {
    relay: &'a connector::Relay,
    credentials: Result<Live, String>,
    now: u64,
    settings: Settings,
    outcomes: Vec<Outcome>,
}

impl<'a> Look<'a> {
    fn new(config: &ConnectorConfig, relay: &'a connector::Relay, now: u64) -> Self {
        let files = &config.tunnel_tls;
        let credentials = load(&files.certificate, &files.key).and_then(|own| {
            let authorities = load_authorities(&files.ca)?;
            Ok(Credentials { chain: own.chain, key: own.key, authorities })
        });
        let credentials = credentials.map_err(|fault| fault.to_string());
        let credentials = credentials.and_then(|credentials| Live::new(&credentials).map_err(|fault| fault.to_string()));
        Self { relay, credentials, now, settings: Settings { node: config.name.clone(), ..Settings::default() }, outcomes: Vec::new() }
    }

    async fn all(mut self) -> Reach {
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
        Reach { relay: self.relay.address.clone(), works, lines: lines.into() }
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
            self.outcomes.push(outcome.clone());
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
        self.outcomes.push(outcome.clone());
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

    /// What to do about an attempt that failed.
    fn remedy(&self, transport: Transport, cause: Cause) -> String {
        let relay = &self.relay.address;
        let protocol = if transport == Transport::Quic { "UDP" } else { "TCP" };
        match (cause, transport) {
            (Cause::Blocked, _) => format!("this host's own firewall forbids it: allow {protocol} to {relay} there"),
            (Cause::Unreachable | Cause::Silent | Cause::Ours, Transport::Quic) => {
                format!(
                    "let UDP to {relay} and its answers pass the firewall, also in packets of 1280 bytes (a VPN on the path may have a smaller \
                    MTU); with transport = \"auto\" the tunnel goes over TCP until then"
                )
            }
            (Cause::Unreachable | Cause::Silent | Cause::Ours, Transport::Tls) => {
                format!("let TCP to {relay} pass the firewall, or name a proxy in [relay.proxy]; see that the relay runs")
            }
            (Cause::Configuration, _) => "correct connector.toml or the files that it names (`outgate check connector.toml`)".to_owned(),
            (Cause::Inspected, _) => {
                format!("have the box on the way leave {relay} alone: the tunnel takes no certificate but its own CA's")
            }
            (Cause::Broken, _) => format!(
                "see that `server_name = \"{}\"` is a name in the relay's certificate and `ca` in [tunnel_tls] the CA that issued it",
                self.relay.server_name
            ),
            (Cause::Peer, _) => format!(
                "see the relay's log: it may not take this connector's certificate (another CA, expired, revoked, not named in relay.toml). \
                If it knows of no such attempt, something on the way resets: let {protocol} to {relay} pass, or name a proxy in [relay.proxy]"
            ),
        }
    }

    fn welcome(&self) -> Option<(u32, &str)> {
        self.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Answered(probe::Answer::Welcome { version, software }) => Some((*version, software.as_str())),
            Outcome::Answered(probe::Answer::Refused(_)) | Outcome::Fault(..) => None,
        })
    }

    fn answered(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Answered(_)))
    }

    fn own_validity(&self) -> Option<Validity> {
        self.credentials.as_ref().ok()?.validity()
    }

    fn certificate(&self) -> Finding {
        let renew = || Some("issue a new one (`outgate ca issue`, or `outgate connector enroll`)".to_owned());
        if let Err(why) = &self.credentials {
            return (Status::Failed, why.clone(), Some("name readable files in [tunnel_tls]".to_owned()));
        }
        let Some(own) = self.own_validity() else {
            return (Status::Failed, "this connector's is no X.509 certificate".to_owned(), renew());
        };
        if own.end < self.now {
            return (Status::Failed, format!("this connector's expired {} ago", days(self.now - own.end)), renew());
        }
        let answered = self.answered();
        for outcome in &self.outcomes {
            let Outcome::Fault(cause, why) = outcome else { continue };
            // Where another transport was answered, what the peer refuses is not the certificate.
            if matches!(cause, Cause::Inspected | Cause::Broken) || *cause == Cause::Peer && !answered {
                let status = if answered { Status::Warning } else { Status::Failed };
                return (status, why.clone(), Some(self.remedy(Transport::Tls, *cause)));
            }
        }
        if !answered {
            return (Status::Skipped, "the relay's was not seen".to_owned(), None);
        }
        let found =
            format!("the relay's holds for {}, ours is taken and has {} days left", self.relay.server_name, (own.end - self.now) / DAY);
        (Status::Ok, found, None)
    }

    /// A clock that is wrong shows in certificates that are not valid yet or no more.
    fn clock(&self) -> Finding {
        let remedy = || Some("set this host's clock (`timedatectl`, NTP)".to_owned());
        let Some(own) = self.own_validity() else {
            return (Status::Skipped, "there is no certificate to compare it with".to_owned(), None);
        };
        if self.now < own.begin {
            let found = format!("it is {} behind the making of this connector's certificate", days(own.begin - self.now));
            return (Status::Failed, found, remedy());
        }
        let of_time = |outcome: &&Outcome| matches!(outcome, Outcome::Fault(Cause::Broken, why) if why.contains("not valid yet") || why.contains("expired"));
        if self.outcomes.iter().any(|outcome| of_time(&outcome)) {
            let found = "by it the relay's certificate is not valid yet, or no more".to_owned();
            return (
                Status::Failed,
                found,
                Some("compare this host's clock with the relay's; if both are right, renew its certificate".to_owned()),
            );
        }
        let found =
            if self.answered() { "within the times of both certificates" } else { "within the time of this connector's certificate" };
        (Status::Ok, found.to_owned(), None)
    }

    fn version(&self) -> Finding {
        if let Some((version, software)) = self.welcome() {
            let software = if software.is_empty() { "software that it does not name" } else { software };
            return (Status::Ok, format!("version {version} of the protocol, with {software}"), None);
        }
        let refused = self.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Answered(probe::Answer::Refused(code)) => Some(code),
            Outcome::Answered(probe::Answer::Welcome { .. }) | Outcome::Fault(..) => None,
        });
        match refused {
            Some(code) if code == "version" => {
                let remedy = "install releases on both sides that are no more than one version of the protocol apart".to_owned();
                (Status::Failed, "no version of the protocol in common".to_owned(), Some(remedy))
            }
            Some(code) => (Status::Failed, format!("the relay refuses: {code}"), Some("see the relay's log".to_owned())),
            None => (Status::Skipped, "no relay answered".to_owned(), None),
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

fn judge_datagrams(found: u16) -> Finding {
    if found >= SMALL {
        return (Status::Ok, format!("datagrams of {found} bytes pass"), None);
    }
    let remedy = "nothing need be done: QUIC and our TCP segments fit; bulk costs more packets. Look for a VPN or tunnel with a small MTU on the path";
    (Status::Warning, format!("datagrams of {found} bytes pass, larger ones do not"), Some(remedy.to_owned()))
}

const DAY: u64 = 86_400;

fn days(seconds: u64) -> String {
    if seconds < DAY { format!("{} minutes", seconds / 60) } else { format!("{} days", seconds / DAY) }
}

fn no_answer() -> Outcome {
    Outcome::Fault(Cause::Silent, "the relay takes the connection and does not answer".to_owned())
}

fn as_dialled(relay: &connector::Relay) -> RelayAddress {
    RelayAddress {
        address: relay.address.clone(),
        server_name: relay.server_name.clone(),
        transport: relay.transport,
        switch_every: relay.switch_every,
        climb_every: CLIMB_EVERY,
        proxy: relay.proxy.clone(),
        resolver: Resolver::System,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_path_is_told_and_is_no_failure() {
        assert_eq!(judge_datagrams(1452).0, Status::Ok);
        assert_eq!(judge_datagrams(1350).0, Status::Ok);
        let (status, found, remedy) = judge_datagrams(1232);
        assert_eq!(status, Status::Warning);
        assert!(found.contains("1232") && remedy.is_some());
    }
}
