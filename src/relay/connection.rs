//! One customer's connection from its first byte to its last: opening, negotiation, session.

mod live;
mod resume;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::fingerprint::Fingerprint;
use crate::net::allow_files::Watched;
use crate::net::entropy;
use crate::net::negotiate::{Arrived, Judge, Resumption, Terms, negotiate, resource_of};
use crate::net::proxy_protocol::{self, Origin};
use crate::net::shutdown::Stop;
use crate::net::stream::{Greeting, Stream};
use crate::proto::tunnel::{Admission, Assertion, Open, OpenKind};
use crate::proto::xmpp::negotiation::Login;
use crate::proto::xmpp::sasl::{SaslFailure, ScramKeys};
use crate::session::{OpenId, SessionSecret};
use crate::telemetry::audit::{Event, LinkMark, link_hash};

use super::attach::Tunnels;
use super::client::Client;
use super::client::software::Screening;
use super::counters::{Counters, Place};
use super::door::{Admitted, Door};
use super::listener::DENIED;
use super::refusal_log::RefusalLog;
use super::resumable::{Resumables, Seat, StreamId, label_of};
use super::settings::Limits;
use super::software_policy::SoftwarePolicy;

use self::live::{Back, Live};
use self::resume::{Returning, jid_of, settings_of};

/// What all connections of one relay share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Door,
    pub(super) terms: Terms,
    pub(super) counters: Arc<Counters>,
    pub(super) limits: Limits,
    pub(super) log: RefusalLog,
    pub(super) access: Watched,
    pub(super) software: Arc<SoftwarePolicy>,
    pub(super) resumables: Arc<Resumables>,
}

/// How long a relay goes on.
#[derive(Clone, Debug)]
pub(super) struct Until {
    /// It takes no new customers.
    pub(super) closed: Stop,
    /// It ends.
    pub(super) stopped: Stop,
}

/// The places that a connection takes.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) connection: Place,
    pub(super) before_login: Place,
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tunnels: Tunnels, socket: TcpStream, peer: SocketAddr, places: Places, until: Until) {
    let Until { closed, stopped } = until;
    let Places { connection, before_login } = places;
    let mut ends = Ends { peer, local: None };
    let entrance = match Box::pin(arrive(&shared, &tunnels, socket, &mut ends, connection, closed)).await {
        Ok(entrance) => entrance,
        Err(reason) => {
            shared.counters.count(reason);
            shared.log.write("connection", reason, ends.peer);
            return;
        }
    };
    drop(before_login);
    let mut live = match entrance {
        Entrance::Session(live) => live,
        // Its session has a task of its own.
        Entrance::Back => return,
    };
    let session = shared.counters.session();
    let reason = live.run(&shared, stopped).await;
    live.close().await;
    shared.counters.count(reason);
    tracing::info!(reason, "session ends");
    let audit = shared.log.audit();
    audit.record(Event::Left { address: audit.place(live.peer.ip()), queue: live.queue, reason });
    drop(session);
}

/// What a connection came for.
enum Entrance {
    /// A session, which begins here or has come here.
    Session(Box<Live>),
    /// A session that is here already, and has its transport now.
    Back,
}

/// Both ends of a client's connection, as far as they are known.
struct Ends {
    /// The client, or the proxy before it.
    peer: SocketAddr,
    /// Where the client connected to, as a proxy tells it.
    local: Option<SocketAddr>,
}

