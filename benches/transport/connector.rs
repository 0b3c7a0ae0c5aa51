//! The tunnel's inner end: a task that owns it as the connector's does, and one for each session, connected to the service.
//!
//! With a store each event is committed before it goes on, both ways, and handled with the commit; without, an event is handled once
//! it is written to the service.

use std::collections::{HashMap, VecDeque};
use std::io::BufRead as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use outgate::net::carrier::{CarrierInput, Carriers, Lanes, TlsDialler};
use outgate::net::certificates::Live;
use outgate::net::dial::Route;
use outgate::net::entropy;
use outgate::net::inherited::Origin;
use outgate::net::quic;
use outgate::proto::tunnel::{ChannelId, ConnectorCommand, ConnectorEnd, ConnectorEvent, Open, OpenKind, Payload, Proof};
use outgate::session::SessionId;
use outgate::store::{Op, SecretDigest, SessionRecord, Store};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::relay::{credentials, messages, settings};
use crate::{Args, UNDER_WAY};

/// Inputs or commands taken at once, as the connector does.
const BATCH: usize = 256;

/// Between two dials where the first came to nothing.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Args) {
    // As the program does: a core is left to the store's thread.
    let cores = std::thread::available_parallelism().map_or(1, |all| all.get().saturating_sub(1).max(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build().unwrap();
    runtime.block_on(serve(args));
}

async fn serve(args: &Args) {
    let port = |name: &str| SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(args.number(name, 0)).unwrap()));
    // What a session has unhandled bounds these two queues.
    let (commands, asked) = mpsc::unbounded_channel();
    let desk = Desk { commands, record: Record::open(args), service: port("--service") };
    let incarnation = desk.record.as_ref().map_or([1; 16], |record| record.incarnation);
    let (carriers, inputs) = Carriers::new();
    let dial = Dial {
        credentials: credentials(Path::new(&args.demand("--dir")), "connector"),
        over_quic: args.demand("--transport") == "quic",
        relay: port("--tunnel"),
        due: Some(Instant::now()),
    };
    let shell =
        Shell { end: ConnectorEnd::new(settings(args), incarnation), lanes: Lanes::default(), carriers, dial, sessions: HashMap::new() };
    shell.run(inputs, asked, desk).await;
}

/// What a session's task is told.
enum Told {
    Said(u64, Bytes),
    Confirmed(u64),
    Ended(u64),
}

/// A session's inbox: nothing while it is empty.
#[derive(Default)]
struct Inbox {
    told: Mutex<VecDeque<Told>>,
    woken: Notify,
}

impl Inbox {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push_back(told);
        self.woken.notify_one();
    }

    async fn take(&self) -> VecDeque<Told> {
        loop {
            let all = std::mem::take(&mut *self.told.lock().unwrap());
            if !all.is_empty() {
                return all;
            }
            self.woken.notified().await;
        }
    }
}

enum Asked {
    Command(ConnectorCommand),
    Stats,
}

/// What may happen once it is committed.
enum Effect {
    Command(ConnectorCommand),
    Tell(Arc<Inbox>, Told),
}

fn release(effect: Effect, commands: &mpsc::UnboundedSender<Asked>) {
    match effect {
        Effect::Command(command) => commands.send(Asked::Command(command)).unwrap(),
        Effect::Tell(inbox, told) => inbox.tell(told),
    }
}

#[derive(Clone)]
struct Desk {
    commands: mpsc::UnboundedSender<Asked>,
    record: Option<Record>,
    service: SocketAddr,
}

#[derive(Clone)]
struct Record {
    store: Arc<Store<Effect>>,
    incarnation: [u8; 16],
    commands: Arc<OnceLock<mpsc::UnboundedSender<Asked>>>,
}

impl Record {
    fn open(args: &Args) -> Option<Self> {
        let path = args.value("--store")?;
        let commands = Arc::new(OnceLock::<mpsc::UnboundedSender<Asked>>::new());
        let of_released = commands.clone();
        let released = move |effects: Vec<Effect>| {
            let commands = of_released.get().unwrap();
            effects.into_iter().for_each(|effect| release(effect, commands));
        };
        let (store, snapshot) = Store::open(Path::new(&path), released).unwrap();
        Some(Self { store: Arc::new(store), incarnation: snapshot.incarnation, commands })
    }
}

