//! One customer's connection from its first byte to its last: opening, negotiation, session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admission::quota::Quota;
use crate::fingerprint::Fingerprint;
use crate::net::accept_rate::Presented;
use crate::net::allow_files::Watched;
use crate::net::entropy;
use crate::net::negotiate::{Handshake, Judge, Terms, negotiate, resource_of};
use crate::net::proxy_protocol::{self, Origin};
use crate::net::shutdown::Stop;
use crate::net::stream::Stream;
use crate::proto::tunnel::{Admission, Assertion, Identity, Open, OpenKind, Payload, RelayCommand, RelayEvent};
use crate::proto::xmpp::negotiation::Login;
use crate::proto::xmpp::reader::{ReadEvent, Reader};
use crate::proto::xmpp::sasl::{SaslFailure, ScramKeys};
use crate::session::{OpenId, SessionSecret};
use crate::telemetry::HOP;
use crate::telemetry::audit::{Event, LinkMark, link_hash};

use super::attach::{SessionEvents, Tunnels};
use super::client::software::Screening;
use super::client::{Client, ClientSettings, FLOOD};
use super::counters::{Counters, Place};
use super::door::{Admitted, Door, Refusal, temporary};
use super::gate::{Gate, Permit};
use super::listener::DENIED;
use super::refusal_log::RefusalLog;
use super::settings::Limits;
use super::software_policy::SoftwarePolicy;

/// Events taken before what they wrote leaves.
const BATCH: usize = 64;

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

/// A connection with its session.
struct Live {
    stream: Stream,
    reader: Reader,
    client: Client,
    tunnels: Tunnels,
    events: SessionEvents,
    /// The connector that serves the queue.
    identity: Identity,
    /// The queue's address.
    queue: String,
    /// Where the client is.
    peer: SocketAddr,
    /// What it may send.
    quota: Quota,
    was_held: bool,
    /// Events sent into the tunnel, which numbers them from 1.
    sent: u64,
    /// When the stanza that is being read began.
    began: Option<std::time::Instant>,
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tunnels: Tunnels, socket: TcpStream, peer: SocketAddr, places: Places, until: Until) {
    let Until { closed, stopped } = until;
    let Places { connection, before_login, mut permit } = places;
    let mut ends = Ends { peer, local: None };
    let mut live = match Box::pin(arrive(&shared, &tunnels, socket, &mut ends, &mut permit, closed)).await {
        Ok(live) => live,
        Err(reason) => return shared.refuse("connection", reason, ends.peer),
    };
    drop(before_login);
    let session = shared.counters.session();
    let reason = live.run(&shared, stopped).await;
    Box::pin(live.stream.close()).await;
    if reason == FLOOD {
        shared.refuse("session", reason, ends.peer);
    } else {
        shared.counters.count(reason);
    }
    tracing::info!(reason, "session ends");
    let audit = shared.log.audit();
    audit.record(Event::Left { address: audit.place(live.peer.ip()), queue: live.queue, reason });
    drop((session, permit, connection));
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
    shared: &Shared,
    tunnels: &Tunnels,
    mut socket: TcpStream,
    ends: &mut Ends,
    permit: &mut Permit,
    stop: Stop,
) -> Result<Box<Live>, &'static str> {
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
        arrived = log_in(shared, tunnels, socket, ends, permit, stop) => arrived,
        reason = call.sent_away() => Err(reason),
    }
}

