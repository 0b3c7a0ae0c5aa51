//! The tunnel's pure core: one event's encoding, its frame, and its way from one end to the other and back as an acknowledgement.
//!
//! `cargo bench --bench tunnel`

#![expect(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm, reason = "a measuring program")]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use divan::{Bencher, black_box};
use outgate::fingerprint::ClientSoftware;
use outgate::im::{ImEvent, Message};
use outgate::proto::tunnel::{
    Admission, Assertion, CarrierId, ChannelId, ConnectorCommand, ConnectorEnd, ConnectorEvent, Identity, Lane, Open, OpenKind, Payload,
    RelayCommand, RelayEnd, SessionKey, Settings, event, frame,
};
use outgate::session::{OpenId, SessionSecret};

fn main() {
    divan::main();
}

fn said() -> ImEvent {
    ImEvent::Message(Message { id: Some("m1".to_owned()), body: "x".repeat(60), ..Message::default() })
}

#[divan::bench]
fn event_encode(bencher: Bencher<'_, '_>) {
    let said = said();
    bencher.bench(|| event::encode(black_box(&said)));
}

#[divan::bench]
fn event_decode(bencher: Bencher<'_, '_>) {
    let bytes = event::encode(&said());
    bencher.bench(|| event::decode(black_box(&bytes)).unwrap());
}

/// Both ends of a tunnel in one place, with as many sessions as asked for.
struct Pair {
    relay: RelayEnd,
    connector: ConnectorEnd,
    channels: Vec<ChannelId>,
    sent: Vec<u64>,
    now: Instant,
}

const CARRIER: CarrierId = CarrierId(1);

impl Pair {
    fn with_sessions(count: usize) -> Self {
        let now = Instant::now();
        let mut next = 0u128;
        let entropy = move || {
            next += 1;
            next.to_be_bytes()
        };
        let mut pair = Self {
            relay: RelayEnd::new(Settings::default(), Box::new(entropy)),
            connector: ConnectorEnd::new(Settings::default(), [1; 16]),
            channels: Vec::new(),
            sent: vec![0; count],
            now,
        };
        let identity = Identity("outgate://bench/connector/lan1".to_owned());
        pair.relay.carrier_opened(CARRIER, identity.clone(), now);
        pair.connector.carrier_opened(CARRIER, now);
        pair.exchange();
        for session in 0..count {
            let open = Open {
                kind: OpenKind::New {
                    open_id: OpenId((session as u128).to_be_bytes()),
                    secret: SessionSecret((session as u128 + 1).to_be_bytes()),
                },
                admission: Admission { domain: "localhost".to_owned(), queue: "hello".to_owned(), assertion: Assertion::Anonymous },
                client_addr: "192.0.2.1:1".parse().unwrap(),
                local_addr: "192.0.2.2:5222".parse().unwrap(),
                protocol: "xmpp".to_owned(),
                sni: None,
                software: ClientSoftware::unknown(),
                resumable: false,
                waited: Duration::ZERO,
            };
            let session = SessionKey(session as u64);
            pair.relay.handle_command(RelayCommand::Open { session, identity: identity.clone(), open: Box::new(open) }, now);
            if session.0.is_multiple_of(512) {
                pair.exchange();
            }
        }
        pair.exchange();
        assert_eq!(pair.channels.len(), count, "every session is open");
        pair
    }

    /// Moves frames both ways until both ends are silent; the connector accepts every OPEN and handles every event.
    fn exchange(&mut self) {
        loop {
            let mut moved = false;
            for lane in [Lane::Control, Lane::Data] {
                let mut bytes = BytesMut::new();
                moved |= self.relay.poll_transmit(CARRIER, lane, 1 << 20, &mut bytes, self.now);
                while let Some(frame) = frame::decode(&mut bytes).unwrap() {
                    self.connector.handle_frame(CARRIER, frame, self.now);
                }
                moved |= self.connector.poll_transmit(CARRIER, lane, 1 << 20, &mut bytes, self.now);
                while let Some(frame) = frame::decode(&mut bytes).unwrap() {
                    self.relay.handle_frame(CARRIER, frame, self.now);
                }
            }
            while let Some(event) = self.connector.poll_event() {
                moved = true;
                match event {
                    ConnectorEvent::Open { channel, .. } => {
                        self.channels.push(channel);
                        let accept = ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() };
                        self.connector.handle_command(accept, self.now);
                    }
                    ConnectorEvent::Data { channel, number, sm_in, .. } => {
                        self.connector.handle_command(ConnectorCommand::Handled { channel, number, sm_in }, self.now);
                    }
                    _ => {}
                }
            }
            while self.relay.poll_event().is_some() {
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn send(&mut self, session: usize, payload: Bytes) {
        self.sent[session] += 1;
        let command =
            RelayCommand::Send { session: SessionKey(session as u64), payload: Payload::Event(payload), sm_in: self.sent[session] as u32 };
        self.relay.handle_command(command, self.now);
    }
}

/// One event from relay to connector, handled there, among idle sessions: the cost must not depend on their number.
#[divan::bench(args = [1, 100, 1000, 15_000])]
fn event_through_the_tunnel(bencher: Bencher<'_, '_>, sessions: usize) {
    let mut pair = Pair::with_sessions(sessions);
    let bytes = event::encode(&said());
    let mut next = 0;
    bencher.bench_local(|| {
        pair.send(next, bytes.clone());
        pair.exchange();
        next = (next + 1) % sessions;
    });
}

/// 64 events of 64 sessions at once: what a busy carrier does.
#[divan::bench]
fn burst_of_64_sessions(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::with_sessions(64);
    let bytes = event::encode(&said());
    bencher.bench_local(|| {
        for session in 0..64 {
            pair.send(session, bytes.clone());
        }
        pair.exchange();
    });
}
