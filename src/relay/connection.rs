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
use crate::net::accept_rate::Presented;
use crate::net::allow_files::Watched;
use crate::net::entropy;
use crate::net::negotiate::{Arrived, Handshake, Judge, Resumption, Terms, negotiate, resource_of};
use crate::net::proxy_protocol::{self, Origin};
use crate::net::shutdown::Stop;
use crate::net::stream::{Greeting, Stream};
use crate::proto::tunnel::{Admission, Assertion, Open, OpenKind};
use crate::proto::xmpp::negotiation::Login;
use crate::proto::xmpp::sasl::{SaslFailure, ScramKeys};
use crate::session::{OpenId, SessionSecret};
use crate::telemetry::audit::{Event, LinkMark, link_hash};

use super::attach::Tunnels;
use super::client::software::Screening;
use super::client::{Client, FLOOD};
use super::counters::{Counters, Place};
use super::door::{Admitted, Door, Refusal, temporary};
use super::gate::{Gate, Permit};
use super::listener::DENIED;
use super::refusal_log::RefusalLog;
use super::resumable::{Resumables, Seat, StreamId, label_of};
use super::settings::Limits;
use super::software_policy::SoftwarePolicy;

use self::live::{Allowed, Back, Live};
use self::resume::{Returning, jid_of, settings_of};

/// What all connections of one relay share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) door: Door,
    pub(super) terms: Terms,
    pub(super) counters: Arc<Counters>,
    pub(super) limits: Limits,
    pub(super) log: RefusalLog,
    pub(super) gate: Arc<Gate>,
    pub(super) access: Watched,
    pub(super) software: Arc<SoftwarePolicy>,
    pub(super) resumables: Arc<Resumables>,
}

impl Shared {
    /// Somebody is turned away: counted, and told in the log as far as its rate allows. All refusals of customers come through here.
    pub(super) fn refuse(&self, stage: &'static str, reason: &'static str, peer: SocketAddr) {
        self.refuse_with_link(stage, reason, peer, None);
    }

    /// The same, with the hash of the link that was shown.
    fn refuse_with_link(&self, stage: &'static str, reason: &'static str, peer: SocketAddr, link: Option<String>) {
        self.counters.count(reason);
        self.log.write_with_link(stage, reason, peer, link);
    }
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
    pub(super) permit: Permit,
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tunnels: Tunnels, socket: TcpStream, peer: SocketAddr, places: Places, until: Until) {
    let Until { closed, stopped } = until;
    let Places { connection, before_login, permit } = places;
    let mut ends = Ends { peer, local: None };
    let entrance = match Box::pin(arrive(&shared, &tunnels, socket, &mut ends, (connection, permit), closed)).await {
        Ok(entrance) => entrance,
        Err(reason) => return shared.refuse("connection", reason, ends.peer),
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
    if reason == FLOOD {
        shared.refuse("session", reason, live.peer);
    } else {
        shared.counters.count(reason);
    }
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

/// Everything before the session, unless somebody else needs the place more.
async fn arrive(
    shared: &Arc<Shared>,
    tunnels: &Tunnels,
    mut socket: TcpStream,
    ends: &mut Ends,
    (connection, mut permit): (Place, Permit),
    stop: Stop,
) -> Result<Entrance, &'static str> {
    if shared.access.is_proxy(ends.peer.ip()) {
        let call = permit.call();
        tokio::select! {
            looked = look_behind(shared, &mut socket, ends) => looked?,
            reason = call.sent_away() => return Err(reason),
        }
        permit.identify(ends.peer.ip())?;
    }
    let call = permit.call();
    tokio::select! {
        arrived = log_in(shared, tunnels, socket, ends, (connection, permit), stop) => arrived,
        reason = call.sent_away() => Err(reason),
    }
}

async fn log_in(
    shared: &Arc<Shared>,
    tunnels: &Tunnels,
    socket: TcpStream,
    ends: &Ends,
    (connection, permit): (Place, Permit),
    stop: Stop,
) -> Result<Entrance, &'static str> {
    let (peer, local) = (ends.peer, ends.local.map_or_else(|| socket.local_addr(), Ok).map_err(|_| "transport")?);
    let mut judge = CustomerJudge::new(shared, tunnels, (peer, local), permit);
    let arrived = negotiate(Stream::Plain(socket), &shared.terms, &mut judge, stop).await;
    // The list may have changed meanwhile; where it changes later the stream is told.
    let arrived = arrived.and_then(|arrived| if shared.access.allows(peer.ip()) { Ok(arrived) } else { Err(DENIED) });
    let Arrived { stream, reader, greeting } = match arrived {
        Ok(arrived) => arrived,
        Err(reason) => {
            let live = judge.left_behind().await.ok_or(reason)?;
            shared.refuse("connection", reason, peer);
            return Ok(Entrance::Session(live));
        }
    };
    let (asked, returned) = (judge.seat.take(), judge.returned.take());
    let (permit, begins) = judge.out();
    let seat = Box::new(Seat { stream, reader, peer, _connection: connection, _permit: permit });
    if let Some(session) = asked {
        // Where the session has ended meanwhile, its client sees its connection closed, and asks again.
        return session.send(seat).map(|()| Entrance::Back).map_err(|_| "resume-lost");
    }
    if let Some(mut live) = returned {
        tracing::info!("session goes on here");
        live.seat = Some(seat);
        return Ok(Entrance::Session(live));
    }
    begin(shared, tunnels, begins.ok_or("fault")?, (seat, local), greeting).await.map(Entrance::Session)
}

