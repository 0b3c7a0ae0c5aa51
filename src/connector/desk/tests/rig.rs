//! A desk, its store and its time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::connector::bot::{BotConfig, BotRule};
use crate::connector::desk::{
    AgentConfig, Desk, DeskConfig, DoorConfig, Effect, Input, Now, Outside, QueueConfig, RelayIndex, Step, StreamHandle,
};
use crate::fingerprint::{ClientSoftware, Confidence, Denial, SoftwareSource};
use crate::im::{ImEvent, Message};
use crate::link::{LinkRefusal, LinkTerms, RevokedLink};
use crate::proto::tunnel::event;
use crate::proto::tunnel::{Admission, Assertion, ChannelId, ConnectorCommand, ConnectorEvent, Open, OpenKind, Payload};
use crate::proto::xmpp::ns;
use crate::proto::xmpp::stanza::Element;
use crate::routing::agent::Wish;
use crate::session::{Direction, OpenId, SessionId, SessionSecret};
use crate::store::{Op, Place, Snapshot, StoredEvent, StoredSession, StoredStream, StreamKey};

pub(super) const RELAY: RelayIndex = RelayIndex(0);
pub(super) const CHANNEL: ChannelId = ChannelId(1);
pub(super) const DOMAIN: &str = "chat.example";
pub(super) const AGENTS: &str = "desk.example";

/// Sessions and streams as the operations leave them.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeStore {
    pub(super) sessions: BTreeMap<SessionId, StoredSession>,
    streams: BTreeMap<StreamKey, StoredStream>,
    pub(super) revoked: Vec<RevokedLink>,
    link_uses: BTreeMap<[u8; 32], (u32, u64)>,
    wishes: BTreeMap<String, Wish>,
}