/// Everything before the session.
async fn arrive(
    shared: &Arc<Shared>,
    tunnels: &Tunnels,
    mut socket: TcpStream,
    ends: &mut Ends,
    connection: Place,
    stop: Stop,
) -> Result<Entrance, &'static str> {
    if shared.access.is_proxy(ends.peer.ip()) {
        look_behind(shared, &mut socket, ends).await?;
    }
    let (peer, local) = (ends.peer, ends.local.map_or_else(|| socket.local_addr(), Ok).map_err(|_| "transport")?);
    let mut judge = CustomerJudge::new(shared, tunnels, (peer, local));
    let arrived = negotiate(Stream::Plain(socket), &shared.terms, &mut judge, stop).await;
    // The list may have changed meanwhile; where it changes later the stream is told.
    let arrived = arrived.and_then(|arrived| if shared.access.allows(peer.ip()) { Ok(arrived) } else { Err(DENIED) });
    let Arrived { stream, reader, greeting } = match arrived {
        Ok(arrived) => arrived,
        Err(reason) => {
            shared.log.write("connection", reason, peer);
            return judge.left_behind().await.map(Entrance::Session).ok_or(reason);
        }
    };
    let seat = Box::new(Seat { stream, reader, peer, _connection: connection });
    if let Some(session) = judge.seat.take() {
        // Where the session has ended meanwhile, its client sees its connection closed, and asks again.
        return session.send(seat).map(|()| Entrance::Back).map_err(|_| "resume-lost");
    }
    if let Some(mut live) = judge.returned.take() {
        tracing::info!("session goes on here");
        live.seat = Some(seat);
        return Ok(Entrance::Session(live));
    }
    begin(judge, seat, greeting).await.map(Entrance::Session)
}

/// A new session, or one that a customer continues with his link.
async fn begin(judge: CustomerJudge<'_>, seat: Box<Seat>, greeting: Option<Greeting>) -> Result<Box<Live>, &'static str> {
    let CustomerJudge { shared, tunnels, local, admitted, is_anonymous, id, .. } = judge;
    // The negotiation never claims success without a login and a name.
    let (Some(admitted), Some(id)) = (admitted, id) else { return Err("fault") };
    let hello = greeting.as_ref().map(|greeting| greeting.fingerprint);
    let screening = Screening { knowledge: shared.software.knowledge(), denied: Arc::clone(&admitted.denied), hello };
    let (ja4, peer, queue) = (hello.map(|hello| hello.ja4.to_string()), seat.peer, admitted.contact.jid.clone());
    tracing::info!(queue, ja4, "session begins");
    let (audit, link) = (shared.log.audit(), mark_of(&admitted.admission, &admitted.issuer));
    audit.record(Event::Admitted { address: audit.place(peer.ip()), queue: queue.clone(), link, ja4 });
    let open = Open {
        kind: kind_of(admitted.continues, id.secret),
        admission: admitted.admission.clone(),
        client_addr: peer,
        local_addr: local,
        protocol: "xmpp".to_owned(),
        sni: greeting.and_then(|greeting| greeting.sni),
        software: screening.seen(),
        resumable: false,
        waited: Duration::ZERO,
    };
    let identity = admitted.identity.clone();
    let (session, events) = tunnels.open(identity.clone(), Box::new(open)).await;
    let settings = settings_of(shared, session, admitted, is_anonymous, &id, screening);
    let client = Client::new(settings, now());
    let (tunnels, digest) = (tunnels.clone(), id.digest());
    let (back, sent, began) = (Back::default(), 0, None);
    Ok(Box::new(Live { seat: Some(seat), client, tunnels, events, identity, queue, peer, sent, began, digest, back }))
}

/// A new session; or the one that lives, of which only the connector knows the numbers.
fn kind_of(continues: bool, secret: SessionSecret) -> OpenKind {
    if continues {
        OpenKind::Attach { secret, in_next: 0, out_next: 0, client_h: None, attachment: 0 }
    } else {
        OpenKind::New { open_id: OpenId(entropy::sixteen()), secret }
    }
}

/// Learns from a trusted proxy who the client is, and whether it may connect.
async fn look_behind(shared: &Shared, socket: &mut TcpStream, ends: &mut Ends) -> Result<(), &'static str> {
    match proxy_protocol::read(socket, shared.limits.proxy_header_within).await {
        Ok(Origin::Client(peer, local)) => *ends = Ends { peer, local: Some(local) },
        // It looks whether anybody is here, and leaves.
        Ok(Origin::Proxy) => {}
        Err(fault) => {
            tracing::debug!(proxy = %ends.peer, %fault, "a trusted proxy does not tell whose connection it passes on");
            return Err("proxy-header");
        }
    }
    if shared.access.allows(ends.peer.ip()) { Ok(()) } else { Err(DENIED) }
}

