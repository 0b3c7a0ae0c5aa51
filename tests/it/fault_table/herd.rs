//! A relay dies with thousands of sessions, and all come back through its successor at once.
//!
//! The connector is a real one with its store, the carrier is TLS; the relay is a tunnel's end without clients, so that one process has
//! room for the herd.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use outgate::connector::Connector;
use outgate::connector::desk::OpenRate;
use outgate::fingerprint::ClientSoftware;
use outgate::im::{ImEvent, Message};
use outgate::net::carrier::{CarrierInput, Carriers, Lanes, Writable};
use outgate::net::certificates::{Live, load, load_authorities};
use outgate::net::listener::Listener;
use outgate::net::quic::Credentials;
use outgate::proto::tunnel::{
    Admission, Assertion, Identity, Open, OpenKind, Payload, RelayCommand, RelayEnd, RelayEvent, SessionKey, Settings, event,
};
use outgate::session::{OpenId, SessionSecret};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Tally, Trial, alone, asked};
use crate::faults::site::{self, Plan};

/// Sessions in the suite; `OUTGATE_HERD` asks for others.
const SESSIONS: u64 = 10_000;

/// Within which a herd of ten thousand is back.
const BACK: Duration = Duration::from_secs(30);

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// OPENs under way at one time: below what a connector takes of public ones.
const WINDOW: usize = 200;

const IDENTITY: &str = "outgate://example/connector/lan1";