impl FakeStore {
    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Begin(record) => {
                if let Some(digest) = record.link_use {
                    self.link_uses.entry(digest).or_default().0 += 1;
                }
                let session = StoredSession {
                    place: Place::Queued,
                    enqueued_at: record.opened_at,
                    attachment: 1,
                    unseen_from: None,
                    in_handled: 0,
                    delivered: 0,
                    sm_in: 0,
                    out_last: 0,
                    out_handled: 0,
                    out_pending: Vec::new(),
                    fin: None,
                    history: Vec::new(),
                    own: Vec::new(),
                    record: *record,
                };
                self.sessions.insert(session.record.id, session);
            }
            Op::In { session, number, sm_in, body, at } => {
                let session = self.session(session);
                assert_eq!(number, session.in_handled + 1, "inward numbers have no holes");
                (session.in_handled, session.sm_in) = (number, sm_in);
                if body.is_some() {
                    session.history.push((Direction::In, StoredEvent { number, body, at }));
                }
            }
            Op::Counted { session, sm_in } => self.session(session).sm_in = sm_in,
            Op::Out { session, number, body, at } => {
                let session = self.session(session);
                assert_eq!(number, session.out_last + 1, "outward numbers have no holes");
                session.out_last = number;
                session.out_pending.push(StoredEvent { number, body: body.clone(), at });
                if body.is_some() {
                    session.history.push((Direction::Out, StoredEvent { number, body, at }));
                }
            }
            Op::OutFin { session, number, fin, .. } => self.session(session).fin = Some((number, fin)),
            Op::OutHandled { session, number, .. } => {
                let session = self.session(session);
                session.out_handled = number;
                session.out_pending.retain(|event| event.number > number);
            }
            Op::Own { .. } => {}
            Op::Revoke { link, .. } => {
                self.revoked.retain(|known| !known.names(&link.issuer, &link.jti));
                self.revoked.push(link);
            }
            Op::Attached { session, attachment } => {
                let session = self.session(session);
                (session.attachment, session.unseen_from) = (attachment, None);
            }
            Op::Unseen { session, from } => drop(self.session(session).unseen_from.get_or_insert(from)),
            Op::Software { session, software } => self.session(session).record.software = software,
            Op::Place { session, place, enqueued_at } => {
                let session = self.session(session);
                (session.place, session.enqueued_at) = (place, enqueued_at);
            }
            Op::StreamBegin { stream, agent, resource } => {
                let stored = StoredStream { stream, agent, resource, h: 0, out_last: 0, presence: None, pending: Vec::new() };
                self.streams.insert(stream, stored);
            }
            Op::Forget { .. } => {}
            Op::LinkReturned { session } => {
                if let Some(link) = self.session(session).record.link_use.take() {
                    self.link_uses.get_mut(&link).unwrap().0 -= 1;
                }
            }
            Op::LinkExpires { link, at } => self.link_uses.get_mut(&link).unwrap().1 = at,
            Op::LinksExpired { before } => self.link_uses.retain(|_, (_, expires)| *expires >= before),
            Op::Wish { agent, wish } => drop(self.wishes.insert(agent, wish)),
            Op::StreamPresence { stream, presence } => self.stream(stream).presence = presence,
            Op::StreamIn { stream, h } => self.stream(stream).h = h,
            Op::StreamOut { stream, number, xml, session } => {
                let stream = self.stream(stream);
                stream.out_last = number;
                stream.pending.push((number, xml, session));
            }
            Op::StreamAcked { stream, h } => self.stream(stream).pending.retain(|(number, ..)| *number > h),
            Op::StreamEnd { stream } => {
                self.streams.remove(&stream);
            }
            Op::Delivered { session, number } => {
                let session = self.session(session);
                assert!(number <= session.in_handled, "only what is handled can be delivered");
                session.delivered = session.delivered.max(number);
            }
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let is_live = |session: &&StoredSession| {
            !matches!(session.place, Place::Closed(_)) || session.fin.as_ref().is_some_and(|(fin, _)| *fin > session.out_handled)
        };
        let mut sessions: Vec<StoredSession> = self.sessions.values().filter(is_live).cloned().collect();
        for session in &mut sessions {
            session.history = session.history.split_off(session.history.len().saturating_sub(200));
        }
        Snapshot {
            incarnation: [0; 16],
            sessions,
            streams: self.streams.values().cloned().collect(),
            revoked: self.revoked.clone(),
            link_uses: self.link_uses.iter().map(|(digest, (uses, expires))| (*digest, *uses, *expires)).collect(),
            wishes: self.wishes.clone().into_iter().collect(),
        }
    }

    fn session(&mut self, id: SessionId) -> &mut StoredSession {
        self.sessions.get_mut(&id).unwrap()
    }

    fn stream(&mut self, key: StreamKey) -> &mut StoredStream {
        self.streams.get_mut(&key).unwrap()
    }
}