/// A new session, or one that a customer continues with his link.
async fn begin(
    shared: &Shared,
    tunnels: &Tunnels,
    begins: Begins,
    (seat, local): (Box<Seat>, SocketAddr),
    greeting: Option<Greeting>,
) -> Result<Box<Live>, &'static str> {
    let Begins { admitted, is_anonymous, id } = begins;
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
    let allowed = Allowed::new(shared.limits.session);
    Ok(Box::new(Live { seat: Some(seat), client, tunnels, events, identity, queue, peer, allowed, sent, began, digest, back }))
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
    permit: Permit,
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
    fn new(shared: &'a Shared, tunnels: &'a Tunnels, (peer, local): (SocketAddr, SocketAddr), permit: Permit) -> Self {
        let (admitted, id, seat, returning, returned) = (None, None, None, None, None);
        Self { shared, tunnels, peer, local, permit, admitted, is_anonymous: false, id, seat, returning, returned }
    }

    /// The permit, and what a session begins with. The negotiation never claims success without a login and a name.
    fn out(self) -> (Permit, Option<Begins>) {
        let Self { permit, admitted, is_anonymous, id, .. } = self;
        (permit, admitted.zip(id).map(|(admitted, id)| Begins { admitted, is_anonymous, id }))
    }
}

/// What a session begins with.
struct Begins {
    admitted: Admitted,
    is_anonymous: bool,
    id: StreamId,
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
    fn handshake(&mut self, handshake: Handshake) {
        self.permit.handshake(handshake);
    }

    fn hello(&mut self, fingerprint: &Fingerprint) -> Result<(), &'static str> {
        self.shared.software.screen(fingerprint)
    }

    async fn verify(&mut self, login: Login) -> Result<(), SaslFailure> {
        self.is_anonymous = matches!(login, Login::Anonymous { .. });
        let link = link_of(&login);
        let judged = self.shared.door.judge(login, self.peer.ip(), self.tunnels, &mut self.permit, unix_seconds()).await;
        match judged.and_then(|admitted| self.take_in(admitted)) {
            Ok(()) => Ok(()),
            Err(refusal) => {
                self.shared.refuse_with_link("login", refusal.reason, self.peer, link);
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
        let resumption = self.go_on(previd, h).await;
        if let Resumption::Resumed(_) = &resumption {
            self.permit.give_back();
        }
        resumption
    }
}

impl CustomerJudge<'_> {
    fn take_in(&mut self, admitted: Admitted) -> Result<(), Refusal> {
        let full = "Too many people are connected from your network. Please try again later.";
        self.permit.log_in().map_err(|reason| temporary(reason, full))?;
        if admitted.continues || admitted.presented == Presented::Again {
            self.permit.give_back();
        }
        self.admitted = Some(admitted);
        Ok(())
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the link's times")]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