async fn log_in(
    shared: &Shared,
    tunnels: &Tunnels,
    socket: TcpStream,
    ends: &Ends,
    permit: &mut Permit,
    stop: Stop,
) -> Result<Box<Live>, &'static str> {
    let (peer, local) = (ends.peer, ends.local.map_or_else(|| socket.local_addr(), Ok).map_err(|_| "transport")?);
    let mut judge = CustomerJudge { shared, tunnels, peer, permit, admitted: None, is_anonymous: false, jid: String::new() };
    let arrived = negotiate(Stream::Plain(socket), &shared.terms, &mut judge, stop).await?;
    let CustomerJudge { admitted, is_anonymous, jid, .. } = judge;
    // The list may have changed meanwhile; where it changes later the stream is told.
    if !shared.access.allows(peer.ip()) {
        return Err(DENIED);
    }
    // The negotiation never claims success without a login.
    let Admitted { admission, identity, contact, denied, issuer, presented: _ } = admitted.ok_or("fault")?;
    let hello = arrived.greeting.as_ref().map(|greeting| greeting.fingerprint);
    let screening = Screening { knowledge: shared.software.knowledge(), denied, hello };
    let ja4 = hello.map(|hello| hello.ja4.to_string());
    tracing::info!(queue = contact.jid, ja4, "session begins");
    let (audit, queue) = (shared.log.audit(), contact.jid.clone());
    audit.record(Event::Admitted { address: audit.place(peer.ip()), queue: queue.clone(), link: mark_of(&admission, &issuer), ja4 });
    let open = Open {
        kind: OpenKind::New { open_id: OpenId(entropy::sixteen()), secret: SessionSecret(entropy::sixteen()) },
        admission: admission.clone(),
        client_addr: peer,
        local_addr: local,
        protocol: "xmpp".to_owned(),
        sni: arrived.greeting.and_then(|greeting| greeting.sni),
        software: screening.seen(),
        resumable: false,
        waited: Duration::ZERO,
    };
    let (session, events) = tunnels.open(identity.clone(), Box::new(open)).await;
    let settings = ClientSettings {
        session,
        domain: admission.domain,
        client: jid,
        queue: contact,
        is_anonymous,
        screening,
        idle: shared.limits.idle,
        entropy: entropy::sixteen,
    };
    let client = Client::new(settings, now());
    let (stream, reader, tunnels) = (arrived.stream, arrived.reader, tunnels.clone());
    Ok(Box::new(Live {
        stream,
        reader,
        client,
        tunnels,
        events,
        identity,
        queue,
        peer,
        quota: Quota::new(shared.limits.session),
        was_held: false,
        sent: 0,
        began: None,
    }))
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
    permit: &'a mut Permit,
    admitted: Option<Admitted>,
    is_anonymous: bool,
    jid: String,
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
        let judged = self.shared.door.judge(login, self.tunnels, self.permit, unix_seconds()).await;
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
        self.jid = format!("guest-{}@{domain}/{}", entropy::short_id(), resource_of(resource));
        self.jid.clone()
    }

    async fn resume(&mut self, _user: &str, _previd: &str, _h: u32) -> Option<String> {
        None
    }
}

impl CustomerJudge<'_> {
    fn take_in(&mut self, admitted: Admitted) -> Result<(), Refusal> {
        let full = "Too many people are connected from your network. Please try again later.";
        self.permit.log_in().map_err(|reason| temporary(reason, full))?;
        match admitted.presented {
            Presented::Again => self.permit.give_back(),
            Presented::First => {}
        }
        self.admitted = Some(admitted);
        Ok(())
    }
}