/// A desk whose steps are committed at once, unless the test holds them back.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) desk: Desk,
    pub(super) store: FakeStore,
    pub(super) now: Now,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    pub(super) fn new(config: DeskConfig) -> Self {
        let now = Now { instant: Instant::now(), unix_millis: 1_700_000_000_000 };
        let (desk, step) = Desk::restore(Snapshot::default(), config, outside(0), now);
        assert!(step.ops.is_empty());
        Self { desk, store: FakeStore::default(), now }
    }

    pub(super) fn handle(&mut self, input: Input) -> Vec<Effect> {
        let step = self.desk.handle(input, self.now);
        self.commit(step)
    }

    pub(super) fn commit(&mut self, step: Step) -> Vec<Effect> {
        for op in step.ops {
            self.store.apply(op);
        }
        step.effects
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now.instant + time;
        let mut effects = Vec::new();
        while let Some(due) = self.desk.poll_timeout().filter(|due| *due <= end) {
            self.advance_to(due);
            effects.extend(self.handle(Input::Timeout));
        }
        self.advance_to(end);
        effects
    }

    fn advance_to(&mut self, instant: Instant) {
        let passed = instant.saturating_duration_since(self.now.instant);
        self.now.instant += passed;
        self.now.unix_millis += u64::try_from(passed.as_millis()).unwrap();
    }

    /// The connector dies and starts from what was committed.
    pub(super) fn restart(&mut self, config: DeskConfig, seed: u8) {
        let (desk, step) = Desk::restore(self.store.snapshot(), config, outside(seed), self.now);
        self.desk = desk;
        let effects = self.commit(step);
        assert!(texts_to_agents(&effects).is_empty());
    }

    pub(super) fn tunnel(&mut self, event: ConnectorEvent) -> Vec<Effect> {
        self.handle(Input::Tunnel { relay: RELAY, event })
    }

    /// A public customer comes in as number `n` on channel `n`, with known software.
    pub(super) fn open(&mut self, n: u8, queue: &str) -> Vec<Effect> {
        self.tunnel(ConnectorEvent::Open { channel: ChannelId(n.into()), open: Box::new(open(n, queue, Assertion::Anonymous)) })
    }

    /// The customer on channel `n` says something as inward event `number`.
    pub(super) fn customer_says(&mut self, n: u8, number: u64, body: &str) -> Vec<Effect> {
        self.tunnel(data(n, number, &said(&format!("c{number}"), body)))
    }

    /// An agent logs in without stream management, and is available.
    pub(super) fn log_in(&mut self, stream: u64, agent: &str) -> Vec<Effect> {
        let mut effects =
            self.handle(Input::AgentConnected { stream: StreamHandle(stream), agent: agent.into(), resource: format!("r{stream}") });
        effects.extend(self.agent(stream, Element::new("presence", ns::CLIENT)));
        effects
    }

    pub(super) fn agent(&mut self, stream: u64, element: Element) -> Vec<Effect> {
        self.handle(Input::AgentStanza { stream: StreamHandle(stream), element })
    }

    pub(super) fn agent_says(&mut self, stream: u64, to: &str, id: &str, body: &str) -> Vec<Effect> {
        self.agent(stream, chat(to, id, body))
    }

    /// The proxy address and the code of the only session.
    pub(super) fn proxy(&self) -> (String, String) {
        let status = self.desk.status();
        let code = status.sessions[0].code.clone();
        (format!("guest-{code}@{AGENTS}"), code)
    }
}

pub(super) fn outside(seed: u8) -> Outside {
    let mut next: u128 = u128::from(seed) << 64;
    Outside {
        verify_link: Box::new(|token, _, _| match token {
            "once" => Ok(terms("billing", Some(1))),
            "any" => Ok(terms("billing", None)),
            _ => Err(LinkRefusal::BadSignature),
        }),
        entropy: Box::new(move || {
            next = next.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
            next.to_be_bytes()
        }),
    }
}

fn terms(queue: &str, max_sessions: Option<u32>) -> LinkTerms {
    LinkTerms {
        issuer: "shop".into(),
        kid: "k1".into(),
        jti: "j1".into(),
        subject: Some("Maria".into()),
        queue: queue.into(),
        reason: Some("card declined".into()),
        max_sessions,
        skills: Vec::new(),
        lang: None,
        expires: 1_700_003_600,
    }
}

/// Queues "help" (public), "billing" (link), "auto" (public, no offers) and "bot" (public, a bot first); agents alice and bob.
pub(super) fn config() -> DeskConfig {
    let queue = |id: &str, public: bool, auto_accept: bool, bot: Option<BotConfig>| QueueConfig {
        id: id.into(),
        domain: DOMAIN.into(),
        name: id.into(),
        public,
        bot,
        offer_timeout: Duration::from_secs(20),
        auto_accept,
    };
    let bot = BotConfig {
        name: "Robo".into(),
        greeting: "Hello, I am a bot.".into(),
        rules: vec![BotRule { words: vec!["hours".into()], answer: "Nine to five.".into() }],
        ..BotConfig::default()
    };
    let agent = |name: &str, display: &str| AgentConfig {
        name: name.into(),
        display: display.into(),
        queues: ["help", "billing", "auto", "bot"].map(String::from).to_vec(),
        capacity: 2,
    };
    DeskConfig {
        agents_domain: AGENTS.into(),
        door: DoorConfig { issuers: vec!["shop".into()], denied: vec![chatty()], ..DoorConfig::default() },
        queues: vec![
            queue("help", true, false, None),
            queue("billing", false, false, None),
            queue("auto", true, true, None),
            queue("bot", true, false, Some(bot)),
        ],
        agents: vec![agent("alice", "Alice"), agent("bob", "Bob")],
    }
}