impl Desk {
    /// Commits `ops`, where there is a store, and then lets the effects happen.
    async fn submit(&self, ops: Vec<Op>, effects: Vec<Effect>) {
        match &self.record {
            Some(record) => {
                record.commands.get_or_init(|| self.commands.clone());
                record.store.submit(ops, effects).await.unwrap();
            }
            None => effects.into_iter().for_each(|effect| release(effect, &self.commands)),
        }
    }
}

struct Shell {
    end: ConnectorEnd,
    lanes: Lanes,
    carriers: Carriers,
    dial: Dial,
    sessions: HashMap<ChannelId, (SessionId, Arc<Inbox>)>,
}

struct Dial {
    credentials: Live,
    over_quic: bool,
    relay: SocketAddr,
    due: Option<Instant>,
}

impl Dial {
    fn begin(&mut self, carriers: &mut Carriers) {
        self.due = None;
        let _dial = if self.over_quic {
            // A socket of its own for each dial: a new flow on the path.
            let socket = quic::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
            let endpoint = quic::client(socket, Origin::Bound, &self.credentials).unwrap();
            carriers.dial(&endpoint, self.relay, "relay.test")
        } else {
            carriers.dial_tls(&TlsDialler::new(&self.credentials).unwrap(), Route::Direct(self.relay), "relay.test")
        };
    }
}

impl Shell {
    async fn run(mut self, mut inputs: mpsc::Receiver<CarrierInput>, mut asked: mpsc::UnboundedReceiver<Asked>, desk: Desk) {
        let writable = self.carriers.writable();
        let (mut input_batch, mut asked_batch) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        answer_questions(desk.commands.clone());
        loop {
            let (ops, effects) = self.drain_events(&desk);
            if !effects.is_empty() || !ops.is_empty() {
                desk.submit(ops, effects).await;
            }
            self.lanes.fill(&mut self.end, now());
            let due = [self.end.poll_timeout(), self.lanes.poll_timeout()].into_iter().flatten().min().map(Instant::from_std);
            let due = due.into_iter().chain(self.dial.due).min();
            tokio::select! {
                _ = inputs.recv_many(&mut input_batch, BATCH) => input_batch.drain(..).for_each(|input| self.hear(input)),
                _ = asked.recv_many(&mut asked_batch, BATCH) => {
                    for asked in asked_batch.drain(..) {
                        match asked {
                            Asked::Command(command) => self.end.handle_command(command, now()),
                            Asked::Stats => println!("{}", self.end.stats().replayed),
                        }
                    }
                }
                () = writable.notified() => {}
                () = until(due) => {
                    self.end.handle_timeout(now());
                    if self.dial.due.is_some_and(|due| due <= Instant::now()) {
                        self.dial.begin(&mut self.carriers);
                    }
                }
            }
        }
    }

    fn hear(&mut self, input: CarrierInput) {
        match input {
            CarrierInput::Opened { carrier, handle, .. } => {
                self.lanes.insert(carrier, handle);
                self.end.carrier_opened(carrier, now());
            }
            CarrierInput::Frames { carrier, frames, .. } => {
                if self.lanes.is_open(carrier) {
                    frames.into_iter().for_each(|frame| self.end.handle_frame(carrier, frame, now()));
                }
            }
            CarrierInput::Lost { carrier, .. } => {
                if self.lanes.remove(carrier) {
                    self.end.carrier_lost(carrier, now());
                    self.dial.due = Some(Instant::now());
                } else if self.dial.due.is_none() && self.lanes.is_empty() {
                    self.dial.due = Some(Instant::now() + PAUSE);
                }
            }
            CarrierInput::Refused { .. } => {}
        }
    }