impl Live {
    async fn run(&mut self, shared: &Shared, mut stop: Stop) -> &'static str {
        let timer = tokio::time::sleep_until(Instant::now());
        tokio::pin!(timer);
        // A channel that has ended is always ready: asked again, it would spin through the whole farewell.
        let mut is_cut_off = false;
        let mut access = shared.access.clone();
        let denied = access.denied(self.peer.ip());
        tokio::pin!(denied);
        let mut is_denied = false;
        self.client.handle_attachment(self.tunnels.attachment(&self.identity), now());
        loop {
            self.read_stanzas();
            let held = self.hold(shared);
            self.flush(shared).await;
            if let Some(reason) = self.client.poll_over() {
                return reason;
            }
            let wants_read = self.client.wants_read() && held.is_none();
            let slow_at = self.slow_at(wants_read, shared.limits.stanza_within);
            arm(timer.as_mut(), [self.client.poll_timeout(), slow_at, held].into_iter().flatten().min());
            let take = |bytes: &[u8]| {
                self.quota.charge_bytes(bytes.len(), now());
                self.reader.push(bytes);
            };
            tokio::select! {
                read = self.stream.read(take), if wants_read => match read {
                    Ok(Some(())) => self.client.handle_heard(now()),
                    Ok(None) | Err(_) => self.client.handle_lost(),
                },
                event = self.events.recv(), if !is_cut_off => match event {
                    Some(event) => self.handle_events(event),
                    None => {
                        is_cut_off = true;
                        self.client.handle_cut_off(now());
                    }
                },
                () = self.tunnels.attachment_changed() => {
                    self.client.handle_attachment(self.tunnels.attachment(&self.identity), now());
                }
                () = &mut denied, if !is_denied => {
                    is_denied = true;
                    self.client.handle_denied();
                }
                () = timer.as_mut() => {
                    let now = now();
                    if slow_at.is_some_and(|at| at <= now) {
                        self.client.handle_slow();
                    }
                    self.client.handle_timeout(now);
                }
                () = stop.requested() => self.client.handle_shutdown(),
            }
        }
    }

    /// When a stanza that has begun must be whole. While this side does not read, the client is not slow.
    fn slow_at(&mut self, wants_read: bool, within: Duration) -> Option<std::time::Instant> {
        if !wants_read || !self.reader.is_inside_element() {
            self.began = None;
            return None;
        }
        Some(*self.began.get_or_insert_with(now) + within)
    }

    /// Hands what was read to the client, as far as it takes more.
    fn read_stanzas(&mut self) {
        let now = now();
        while self.client.wants_read() && self.client.poll_over().is_none() && self.quota.held_until(now).is_none() {
            match self.reader.poll() {
                Ok(Some(ReadEvent::Stanza(stanza))) => {
                    self.began = None;
                    if matches!(stanza.name(), "message" | "presence") {
                        self.quota.charge_message(now);
                    }
                    self.client.handle_stanza(&stanza, now);
                }
                Ok(Some(ReadEvent::StreamClose)) => return self.client.handle_stream_close(now),
                Ok(Some(ReadEvent::StreamOpen(_))) => {}
                Ok(None) => return,
                Err(fault) => return self.client.handle_fault(fault, now),
            }
        }
    }

    /// Until when the client is left unread, where that is so. One that presses on for too long is cut.
    fn hold(&mut self, shared: &Shared) -> Option<std::time::Instant> {
        let now = now();
        let held = self.quota.held_until(now)?;
        if !std::mem::replace(&mut self.was_held, true) {
            shared.counters.count("session-held");
        }
        if self.quota.is_over(now) {
            self.client.handle_flood();
        }
        Some(held)
    }

    fn handle_events(&mut self, first: RelayEvent) {
        let now = now();
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(event) = next.take().or_else(|| self.events.try_recv()) else { return };
            if let RelayEvent::Data { number, payload: Payload::Event(_) | Payload::Ephemeral(_), .. } = &event {
                tracing::trace!(target: HOP, "relay: event {number} goes to the customer's client");
            }
            self.client.handle_tunnel(event, now);
        }
    }

    /// Sends the commands, then writes the output in one piece.
    async fn flush(&mut self, shared: &Shared) {
        loop {
            while let Some(command) = self.client.poll_command() {
                if let RelayCommand::Send { .. } = &command {
                    self.sent += 1;
                    tracing::trace!(target: HOP, "relay: event {} goes into the tunnel", self.sent);
                }
                self.tunnels.command(command).await;
            }
            shared.counters.dropped(self.client.take_dropped());
            let Some(output) = self.client.poll_output() else { return };
            match self.stream.write(output.as_bytes(), shared.limits.write_within).await {
                Ok(()) => self.client.handle_drained(),
                Err(_) => self.client.handle_lost(),
            }
        }
    }
}

/// Moves the timer only where it would fire too late: a call too early costs nothing.
fn arm(timer: std::pin::Pin<&mut tokio::time::Sleep>, wanted: Option<std::time::Instant>) {
    let Some(wanted) = wanted.map(Instant::from_std) else { return };
    if timer.is_elapsed() || wanted < timer.deadline() {
        timer.reset(wanted);
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the link's times")]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
