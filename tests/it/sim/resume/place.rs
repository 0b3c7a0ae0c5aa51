//! One relay with its tunnel: the real ends, the real streams, and a shell that does what the relay's tasks do.
#![expect(clippy::wildcard_enum_match_arm, reason = "the world picks out what it plays")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use outgate::fingerprint::ClientSoftware;
use outgate::proto::tunnel::frame::{self, Frame};
use outgate::proto::tunnel::{
    Admission, Assertion, CarrierId, ConnectorEnd, ConnectorEvent, Identity, Lane, Open, OpenKind, RelayCommand, RelayEnd, RelayEvent,
    SessionKey,
};
use outgate::proto::xmpp::server::Contact;
use outgate::relay::client::software::Screening;
use outgate::relay::client::{Client, ClientSettings, Idle};
use outgate::session::{OpenId, SessionSecret};

use super::person::Person;
use super::{DOMAIN, Dice, Plant, QUEUE, Told, connector_end, settings};

const LANES: [Lane; 2] = [Lane::Control, Lane::Data];

/// A session at this relay.
struct Session {
    key: SessionKey,
    secret: SessionSecret,
    client: Client,
    /// The connection of its client.
    connection: Option<u64>,
    /// Its client asks on another, with this count.
    asking: Option<(u64, u32)>,
    written: Vec<String>,
    sm_sent: u32,
}

/// A session that comes from elsewhere.
struct Returning {
    key: SessionKey,
    secret: SessionSecret,
    connection: u64,
    h: u32,
    out_first: Option<u64>,
    handled: Option<(u64, u32)>,
    early: Vec<RelayEvent>,
}

pub(super) struct Place {
    relay: RelayEnd,
    pub(super) connector: ConnectorEnd,
    carrier: Option<CarrierId>,
    carriers: u64,
    dial_at: Option<Instant>,
    /// Frames on their way: to the connector, and to the relay; by lane.
    on_the_way: [[VecDeque<Frame>; 2]; 2],
    sessions: Vec<Session>,
    returning: Vec<Returning>,
    keys: u64,
    generation: u8,
    pub(super) resumed_here: u64,
    pub(super) resumed_elsewhere: u64,
}

