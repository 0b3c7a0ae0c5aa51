//! The two captured sides: tunnel ends that a test drives by hand over real QUIC carriers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use outgate::config::Role;
use outgate::fingerprint::ClientSoftware;
use outgate::net::carrier::{CarrierHandle, CarrierInput, Carriers, Writable};
use outgate::net::certificates::Live;
use outgate::net::inherited::Origin;
use outgate::net::quic;
use outgate::proto::tunnel::frame::Frame;
use outgate::proto::tunnel::policy::{EncodedPolicy, Policy, PolicyAnswer};
use outgate::proto::tunnel::{
    Admission, Assertion, CarrierId, ConnectorCommand, ConnectorEnd, ConnectorEvent, Identity, Lane, Open, OpenKind, Payload, RefusalCode,
    RelayCommand, RelayEnd, RelayEvent, SessionKey, Settings,
};
use outgate::session::{CloseReason, OpenId, SessionSecret};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::PATIENCE;
use super::company::{Company, DOMAIN};

/// Silence after which nothing more comes. A busy machine takes a few hundred milliseconds for a commit.
const QUIET: Duration = Duration::from_secs(2);

/// A carrier and its lanes.
struct Wire {
    _carriers: Carriers,
    inputs: mpsc::Receiver<CarrierInput>,
    writable: Writable,
    live: Option<(CarrierId, CarrierHandle)>,
}

impl Wire {
    fn new(carriers: Carriers, inputs: mpsc::Receiver<CarrierInput>) -> Self {
        let writable = carriers.writable();
        Self { _carriers: carriers, inputs, writable, live: None }
    }

    fn fill(&self, mut transmit: impl FnMut(CarrierId, Lane, &mut BytesMut) -> bool) {
        let Some((carrier, handle)) = &self.live else { return };
        for (lane, sender) in [(Lane::Control, &handle.control), (Lane::Data, &handle.data)] {
            while let Ok(permit) = sender.try_reserve() {
                let mut out = BytesMut::new();
                if !transmit(*carrier, lane, &mut out) {
                    break;
                }
                permit.send(out.freeze());
            }
        }
        handle.read_data.send_replace(true);
    }

    /// What comes next, or nothing for a moment.
    async fn input(&mut self) -> Option<CarrierInput> {
        tokio::select! {
            input = self.inputs.recv() => input,
            () = self.writable.notified() => None,
            () = tokio::time::sleep(Duration::from_millis(5)) => None,
        }
    }

    /// Sends frames that no end would send.
    async fn forge(&self, lane: Lane, frames: &[Frame]) {
        let (_, handle) = self.live.as_ref().unwrap();
        for frame in frames {
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            let lane = if lane == Lane::Control { &handle.control } else { &handle.data };
            // The other side may have hung up: that is for the test to see.
            let _closed = lane.send(bytes.freeze()).await;
        }
    }
}

/// A captured relay.
pub(super) struct FakeRelay {
    end: RelayEnd,
    wire: Wire,
    pub(super) address: SocketAddr,
    identity: Identity,
    events: VecDeque<RelayEvent>,
    sessions: u64,
}

impl FakeRelay {
    pub(super) fn start(company: &Company) -> Self {
        let credentials = Live::new(&company.credentials(Role::Relay, "captured")).unwrap();
        let endpoint = quic::server(quic::bind("127.0.0.1:0".parse().unwrap()).unwrap(), Origin::Bound, &credentials).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (mut carriers, inputs) = Carriers::new();
        carriers.accept(endpoint);
        let end = RelayEnd::new(Settings::default(), Box::new(outgate::net::entropy::sixteen));
        let identity = Identity("outgate://example/connector/lan1".to_owned());
        Self { end, wire: Wire::new(carriers, inputs), address, identity, events: VecDeque::new(), sessions: 0 }
    }