pub(super) fn chatty() -> Denial {
    Denial { software: "Chatty".into(), version: None, text: String::new() }
}

pub(super) fn open(n: u8, queue: &str, assertion: Assertion) -> Open {
    Open {
        kind: OpenKind::New { open_id: OpenId([n; 16]), secret: SessionSecret([n; 16]) },
        admission: Admission { domain: DOMAIN.into(), queue: queue.into(), assertion },
        client_addr: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        local_addr: SocketAddr::from(([192, 0, 2, 2], 5223)),
        protocol: "xmpp".into(),
        sni: None,
        software: profanity(),
        resumable: true,
        waited: Duration::ZERO,
    }
}

pub(super) fn attach(n: u8, in_next: u64, out_next: u64) -> Open {
    let kind = OpenKind::Attach { secret: SessionSecret([n; 16]), in_next, out_next, client_h: None, attachment: 0 };
    Open { kind, ..open(n, "help", Assertion::Anonymous) }
}

pub(super) fn profanity() -> ClientSoftware {
    ClientSoftware {
        name: "Profanity".into(),
        version: "0.13.1".into(),
        system: String::new(),
        source: SoftwareSource::Asked,
        confidence: Confidence::Stated,
        ..ClientSoftware::unknown()
    }
}

pub(super) fn said(id: &str, body: &str) -> ImEvent {
    ImEvent::Message(Message { id: Some(id.into()), body: body.into(), ..Message::default() })
}

pub(super) fn data(n: u8, number: u64, said: &ImEvent) -> ConnectorEvent {
    let payload = Payload::Event(event::encode(said));
    ConnectorEvent::Data { channel: ChannelId(n.into()), number, sm_in: u32::try_from(number).unwrap(), payload }
}

pub(super) fn chat(to: &str, id: &str, body: &str) -> Element {
    Element::new("message", ns::CLIENT)
        .with_attribute("type", "chat")
        .with_attribute("to", to)
        .with_attribute("id", id)
        .with_child(Element::new("body", ns::CLIENT).with_text(body))
}

/// What was written to agents' clients.
pub(super) fn texts_to_agents(effects: &[Effect]) -> Vec<String> {
    let text = |effect: &Effect| match effect {
        Effect::AgentWrite { xml, .. } => Some(xml.clone()),
        Effect::AgentResumed { output, .. } => Some(output.clone()),
        Effect::Tunnel { .. }
        | Effect::AgentClose { .. }
        | Effect::AgentRead { .. }
        | Effect::AgentResumeRefused { .. }
        | Effect::Audit(_)
        | Effect::Door(_) => None,
    };
    effects.iter().filter_map(text).collect()
}

pub(super) fn commands(effects: &[Effect]) -> Vec<ConnectorCommand> {
    let command = |effect: &Effect| match effect {
        Effect::Tunnel { command, .. } => Some(command.clone()),
        Effect::AgentWrite { .. }
        | Effect::AgentResumed { .. }
        | Effect::AgentClose { .. }
        | Effect::AgentRead { .. }
        | Effect::AgentResumeRefused { .. }
        | Effect::Audit(_)
        | Effect::Door(_) => None,
    };
    effects.iter().filter_map(command).collect()
}

/// The texts sent to customers.
pub(super) fn texts_to_customer(effects: &[Effect]) -> Vec<String> {
    let mut texts = Vec::new();
    for command in commands(effects) {
        if let ConnectorCommand::Send { payload: Payload::Event(bytes), .. } = command
            && let Ok(ImEvent::Message(message)) = event::decode(&bytes)
        {
            texts.push(message.body);
        }
    }
    texts
}

pub(super) fn is_told(texts: &[String], part: &str) -> bool {
    texts.iter().any(|text| text.contains(part))
}
