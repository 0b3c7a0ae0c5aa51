//! A connector that accepts every session, records what it hears and echoes every message.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use outgate::im::{ImEvent, Message};
use outgate::net::carrier::{CarrierHandle, CarrierInput, Transport, Writable};
use outgate::proto::tunnel::{
    CarrierId, ChannelId, ConnectorCommand, ConnectorEnd, ConnectorEvent, Identity, Lane, Payload, RefusalCode, Settings, event, frame,
};
use outgate::session::CloseReason;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CARRIER: CarrierId = CarrierId(1);

/// What the connector heard.
#[derive(Debug)]
pub(super) enum Said {
    Body(String),
    End(CloseReason),
}

/// The connector's side, its carrier in memory.
pub(crate) struct Connector {
    identity: Identity,
    inputs: mpsc::Sender<CarrierInput>,
    writable: Writable,
    heard: mpsc::Receiver<Said>,
    heard_in: mpsc::Sender<Said>,
    verdict: watch::Sender<Result<(), (RefusalCode, String)>>,
    tasks: JoinSet<()>,
}

impl Connector {
    pub(super) fn new(identity: Identity) -> (Self, mpsc::Receiver<CarrierInput>, Writable) {
        let (inputs, carriers) = mpsc::channel(256);
        let (heard_in, heard) = mpsc::channel(1024);
        let (verdict, _) = watch::channel(Ok(()));
        let writable = Writable::default();
        let connector = Self { identity, inputs, writable: writable.clone(), heard, heard_in, verdict, tasks: JoinSet::new() };
        (connector, carriers, writable)
    }

    /// Brings a carrier up.
    pub(super) async fn attach(&mut self) {
        let (control_in, control) = mpsc::channel(2);
        let (data_in, data) = mpsc::channel(2);
        let (read_data, _) = watch::channel(false);
        let handle = CarrierHandle { control: control_in, data: data_in, read_data };
        self.inputs
            .send(CarrierInput::Opened { carrier: CARRIER, identity: self.identity.clone(), transport: Transport::Quic, handle })
            .await
            .unwrap();
        let life = Life {
            end: ConnectorEnd::new(Settings::default(), [9; 16]),
            inputs: self.inputs.clone(),
            writable: self.writable.clone(),
            heard: self.heard_in.clone(),
            verdict: self.verdict.subscribe(),
            next_out: std::collections::HashMap::new(),
        };
        self.tasks.spawn(life.run(control, data));
    }

    pub(super) fn refuse_checks(&self, code: RefusalCode, text: &str) {
        drop(self.verdict.send_replace(Err((code, text.to_owned()))));
    }

    pub(crate) async fn next_body(&mut self) -> String {
        loop {
            if let Said::Body(body) = self.next().await {
                return body;
            }
        }
    }

    pub(crate) async fn next_end(&mut self) -> CloseReason {
        loop {
            if let Said::End(reason) = self.next().await {
                return reason;
            }
        }
    }

    async fn next(&mut self) -> Said {
        tokio::time::timeout(Duration::from_secs(10), self.heard.recv()).await.unwrap().unwrap()
    }
}

struct Life {
    end: ConnectorEnd,
    inputs: mpsc::Sender<CarrierInput>,
    writable: Writable,
    heard: mpsc::Sender<Said>,
    verdict: watch::Receiver<Result<(), (RefusalCode, String)>>,
    next_out: std::collections::HashMap<ChannelId, u64>,
}

impl Life {
    async fn run(mut self, mut control: mpsc::Receiver<Bytes>, mut data: mpsc::Receiver<Bytes>) {
        self.end.carrier_opened(CARRIER, now());
        loop {
            while let Some(event) = self.end.poll_event() {
                self.handle(event).await;
            }
            if !self.transmit(Lane::Control).await || !self.transmit(Lane::Data).await {
                return;
            }
            let deadline = self.end.poll_timeout().map_or_else(|| Instant::now() + Duration::from_secs(60), Instant::from_std);
            let may_read = self.end.may_read(CARRIER, Lane::Data);
            tokio::select! {
                bytes = control.recv() => match bytes {
                    Some(bytes) => self.take(&bytes),
                    None => return,
                },
                bytes = data.recv(), if may_read => match bytes {
                    Some(bytes) => self.take(&bytes),
                    None => return,
                },
                () = tokio::time::sleep_until(deadline) => self.end.handle_timeout(now()),
            }
            self.writable.notify_one();
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for frame in frames(bytes) {
            self.end.handle_frame(CARRIER, frame, now());
        }
    }

    async fn transmit(&mut self, lane: Lane) -> bool {
        let mut out = BytesMut::new();
        while self.end.poll_transmit(CARRIER, lane, 16 * 1024, &mut out, now()) {
            let frames = frames(&out);
            if self.inputs.send(CarrierInput::Frames { carrier: CARRIER, lane, frames }).await.is_err() {
                return false;
            }
            out.clear();
        }
        true
    }

    async fn handle(&mut self, event: ConnectorEvent) {
        match event {
            ConnectorEvent::Open { channel, .. } => {
                self.next_out.insert(channel, 1);
                self.command(ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() });
            }
            ConnectorEvent::Data { channel, number, sm_in, payload } => {
                self.command(ConnectorCommand::Handled { channel, number, sm_in });
                if let Payload::Event(bytes) = payload
                    && let ImEvent::Message(message) = event::decode(&bytes).unwrap()
                {
                    self.echo(channel, &message.body);
                    self.heard.send(Said::Body(message.body)).await.unwrap();
                }
            }
            ConnectorEvent::Fin { channel, number, fin } => {
                self.command(ConnectorCommand::Handled { channel, number, sm_in: 0 });
                self.heard.send(Said::End(fin.reason)).await.unwrap();
            }
            ConnectorEvent::Check { check, .. } => {
                let verdict = self.verdict.borrow().clone();
                self.command(ConnectorCommand::Verdict { check, verdict });
            }
            ConnectorEvent::Own { channel, after, count } => {
                self.command(ConnectorCommand::OwnHandled { channel, after, count });
            }
            ConnectorEvent::Attached { .. }
            | ConnectorEvent::Detached
            | ConnectorEvent::Refused { .. }
            | ConnectorEvent::Counted { .. }
            | ConnectorEvent::OutHandled { .. }
            | ConnectorEvent::Reset { .. }
            | ConnectorEvent::GoAway { .. }
            | ConnectorEvent::CandidateReady { .. }
            | ConnectorEvent::CloseCarrier { .. } => {}
        }
    }

    fn echo(&mut self, channel: ChannelId, body: &str) {
        let number = self.next_out.get_mut(&channel).unwrap();
        let event = ImEvent::Message(Message { body: format!("echo: {body}"), ..Message::default() });
        let command = ConnectorCommand::Send { channel, number: *number, payload: Payload::Event(event::encode(&event)) };
        *number += 1;
        self.command(command);
    }

    fn command(&mut self, command: ConnectorCommand) {
        self.end.handle_command(command, now());
    }
}

fn frames(bytes: &[u8]) -> Vec<frame::Frame> {
    let mut buffer = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = frame::decode(&mut buffer).unwrap() {
        frames.push(frame);
    }
    assert!(buffer.is_empty(), "whole frames only");
    frames
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