    pub(super) async fn step(&mut self) {
        let Self { end, wire, .. } = self;
        wire.fill(|carrier, lane, out| end.poll_transmit(carrier, lane, 16 * 1024, out, now()));
        match self.wire.input().await {
            Some(CarrierInput::Opened { carrier, identity, handle, .. }) => {
                self.wire.live = Some((carrier, handle));
                self.end.carrier_opened(carrier, identity, now());
            }
            Some(CarrierInput::Frames { carrier, frames, .. }) => frames.into_iter().for_each(|f| self.end.handle_frame(carrier, f, now())),
            Some(CarrierInput::Lost { carrier, .. }) => {
                self.wire.live.take_if(|(live, _)| *live == carrier);
                self.end.carrier_lost(carrier, now());
            }
            Some(CarrierInput::Refused { .. }) | None => {}
        }
        self.end.handle_timeout(now());
        while let Some(event) = self.end.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Waits for an event that `wanted` likes; those before it are passed over.
    pub(super) async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&RelayEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "waited for {what} in vain");
            self.step().await;
        }
    }

    /// All that comes until nothing has come for a while.
    pub(super) async fn until_quiet(&mut self) -> Vec<RelayEvent> {
        let mut all = Vec::new();
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            self.step().await;
            if !self.events.is_empty() {
                last = Instant::now();
                all.extend(self.events.drain(..));
            }
        }
        all
    }

    pub(super) async fn attached(&mut self) -> bool {
        self.until("a tunnel", |event| if let RelayEvent::TunnelUp { resumed, .. } = event { Some(*resumed) } else { None }).await
    }

    pub(super) fn cut(&mut self) {
        if let Some((carrier, _handle)) = self.wire.live.take() {
            self.end.carrier_lost(carrier, now());
        }
    }

    pub(super) fn open(&mut self, queue: &str, assertion: Assertion) -> SessionKey {
        let n = self.sessions + 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        self.open_as(OpenKind::New { open_id: OpenId(id), secret: SessionSecret(id) }, queue, assertion)
    }

    pub(super) fn open_as(&mut self, kind: OpenKind, queue: &str, assertion: Assertion) -> SessionKey {
        self.sessions += 1;
        let open = Open {
            kind,
            admission: Admission { domain: DOMAIN.to_owned(), queue: queue.to_owned(), assertion },
            client_addr: "192.0.2.1:4000".parse().unwrap(),
            local_addr: "192.0.2.2:5222".parse().unwrap(),
            protocol: "xmpp".to_owned(),
            sni: None,
            software: ClientSoftware::unknown(),
            resumable: false,
            waited: Duration::ZERO,
        };
        let session = SessionKey(self.sessions);
        self.end.handle_command(RelayCommand::Open { session, identity: self.identity.clone(), open: Box::new(open) }, now());
        session
    }

    pub(super) fn send(&mut self, session: SessionKey, event: Bytes) {
        self.end.handle_command(RelayCommand::Send { session, payload: Payload::Event(event), sm_in: 0 }, now());
    }

    /// What became of an OPEN.
    pub(super) async fn answer(&mut self, asked: SessionKey) -> Result<(), RefusalCode> {
        self.until("an answer", |event| match event {
            RelayEvent::OpenOk { session } if *session == asked => Some(Ok(())),
            RelayEvent::OpenRefused { session, code, .. } if *session == asked => Some(Err(*code)),
            _ => None,
        })
        .await
    }

    pub(super) async fn gone(&mut self, which: SessionKey) -> CloseReason {
        self.until("the end of a session", |event| match event {
            RelayEvent::Gone { session, reason } if *session == which => Some(*reason),
            RelayEvent::Fin { session, fin } if *session == which => Some(fin.reason),
            _ => None,
        })
        .await
    }

    pub(super) async fn handled(&mut self, which: SessionKey, up_to: u64) {
        self.until("an event to be handled", |event| match event {
            RelayEvent::Handled { session, number, .. } if *session == which && *number >= up_to => Some(()),
            _ => None,
        })
        .await;
    }

    pub(super) async fn forge(&self, frames: &[Frame]) {
        self.wire.forge(Lane::Data, frames).await;
    }
}

/// A captured connector.
pub(super) struct FakeConnector {
    end: ConnectorEnd,
    wire: Wire,
    /// Whether the carrier is gone.
    pub(super) lost: bool,
    answers: VecDeque<PolicyAnswer>,
    /// Queues of the CHECKs that came, all of which are answered with yes.
    pub(super) asked: Vec<String>,
}

impl FakeConnector {
    /// Dials the relay and attaches.
    pub(super) async fn attach(company: &Company, name: &str, relay: SocketAddr) -> Self {
        let credentials = Live::new(&company.credentials(Role::Connector, name)).unwrap();
        let endpoint = quic::client(quic::bind("127.0.0.1:0".parse().unwrap()).unwrap(), Origin::Bound, &credentials).unwrap();
        let (mut carriers, inputs) = Carriers::new();
        let _dial = carriers.dial(&endpoint, relay, DOMAIN);
        let end = ConnectorEnd::new(Settings::default(), [3; 16]);
        let mut connector = Self { end, wire: Wire::new(carriers, inputs), lost: false, answers: VecDeque::new(), asked: Vec::new() };
        connector.answer().await;
        connector
    }

    pub(super) async fn step(&mut self) {
        let Self { end, wire, .. } = self;
        wire.fill(|carrier, lane, out| end.poll_transmit(carrier, lane, 16 * 1024, out, now()));
        match self.wire.input().await {
            Some(CarrierInput::Opened { carrier, handle, .. }) => {
                self.wire.live = Some((carrier, handle));
                self.end.carrier_opened(carrier, now());
            }
            Some(CarrierInput::Frames { carrier, frames, .. }) => frames.into_iter().for_each(|f| self.end.handle_frame(carrier, f, now())),
            Some(CarrierInput::Lost { .. }) => self.lost = true,
            Some(CarrierInput::Refused { .. }) | None => {}
        }
        self.end.handle_timeout(now());
        while let Some(event) = self.end.poll_event() {
            match event {
                ConnectorEvent::Check { check, admission } => {
                    self.asked.push(admission.queue);
                    self.end.handle_command(ConnectorCommand::Verdict { check, verdict: Ok(()) }, now());
                }
                ConnectorEvent::Open { channel, .. } => {
                    self.end.handle_command(
                        ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() },
                        now(),
                    );
                }
                ConnectorEvent::CloseCarrier { .. } => self.lost = true,
                _ => {}
            }
        }
        while let Some(answer) = self.end.poll_policy_answer() {
            self.answers.push_back(answer);
        }
    }

    /// The next word of the relay about the policy.
    pub(super) async fn answer(&mut self) -> PolicyAnswer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            assert!(!self.lost, "the carrier is gone");
            assert!(Instant::now() < deadline, "no word of the policy");
            self.step().await;
        }
    }

    pub(super) async fn push(&mut self, policy: &Policy) -> PolicyAnswer {
        self.end.push_policy(Arc::new(EncodedPolicy::new(policy).unwrap()));
        self.answer().await
    }

    pub(super) async fn until_lost(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.lost {
            assert!(Instant::now() < deadline, "the carrier lives");
            self.step().await;
        }
    }

    /// Steps while `other` goes on; its outcome.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                () = self.step() => {}
            }
        }
    }

    pub(super) async fn forge(&self, frames: &[Frame]) {
        self.wire.forge(Lane::Control, frames).await;
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