fn relay_end(generation: u8) -> RelayEnd {
    let mut last = 0u8;
    RelayEnd::new(
        settings(),
        Box::new(move || {
            last = last.wrapping_add(1);
            [generation, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }),
    )
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            relay: relay_end(1),
            connector: connector_end(),
            carrier: None,
            carriers: 0,
            dial_at: None,
            on_the_way: Default::default(),
            sessions: Vec::new(),
            returning: Vec::new(),
            keys: 0,
            generation: 1,
            resumed_here: 0,
            resumed_elsewhere: 0,
        }
    }

    pub(super) fn dial(&mut self, now: Instant) {
        if self.carrier.is_none() && self.dial_at.is_none_or(|at| at <= now) {
            self.carriers += 1;
            let carrier = CarrierId(self.carriers);
            self.relay.carrier_opened(carrier, identity(), now);
            self.connector.carrier_opened(carrier, now);
            self.carrier = Some(carrier);
        }
    }

    /// The carrier breaks, with what is on it.
    pub(super) fn cut(&mut self, now: Instant) {
        let Some(carrier) = self.carrier.take() else { return };
        self.on_the_way = Default::default();
        self.relay.carrier_lost(carrier, now);
        self.connector.carrier_lost(carrier, now);
        self.dial_at = Some(now + Duration::from_millis(200));
    }

    /// The process dies and comes back with nothing.
    pub(super) fn crash(&mut self, now: Instant) {
        self.cut(now);
        self.generation += 1;
        self.relay = relay_end(self.generation);
        self.sessions.clear();
        self.returning.clear();
    }

    pub(super) fn pass_time(&mut self, now: Instant) {
        self.relay.handle_timeout(now);
        self.connector.handle_timeout(now);
        for session in &mut self.sessions {
            if session.client.poll_timeout().is_some_and(|due| due <= now) {
                session.client.handle_timeout(now);
            }
        }
    }

    /// Moves frames; gives what the desk is told.
    pub(super) fn carry(&mut self, dice: &mut Dice, is_calm: bool, now: Instant) -> Told {
        if let Some(carrier) = self.carrier {
            for (lane, index) in LANES.into_iter().zip(0..) {
                let mut bytes = BytesMut::new();
                self.relay.poll_transmit(carrier, lane, 1 << 20, &mut bytes, now);
                take_frames(&mut bytes, &mut self.on_the_way[0][index]);
                self.connector.poll_transmit(carrier, lane, 1 << 20, &mut bytes, now);
                take_frames(&mut bytes, &mut self.on_the_way[1][index]);
            }
            for (way, lane) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let mut count = if is_calm { usize::MAX } else { dice.below(6) as usize };
                while count > 0
                    && (if way == 0 { self.connector.may_read(carrier, LANES[lane]) } else { self.relay.may_read(carrier, LANES[lane]) })
                    && let Some(frame) = self.on_the_way[way][lane].pop_front()
                {
                    count -= 1;
                    if way == 0 {
                        self.connector.handle_frame(carrier, frame, now);
                    } else {
                        self.relay.handle_frame(carrier, frame, now);
                    }
                }
            }
        }
        let mut told = Told::new();
        let mut is_closed = false;
        while let Some(event) = self.connector.poll_event() {
            is_closed |= matches!(event, ConnectorEvent::CloseCarrier { .. });
            told.push(event);
        }
        is_closed |= self.hear_tunnel(now);
        if is_closed {
            self.cut(now);
        }
        told
    }

    fn hear_tunnel(&mut self, now: Instant) -> bool {
        let mut is_closed = false;
        while let Some(event) = self.relay.poll_event() {
            let key = match &event {
                RelayEvent::OpenOk { session, .. }
                | RelayEvent::OpenRefused { session, .. }
                | RelayEvent::Data { session, .. }
                | RelayEvent::Handled { session, .. }
                | RelayEvent::OwnHandled { session, .. }
                | RelayEvent::Fin { session, .. }
                | RelayEvent::Gone { session, .. } => *session,
                RelayEvent::CloseCarrier { .. } => {
                    is_closed = true;
                    continue;
                }
                _ => continue,
            };
            if let Some(session) = self.sessions.iter_mut().find(|session| session.key == key) {
                session.client.handle_tunnel(event, now);
            } else if let Some(index) = self.returning.iter().position(|returning| returning.key == key) {
                self.hear_returning(index, event, now);
            }
        }
        is_closed
    }

    fn hear_returning(&mut self, index: usize, event: RelayEvent, now: Instant) {
        let returning = &mut self.returning[index];
        match event {
            RelayEvent::OpenOk { out_first, .. } => returning.out_first = Some(out_first),
            RelayEvent::Handled { number, sm_in, .. } => returning.handled = Some((number, sm_in)),
            RelayEvent::OpenRefused { .. } | RelayEvent::Gone { .. } => {
                self.returning.remove(index);
                return;
            }
            event => returning.early.push(event),
        }
        if let (Some(out_first), Some(handled)) = (returning.out_first, returning.handled) {
            let Returning { key, secret, connection, h, early, .. } = self.returning.remove(index);
            let (mut client, text) = Client::resumed(client_settings(key), h, out_first - 1, handled, now);
            early.into_iter().for_each(|event| client.handle_tunnel(event, now));
            self.resumed_elsewhere += 1;
            let (written, sm_sent) = (vec![text], handled.1);
            self.sessions.push(Session { key, secret, client, connection: Some(connection), asking: None, written, sm_sent });
        }
    }

    /// A customer's new connection.
    pub(super) fn arrive(&mut self, person: &Person, connection: u64, now: Instant) {
        let Some(h) = person.resumes() else {
            let kind = OpenKind::New { open_id: OpenId(person.secret.0), secret: person.secret };
            let key = self.open(kind, now);
            let client = Client::new(client_settings(key), now);
            let (secret, written) = (person.secret, Vec::new());
            self.sessions.push(Session { key, secret, client, connection: Some(connection), asking: None, written, sm_sent: 0 });
            return;
        };
        if let Some(session) = self.sessions.iter_mut().find(|session| session.secret == person.secret) {
            session.lose(now);
            session.client.handle_return(now);
            session.asking = Some((connection, h));
            return;
        }
        let kind = OpenKind::Attach { secret: person.secret, in_next: 0, out_next: 0, client_h: Some(h), attachment: 0 };
        let key = self.open(kind, now);
        let (secret, out_first, handled, early) = (person.secret, None, None, Vec::new());
        self.returning.push(Returning { key, secret, connection, h, out_first, handled, early });
    }

    fn open(&mut self, kind: OpenKind, now: Instant) -> SessionKey {
        self.keys += 1;
        let session = SessionKey(self.keys);
        let address = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
        let open = Open {
            kind,
            admission: Admission { domain: DOMAIN.into(), queue: "sales".into(), assertion: Assertion::Anonymous },
            client_addr: address,
            local_addr: address,
            protocol: "xmpp".into(),
            sni: None,
            software: ClientSoftware::unknown(),
            resumable: false,
            waited: Duration::ZERO,
        };
        self.relay.handle_command(RelayCommand::Open { session, identity: identity(), open: Box::new(open) }, now);
        session
    }

    /// Reads what a customer has written.
    pub(super) fn hear(&mut self, person: &mut Person, plant: Option<Plant>, now: Instant) {
        let Some((_, connection)) = person.place() else { return };
        let Some(session) = self.sessions.iter_mut().find(|session| session.connection == Some(connection)) else { return };
        while session.client.wants_read()
            && let Some(element) = person.outbox.pop_front()
        {
            session.client.handle_stanza(&element, now);
        }
        if plant == Some(Plant::CountAhead) {
            let (session, sm_in) = (session.key, session.sm_sent);
            let ahead = RelayEvent::Handled { session, number: 0, sm_in };
            if let Some(one) = self.sessions.iter_mut().find(|one| one.key == session) {
                one.client.handle_tunnel(ahead, now);
            }
        }
    }

    /// Does what the streams ask.
    pub(super) fn serve(&mut self, plant: Option<Plant>, now: Instant) {
        for session in &mut self.sessions {
            if let Some((connection, h)) = session.asking
                && session.client.may_resume()
                && let Ok(text) = session.client.resume(h, now)
            {
                session.asking = None;
                session.connection = Some(connection);
                session.written = vec![text];
                self.resumed_here += 1;
            }
            while let Some(command) = session.client.poll_command() {
                match command {
                    RelayCommand::Own { after, count, .. } if plant == Some(Plant::OwnUnrecorded) && count > 0 => {
                        session.client.handle_tunnel(RelayEvent::OwnHandled { session: session.key, after, count }, now);
                        continue;
                    }
                    RelayCommand::Send { sm_in, .. } | RelayCommand::Counted { sm_in, .. } => session.sm_sent = sm_in,
                    _ => {}
                }
                self.relay.handle_command(command, now);
            }
            if session.connection.is_some() {
                while let Some(text) = session.client.poll_output() {
                    session.written.push(text);
                    session.client.handle_drained();
                }
                if session.client.wants_hangup() {
                    session.lose(now);
                }
            }
        }
        self.sessions.retain(|session| session.client.poll_over().is_none());
    }

    /// What was written on a connection since; `None` where it is over.
    pub(super) fn written_to(&mut self, connection: u64) -> Option<Vec<String>> {
        let waits = self.returning.iter().any(|returning| returning.connection == connection)
            || self.sessions.iter().any(|session| session.asking.is_some_and(|(asking, _)| asking == connection));
        if waits {
            return Some(Vec::new());
        }
        let session = self.sessions.iter_mut().find(|session| session.connection == Some(connection))?;
        Some(std::mem::take(&mut session.written))
    }

    pub(super) fn put_back(&mut self, connection: u64, text: Vec<String>) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.connection == Some(connection)) {
            session.written = text;
        }
    }

    pub(super) fn client_lost(&mut self, connection: u64, now: Instant) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.connection == Some(connection)) {
            session.lose(now);
        }
    }
}

impl Session {
    fn lose(&mut self, now: Instant) {
        self.client.handle_lost(now);
        self.connection = None;
        self.asking = None;
        self.written.clear();
    }
}

fn take_frames(bytes: &mut BytesMut, to: &mut VecDeque<Frame>) {
    while let Ok(Some(frame)) = frame::decode(bytes) {
        to.push_back(frame);
    }
    bytes.clear();
}

fn identity() -> Identity {
    Identity("outgate://lab/connector/lan1".to_owned())
}

fn client_settings(session: SessionKey) -> ClientSettings {
    ClientSettings {
        session,
        domain: DOMAIN.into(),
        client: format!("guest@{DOMAIN}/phone"),
        queue: Contact { jid: QUEUE.into(), name: "Sales".into(), group: "Support".into() },
        is_anonymous: true,
        screening: Screening::default(),
        idle: Idle::default(),
        entropy: || [7; 16],
        resume_id: Some("secret-phone".into()),
    }
}