/// The door, as the negotiation asks it, for one customer.
struct CustomerJudge<'a> {
    shared: &'a Shared,
    tunnels: &'a Tunnels,
    peer: SocketAddr,
    local: SocketAddr,
    admitted: Option<Admitted>,
    is_anonymous: bool,
    /// The id of a stream that begins.
    id: Option<StreamId>,
    /// The session that has asked for the transport.
    seat: Option<oneshot::Sender<Box<Seat>>>,
    /// A session that comes here, and one that has come.
    returning: Option<Returning>,
    returned: Option<Box<Live>>,
}

impl<'a> CustomerJudge<'a> {
    fn new(shared: &'a Shared, tunnels: &'a Tunnels, (peer, local): (SocketAddr, SocketAddr)) -> Self {
        let (admitted, id, seat, returning, returned) = (None, None, None, None, None);
        Self { shared, tunnels, peer, local, admitted, is_anonymous: false, id, seat, returning, returned }
    }
}

/// The shortest link is a code of so many characters. A password that is typed by mistake is shorter, and leaves no trace.
const SHORTEST_LINK: usize = 26;

/// The hash of the link that a login shows.
fn link_of(login: &Login) -> Option<String> {
    match login {
        Login::Plain { password, .. } if password.len() >= SHORTEST_LINK => Some(link_hash(password)),
        Login::Plain { .. } | Login::Anonymous { .. } => None,
    }
}

/// What the audit log tells of a link that was good.
fn mark_of(admission: &Admission, issuer: &str) -> Option<LinkMark> {
    match &admission.assertion {
        Assertion::Link { token, kid } => Some(LinkMark { issuer: issuer.to_owned(), kid: kid.clone(), hash: link_hash(token) }),
        Assertion::Code(code) => Some(LinkMark { issuer: issuer.to_owned(), kid: String::new(), hash: link_hash(code) }),
        Assertion::Anonymous => None,
    }
}

impl Judge for CustomerJudge<'_> {
    fn hello(&mut self, fingerprint: &Fingerprint) -> Result<(), &'static str> {
        self.shared.software.screen(fingerprint)
    }

    async fn verify(&mut self, login: Login) -> Result<(), SaslFailure> {
        self.is_anonymous = matches!(login, Login::Anonymous { .. });
        let link = link_of(&login);
        match self.shared.door.judge(login, self.peer.ip(), self.tunnels, unix_seconds()).await {
            Ok(admitted) => {
                self.admitted = Some(admitted);
                Ok(())
            }
            Err(refusal) => {
                self.shared.counters.count(refusal.reason);
                self.shared.log.write_with_link("login", refusal.reason, self.peer, link);
                Err(refusal.failure)
            }
        }
    }

    /// A link is no password that either side could keep keys of.
    fn scram_keys(&mut self, _domain: &str, _user: &str) -> Option<ScramKeys> {
        None
    }

    /// An opaque name.
    fn bind(&mut self, domain: &str, _user: &str, resource: Option<String>) -> String {
        let label = self.admitted.as_ref().map(|admitted| label_of(&admitted.identity)).unwrap_or_default();
        let id = StreamId { label, secret: SessionSecret(entropy::sixteen()), resource: resource_of(resource) };
        let jid = jid_of(&id, domain);
        self.id = Some(id);
        jid
    }

    async fn resume(&mut self, _user: &str, previd: &str, h: u32) -> Resumption {
        self.go_on(previd, h).await
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the link's times")]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