#[test]
fn fault_31_a_herd_is_back_after_the_relays_restart() {
    alone(async || {
        let count = asked("OUTGATE_HERD", SESSIONS);
        let home = tempfile::Builder::new().prefix("herd").tempdir().unwrap();
        drop(site::certificates(home.path()));
        std::fs::write(home.path().join("agents.toml"), site::accounts()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut front = Front::on(listener.try_clone().unwrap(), home.path());
        let mut settings = site::connector_settings(home.path(), &Plan::with("transport = \"tls\""), address, "127.0.0.1:0");
        // They first come as fast as they will come back.
        settings.desk.door.opens = OpenRate { per_second: 100_000, burst: 100_000 };
        let connector = Connector::start(settings).await.unwrap();
        front.bring(count, |key| OpenKind::New { open_id: OpenId(bytes(key, 1)), secret: SessionSecret(bytes(key, 2)) }).await;
        front.handled(count, 1).await;

        drop(front);
        let trial = Trial::begin(31);
        let mut front = Front::on(listener.try_clone().unwrap(), home.path());
        front
            .bring(count, |key| OpenKind::Attach {
                secret: SessionSecret(bytes(key, 2)),
                in_next: 0,
                out_next: 0,
                client_h: None,
                attachment: 0,
            })
            .await;
        let took = trial.elapsed();
        front.handled(count, 2).await;
        drop(front);
        let record = rusqlite::Connection::open(home.path().join("store.sqlite")).unwrap();
        let query = "SELECT count(*), count(DISTINCT session || '/' || number) FROM event WHERE outward = 0";
        let (rows, distinct): (u32, u32) = record.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let (rows, distinct) = (rows as usize, distinct as usize);
        let said = usize::try_from(count).unwrap() * 2;
        let tally = Tally { said, lost: said.saturating_sub(distinct), doubled: rows - distinct, disordered: 0 };
        drop(record);
        assert!(took < BACK, "{count} sessions took {took:?}");
        trial.end(tally, took, &format!("tls, {count} sessions and a real store")).await;
        connector.shutdown().await;
    });
}

/// A relay without clients.
struct Front {
    end: RelayEnd,
    lanes: Lanes,
    inputs: mpsc::Receiver<CarrierInput>,
    writable: Writable,
    _carriers: Carriers,
    opened: usize,
    handled: HashMap<SessionKey, u64>,
}

impl Front {
    fn on(listener: std::net::TcpListener, home: &std::path::Path) -> Self {
        listener.set_nonblocking(true).unwrap();
        let own = load(&home.join("tunnel-relay.pem"), &home.join("tunnel-relay-key.pem")).unwrap();
        let authorities = load_authorities(&home.join("tunnel-ca.pem")).unwrap();
        let (mut carriers, inputs) = Carriers::new();
        let credentials = Live::new(&Credentials { chain: own.chain, key: own.key, authorities }).unwrap();
        carriers.accept_tls(Listener::from_std(listener).unwrap(), &credentials).unwrap();
        let end = RelayEnd::new(Settings::default(), Box::new(outgate::net::entropy::sixteen));
        let writable = carriers.writable();
        Self { end, lanes: Lanes::default(), inputs, writable, _carriers: carriers, opened: 0, handled: HashMap::new() }
    }

    /// Opens or attaches all, and has each say a word.
    async fn bring(&mut self, count: u64, kind: impl Fn(u64) -> OpenKind) {
        let mut waiting: VecDeque<u64> = (1..=count).collect();
        let all = usize::try_from(count).unwrap();
        self.until("all sessions", |front| {
            while front.end.is_attached(&Identity(IDENTITY.to_owned())) && all - waiting.len() < front.opened + WINDOW {
                let Some(key) = waiting.pop_front() else { break };
                let (session, open) = (SessionKey(key), Box::new(open(kind(key))));
                front.end.handle_command(RelayCommand::Open { session, identity: Identity(IDENTITY.to_owned()), open }, now());
                let message = said(key);
                let payload = Payload::Event(event::encode(&ImEvent::Message(message)));
                front.end.handle_command(RelayCommand::Send { session, payload, sm_in: 1 }, now());
            }
            front.opened == all
        })
        .await;
    }

    /// Waits until each session's event `number` is handled.
    async fn handled(&mut self, count: u64, number: u64) {
        let all = usize::try_from(count).unwrap();
        self.until("all events", |front| front.handled.values().filter(|handled| **handled >= number).count() == all).await;
    }

    async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.end.poll_event() {
                self.hear(event);
            }
            if done(self) {
                return;
            }
            self.lanes.fill(&mut self.end, now());
            assert!(Instant::now() < deadline, "waited in vain for {what}: {} opened, {} handled", self.opened, self.handled.len());
            let due = [self.end.poll_timeout(), self.lanes.poll_timeout()].into_iter().flatten().min();
            let due = due.map_or(deadline, Instant::from_std).min(deadline);
            tokio::select! {
                Some(input) = self.inputs.recv() => self.take(input),
                () = self.writable.notified() => {}
                () = tokio::time::sleep_until(due) => self.end.handle_timeout(now()),
            }
        }
    }

    fn take(&mut self, input: CarrierInput) {
        match input {
            CarrierInput::Opened { carrier, identity, handle, .. } => {
                self.lanes.insert(carrier, handle);
                self.end.carrier_opened(carrier, identity, now());
            }
            CarrierInput::Frames { carrier, frames, .. } => {
                for frame in frames {
                    self.end.handle_frame(carrier, frame, now());
                }
            }
            CarrierInput::Lost { carrier, .. } => {
                self.lanes.remove(carrier);
                self.end.carrier_lost(carrier, now());
            }
            CarrierInput::Refused { .. } => {}
        }
    }

    fn hear(&mut self, event: RelayEvent) {
        match event {
            RelayEvent::OpenOk { .. } => self.opened += 1,
            RelayEvent::Handled { session, number, .. } => {
                let handled = self.handled.entry(session).or_default();
                *handled = number.max(*handled);
            }
            RelayEvent::Data { session, number, .. } => {
                let proof = outgate::proto::tunnel::Proof::Confirmed;
                self.end.handle_command(RelayCommand::Handled { session, number, proof }, now());
            }
            RelayEvent::CloseCarrier { carrier, .. } => {
                self.lanes.close(carrier, now());
                self.end.carrier_lost(carrier, now());
            }
            RelayEvent::OpenRefused { .. } | RelayEvent::Gone { .. } | RelayEvent::Fin { .. } => panic!("{event:?}"),
            RelayEvent::TunnelUp { .. }
            | RelayEvent::TunnelDetached { .. }
            | RelayEvent::OwnHandled { .. }
            | RelayEvent::Verdict { .. }
            | RelayEvent::GoAway { .. } => {}
        }
    }
}

fn open(kind: OpenKind) -> Open {
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
    Open {
        kind,
        admission: Admission { domain: site::CUSTOMERS.to_owned(), queue: "hello".to_owned(), assertion: Assertion::Anonymous },
        client_addr: address,
        local_addr: address,
        protocol: "xmpp".to_owned(),
        sni: None,
        software: ClientSoftware::unknown(),
        resumable: false,
        waited: Duration::ZERO,
    }
}

fn said(key: u64) -> Message {
    Message { body: format!("word of {key}"), ..Message::default() }
}

fn bytes(key: u64, salt: u8) -> [u8; 16] {
    let mut bytes = [salt; 16];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    bytes
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