    fn drain_events(&mut self, desk: &Desk) -> (Vec<Op>, Vec<Effect>) {
        let (mut ops, mut effects) = (Vec::new(), Vec::new());
        let keeps = desk.record.is_some();
        while let Some(event) = self.end.poll_event() {
            match event {
                ConnectorEvent::CloseCarrier { carrier, .. } => {
                    self.lanes.fill(&mut self.end, now());
                    self.lanes.close(carrier, now());
                    self.end.carrier_lost(carrier, now());
                    self.dial.due = Some(Instant::now());
                }
                ConnectorEvent::Refused { retry_after, .. } => self.dial.due = Some(Instant::now() + retry_after),
                ConnectorEvent::Open { channel, open } => {
                    let session = SessionId::new(unix_millis(), entropy::sixteen()[..10].try_into().unwrap());
                    let inbox = Arc::<Inbox>::default();
                    self.sessions.insert(channel, (session, inbox.clone()));
                    if keeps {
                        ops.push(Op::Begin(Box::new(begun(session, *open))));
                    }
                    effects.push(Effect::Command(ConnectorCommand::Accept {
                        channel,
                        attachment: 1,
                        in_next: 1,
                        out_first: 1,
                        out: Vec::new(),
                    }));
                    tokio::spawn(converse(channel, session, inbox, desk.clone()));
                }
                ConnectorEvent::Data { channel, number, payload: Payload::Event(bytes), .. } => {
                    let Some((session, inbox)) = self.sessions.get(&channel) else { continue };
                    if keeps {
                        // A copy of its own, as the desk makes.
                        let body = Some(Bytes::copy_from_slice(&bytes));
                        ops.push(Op::In { session: *session, number, sm_in: 0, body, at: unix_millis() });
                        effects.push(Effect::Command(ConnectorCommand::Handled { channel, number, sm_in: 0 }));
                    }
                    effects.push(Effect::Tell(inbox.clone(), Told::Said(number, bytes)));
                }
                ConnectorEvent::OutHandled { channel, number, .. } => {
                    let Some((session, inbox)) = self.sessions.get(&channel) else { continue };
                    if keeps {
                        ops.push(Op::OutHandled { session: *session, number, proof: Proof::Written });
                    }
                    effects.push(Effect::Tell(inbox.clone(), Told::Confirmed(number)));
                }
                ConnectorEvent::Fin { channel, number, .. } => {
                    if let Some((_, inbox)) = self.sessions.remove(&channel) {
                        effects.push(Effect::Tell(inbox, Told::Ended(number)));
                    }
                }
                ConnectorEvent::Reset { channel, code } => panic!("channel {channel:?} was reset: {code:?}"),
                _ => {}
            }
        }
        (ops, effects)
    }
}

async fn converse(channel: ChannelId, session: SessionId, inbox: Arc<Inbox>, desk: Desk) {
    let stream = TcpStream::connect(desk.service).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (read, mut write) = stream.into_split();
    let mut partial = BytesMut::new();
    let (mut sent, mut confirmed) = (0, 0);
    let keeps = desk.record.is_some();
    loop {
        tokio::select! {
            messages = messages(&read, &mut partial), if sent < confirmed + UNDER_WAY => {
                let Ok(messages) = messages else { return };
                let (mut ops, mut effects) = (Vec::new(), Vec::new());
                for message in messages {
                    sent += 1;
                    if keeps {
                        ops.push(Op::Out { session, number: sent, body: Some(message.clone()), at: unix_millis() });
                    }
                    let payload = Payload::Event(message);
                    effects.push(Effect::Command(ConnectorCommand::Send { channel, number: sent, payload }));
                }
                desk.submit(ops, effects).await;
            }
            told = inbox.take() => {
                let (mut out, mut handled, mut is_over) = (BytesMut::new(), None, false);
                for told in told {
                    match told {
                        Told::Said(number, bytes) => {
                            out.extend_from_slice(&bytes);
                            handled = Some(number);
                        }
                        Told::Confirmed(number) => confirmed = number,
                        Told::Ended(number) => (handled, is_over) = (Some(number), true),
                    }
                }
                if write.write_all(&out).await.is_err() {
                    return;
                }
                if let Some(number) = handled.filter(|_| !keeps || is_over) {
                    desk.commands.send(Asked::Command(ConnectorCommand::Handled { channel, number, sm_in: 0 })).unwrap();
                }
                if is_over {
                    return;
                }
            }
        }
    }
}

fn begun(id: SessionId, open: Open) -> SessionRecord {
    let OpenKind::New { open_id, .. } = open.kind else { panic!("a session came back") };
    SessionRecord {
        id,
        open_id,
        secret: SecretDigest([0; 32]),
        domain: open.admission.domain,
        queue: open.admission.queue,
        code: "bench".to_owned(),
        customer: "guest".to_owned(),
        reason: String::new(),
        link_issuer: String::new(),
        link_kid: String::new(),
        link_use: None,
        client_addr: open.client_addr.to_string(),
        resumable: open.resumable,
        software: open.software,
        opened_at: unix_millis(),
    }
}

/// Each line on stdin asks for the number of events sent again.
fn answer_questions(commands: mpsc::UnboundedSender<Asked>) {
    std::thread::spawn(move || {
        for _line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if commands.send(Asked::Stats).is_err() {
                return;
            }
        }
    });
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn unix_millis() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
