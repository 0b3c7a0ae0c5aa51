//! Two ends in one place, over carriers that lose nothing by themselves.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use outgate::fingerprint::ClientSoftware;
use outgate::proto::tunnel::frame::{self, Frame};
use outgate::proto::tunnel::{
    Admission, Assertion, CarrierId, ChannelId, ConnectorCommand, ConnectorEnd, ConnectorEvent, Fin, Identity, Lane, Open, OpenKind,
    Payload, RelayCommand, RelayEnd, RelayEvent, SessionKey, Settings,
};
use outgate::session::{CloseReason, OpenId, SessionSecret};

pub(super) const KEY: SessionKey = SessionKey(1);

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) relay: RelayEnd,
    pub(super) connector: ConnectorEnd,
    /// The carrier that was dialled last.
    pub(super) carrier: CarrierId,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Settings::default(), Settings::default())
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time counts from some instant")]
    pub(super) fn with(relay: Settings, connector: Settings) -> Self {
        let mut last = 0u8;
        let entropy = move || {
            last += 1;
            [last; 16]
        };
        Self {
            now: Instant::now(),
            relay: RelayEnd::new(relay, Box::new(entropy)),
            connector: ConnectorEnd::new(connector, [7; 16]),
            carrier: CarrierId(0),
        }
    }

    pub(super) fn attached() -> Self {
        let mut pair = Self::new();
        pair.dial();
        pair.exchange();
        pair
    }

    pub(super) fn dial(&mut self) {
        self.carrier = CarrierId(self.carrier.0 + 1);
        self.relay.carrier_opened(self.carrier, identity(), self.now);
        self.connector.carrier_opened(self.carrier, self.now);
    }

    pub(super) fn lose(&mut self) {
        self.relay.carrier_lost(self.carrier, self.now);
        self.connector.carrier_lost(self.carrier, self.now);
    }

    pub(super) fn carry_to_connector(&mut self) -> bool {
        self.carry_to_connector_on(self.carrier)
    }

    pub(super) fn carry_to_connector_on(&mut self, carrier: CarrierId) -> bool {
        let mut any = false;
        for lane in [Lane::Control, Lane::Data] {
            let mut bytes = BytesMut::new();
            self.relay.poll_transmit(carrier, lane, 1 << 20, &mut bytes, self.now);
            while let Some(frame) = frame::decode(&mut bytes).unwrap() {
                any = true;
                self.connector.handle_frame(carrier, frame, self.now);
            }
        }
        any
    }

    pub(super) fn carry_to_relay(&mut self) -> bool {
        self.carry_to_relay_on(self.carrier)
    }

    pub(super) fn carry_to_relay_on(&mut self, carrier: CarrierId) -> bool {
        let mut any = false;
        for lane in [Lane::Control, Lane::Data] {
            let mut bytes = BytesMut::new();
            self.connector.poll_transmit(carrier, lane, 1 << 20, &mut bytes, self.now);
            while let Some(frame) = frame::decode(&mut bytes).unwrap() {
                any = true;
                self.relay.handle_frame(carrier, frame, self.now);
            }
        }
        any
    }

    pub(super) fn exchange(&mut self) {
        self.exchange_on(self.carrier);
    }

    pub(super) fn exchange_on(&mut self, carrier: CarrierId) {
        while self.carry_to_connector_on(carrier) | self.carry_to_relay_on(carrier) {}
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.relay.handle_timeout(self.now);
        self.connector.handle_timeout(self.now);
    }

    pub(super) fn relay_events(&mut self) -> Vec<RelayEvent> {
        std::iter::from_fn(|| self.relay.poll_event()).collect()
    }

    pub(super) fn connector_events(&mut self) -> Vec<ConnectorEvent> {
        std::iter::from_fn(|| self.connector.poll_event()).collect()
    }

    pub(super) fn open(&mut self) {
        self.open_as(1);
    }

    pub(super) fn open_as(&mut self, name: u8) {
        let kind = OpenKind::New { open_id: OpenId([name; 16]), secret: SessionSecret([name + 1; 16]) };
        let (session, open) = (SessionKey(name.into()), Box::new(open(kind)));
        self.relay.handle_command(RelayCommand::Open { session, identity: identity(), open }, self.now);
    }

    pub(super) fn opened_channel(&mut self) -> ChannelId {
        let mut events = self.connector_events().into_iter();
        events.find_map(|event| if let ConnectorEvent::Open { channel, .. } = event { Some(channel) } else { None }).unwrap()
    }

    /// Opens a session and has it accepted; gives its channel.
    pub(super) fn opened() -> (Self, ChannelId) {
        Self::new().into_opened()
    }

    pub(super) fn into_opened(self) -> (Self, ChannelId) {
        let mut pair = self;
        pair.dial();
        pair.exchange();
        pair.open();
        pair.exchange();
        let channel = pair.opened_channel();
        let accept = ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() };
        pair.connector.handle_command(accept, pair.now);
        pair.exchange();
        assert!(pair.relay_events().contains(&RelayEvent::OpenOk { session: KEY }));
        (pair, channel)
    }
}

pub(super) fn identity() -> Identity {
    Identity("outgate://lab/connector/lan1".to_owned())
}

pub(super) fn event(text: &'static str) -> Payload {
    Payload::Event(Bytes::from_static(text.as_bytes()))
}

pub(super) fn raw(kind: u8, flags: u8, channel: u32, body: &'static [u8]) -> Frame {
    Frame { kind, flags, channel, body: Bytes::from_static(body) }
}

pub(super) fn closes(events: &[RelayEvent]) -> bool {
    events.iter().any(|event| matches!(event, RelayEvent::CloseCarrier { .. }))
}

pub(super) fn fin() -> Fin {
    Fin { reason: CloseReason::CustomerLeft, text: String::new() }
}

/// An OPEN as any customer's.
pub(super) fn open(kind: OpenKind) -> Open {
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
    Open {
        kind,
        admission: Admission { domain: "im.example".to_owned(), queue: "sales".to_owned(), assertion: Assertion::Anonymous },
        client_addr: address,
        local_addr: address,
        protocol: "xmpp".to_owned(),
        sni: None,
        software: ClientSoftware::unknown(),
        resumable: true,
        waited: Duration::ZERO,
    }
}
