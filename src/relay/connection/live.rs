//! A session with its client's transport, or without one while its client is away.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admission::quota::{Allowance, Quota};
use crate::net::shutdown::Stop;
use crate::proto::tunnel::{Identity, Payload, RelayCommand, RelayEvent};
use crate::proto::xmpp::negotiation::stream_error;
use crate::proto::xmpp::reader::{ReadEvent, Reader};
use crate::relay::attach::{SessionEvents, Tunnels};
use crate::relay::client::Client;
use crate::relay::resumable::{Ask, Digest, Entry, Granted, NotGranted, Seat};
use crate::telemetry::HOP;

use super::{Shared, now};

/// Events taken before what they wrote leaves.
const BATCH: usize = 64;

/// How long a client that asks waits for the session that is here; then the connector is asked for it.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);

/// Stanzas of one customer after which it is somebody else's turn: whoever writes without a pause would otherwise keep the others
/// waiting for as long as the runtime lets one task go on.
const TURN: usize = 16;

/// How long a transport that was taken over may take to hear it.
const CONFLICT_WITHIN: Duration = Duration::from_millis(500);

/// A session.
pub(super) struct Live {
    /// Its client's transport.
    pub(super) seat: Option<Box<Seat>>,
    pub(super) client: Client,
    pub(super) tunnels: Tunnels,
    pub(super) events: SessionEvents,
    /// The connector that serves the queue.
    pub(super) identity: Identity,
    /// The queue's address.
    pub(super) queue: String,
    /// Where its client is, or was.
    pub(super) peer: SocketAddr,
    pub(super) allowed: Allowed,
    /// Events sent into the tunnel, which numbers them from 1.
    pub(super) sent: u64,
    /// When the stanza that is being read began.
    pub(super) began: Option<std::time::Instant>,
    /// What its client's next connection finds it by.
    pub(super) digest: Digest,
    pub(super) back: Back,
}

/// How its client may come back.
#[derive(Default)]
pub(super) struct Back {
    entry: Option<Entry>,
    /// Its client asks, and is answered once all is handled that it sent, or at this time.
    asking: Option<(Ask, Instant)>,
    /// Its client was told that it is back; here is its transport.
    coming: Option<oneshot::Receiver<Box<Seat>>>,
}

/// What a session's client may send.
pub(super) struct Allowed {
    quota: Quota,
    was_held: bool,
}

impl Allowed {
    pub(super) fn new(allowance: Allowance) -> Self {
        Self { quota: Quota::new(allowance), was_held: false }
    }
}

/// What a turn of the loop was about.
enum Turn {
    Read(std::io::Result<Option<()>>),
    Event(Option<RelayEvent>),
    Attachment,
    Denied,
    Timeout,
    Stop,
    Asked(Ask),
    Seated(Option<Box<Seat>>),
}

impl Live {
    /// Runs to the end of the session.
    pub(super) async fn run(&mut self, shared: &Shared, mut stop: Stop) -> &'static str {
        let mut access = shared.access.clone();
        self.client.handle_attachment(self.tunnels.attachment(&self.identity), now());
        if self.seat.is_none() {
            self.client.handle_lost(now());
        }
        loop {
            let peer = self.seat.as_ref().map(|seat| seat.peer.ip());
            let denied = async {
                match peer {
                    Some(peer) => access.denied(peer).await,
                    None => std::future::pending().await,
                }
            };
            if let Some(reason) = self.serve_transport(shared, &mut stop, denied).await {
                return reason;
            }
        }
    }

    /// Runs until another transport is there, or the session is over.
    async fn serve_transport(&mut self, shared: &Shared, stop: &mut Stop, denied: impl Future<Output = ()>) -> Option<&'static str> {
        let timer = tokio::time::sleep_until(Instant::now());
        tokio::pin!(timer, denied);
        // A channel that has ended is always ready: asked again, it would spin through the whole farewell.
        let mut is_cut_off = false;
        let mut is_denied = false;
        loop {
            let count = self.read_stanzas();
            let held = self.hold(shared);
            self.answer_asking();
            self.flush(shared).await;
            if count >= TURN {
                tokio::task::yield_now().await;
            }
            self.mind_transport(shared).await;
            if let Some(reason) = self.client.poll_over() {
                return Some(reason);
            }
            let wants_read = self.client.wants_read() && held.is_none();
            let slow_at = self.slow_at(wants_read, shared.limits.stanza_within);
            let due = [self.client.poll_timeout(), slow_at, held, self.back.asking.as_ref().map(|(_, until)| until.into_std())];
            arm(timer.as_mut(), due.into_iter().flatten().min());
            let Self { seat, events, tunnels, back, allowed, .. } = self;
            let turn = tokio::select! {
                read = read(seat, allowed), if wants_read && seat.is_some() => Turn::Read(read),
                event = events.recv(), if !is_cut_off => Turn::Event(event),
                () = tunnels.attachment_changed() => Turn::Attachment,
                () = &mut denied, if !is_denied => Turn::Denied,
                () = timer.as_mut() => Turn::Timeout,
                () = stop.requested() => Turn::Stop,
                ask = asked(back.entry.as_ref()), if back.entry.is_some() => Turn::Asked(ask),
                seat = coming(&mut back.coming), if back.coming.is_some() => Turn::Seated(seat),
            };
            is_cut_off |= matches!(turn, Turn::Event(None));
            is_denied |= matches!(turn, Turn::Denied);
            if slow_at.is_some_and(|at| at <= now()) && matches!(turn, Turn::Timeout) {
                self.client.handle_slow();
            }
            if self.take_turn(turn).await {
                return None;
            }
        }
    }

    /// True: there is another transport.
    async fn take_turn(&mut self, turn: Turn) -> bool {
        match turn {
            Turn::Read(Ok(Some(()))) => self.client.handle_heard(now()),
            Turn::Read(Ok(None) | Err(_)) => self.client.handle_lost(now()),
            Turn::Event(Some(event)) => self.handle_events(event),
            Turn::Event(None) => self.client.handle_cut_off(now()),
            Turn::Attachment => self.client.handle_attachment(self.tunnels.attachment(&self.identity), now()),
            Turn::Denied => self.client.handle_denied(),
            Turn::Timeout => self.client.handle_timeout(now()),
            Turn::Stop => self.client.handle_shutdown(),
            Turn::Asked(ask) => self.make_way(ask).await,
            Turn::Seated(Some(seat)) => {
                self.back.coming = None;
                (self.peer, self.began) = (seat.peer, None);
                self.seat = Some(seat);
                return true;
            }
            Turn::Seated(None) => {
                // Its new connection broke before it was told all.
                self.back.coming = None;
                self.client.handle_lost(now());
            }
        }
        false
    }

    /// Lets the client be found once it can resume, and lets go of a transport that it has lost.
    async fn mind_transport(&mut self, shared: &Shared) {
        if self.back.entry.is_none() && self.client.is_resumable() {
            self.back.entry = Some(shared.resumables.enter(self.digest));
        }
        if self.client.wants_hangup() {
            self.client.handle_lost(now());
        }
        if self.client.is_held()
            && let Some(seat) = self.seat.take()
        {
            shared.counters.count("held");
            Box::pin(seat.stream.close()).await;
        }
    }

    /// Its client asks on another connection: the one it had is over.
    async fn make_way(&mut self, ask: Ask) {
        if let Some(mut seat) = self.seat.take() {
            let conflict = stream_error("conflict", "You have come back on another connection.");
            let _gone = seat.stream.write(conflict.as_bytes(), CONFLICT_WITHIN).await;
            let _slow = tokio::time::timeout(CONFLICT_WITHIN, Box::pin(seat.stream.close())).await;
        }
        self.back.coming = None;
        self.client.handle_return(now());
        self.back.asking = Some((ask, Instant::now() + SETTLED_WITHIN));
    }

    /// Tells a client that asks how to go on, once it is certain what it has to send again.
    fn answer_asking(&mut self) {
        let Some((ask, until)) = self.back.asking.take() else { return };
        if self.client.may_resume() {
            let granted = self.client.resume(ask.h, now()).map_err(|_| NotGranted::BadCount).map(|output| {
                let (seat, coming) = oneshot::channel();
                self.back.coming = Some(coming);
                Granted { output, seat }
            });
            // If the asker is gone, so is the seat that it would have sent.
            let _gone = ask.reply.send(granted);
        } else if Instant::now() < until {
            self.back.asking = Some((ask, until));
        } else {
            let _gone = ask.reply.send(Err(NotGranted::Slow));
        }
    }

    /// Until when the client is left unread, where that is so. One that presses on for too long is cut.
    fn hold(&mut self, shared: &Shared) -> Option<std::time::Instant> {
        let now = now();
        let Allowed { quota, was_held } = &mut self.allowed;
        let held = quota.held_until(now)?;
        if !std::mem::replace(was_held, true) {
            shared.counters.count("session-held");
        }
        if quota.is_over(now) {
            self.client.handle_flood();
        }
        Some(held)
    }

    /// When a stanza that has begun must be whole. While this side does not read, the client is not slow.
    fn slow_at(&mut self, wants_read: bool, within: Duration) -> Option<std::time::Instant> {
        if !wants_read || !self.seat.as_ref().is_some_and(|seat| seat.reader.is_inside_element()) {
            self.began = None;
            return None;
        }
        Some(*self.began.get_or_insert_with(now) + within)
    }

    /// Hands what was read to the client, as far as it takes more; tells how many stanzas that were.
    fn read_stanzas(&mut self) -> usize {
        let now = now();
        let mut count = 0;
        while let Some(seat) = &mut self.seat
            && self.client.wants_read()
            && self.client.poll_over().is_none()
            && self.allowed.quota.held_until(now).is_none()
        {
            match seat.reader.poll() {
                Ok(Some(ReadEvent::Stanza(stanza))) => {
                    self.began = None;
                    count += 1;
                    if matches!(stanza.name(), "message" | "presence") {
                        self.allowed.quota.charge_message(now);
                    }
                    self.client.handle_stanza(&stanza, now);
                }
                Ok(Some(ReadEvent::StreamClose)) => {
                    self.client.handle_stream_close(now);
                    break;
                }
                Ok(Some(ReadEvent::StreamOpen(_))) => {}
                Ok(None) => break,
                Err(fault) => {
                    self.client.handle_fault(fault, now);
                    break;
                }
            }
        }
        count
    }

    pub(super) fn handle_events(&mut self, first: RelayEvent) {
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
            let Some(seat) = self.seat.as_mut().filter(|_| !self.client.is_held()) else { return };
            let Some(output) = self.client.poll_output() else { return };
            match seat.stream.write(output.as_bytes(), shared.limits.write_within).await {
                Ok(()) => self.client.handle_drained(),
                Err(_) => self.client.handle_lost(now()),
            }
        }
    }

    /// Closes what is left of its transport.
    pub(super) async fn close(&mut self) {
        if let Some(seat) = self.seat.take() {
            Box::pin(seat.stream.close()).await;
        }
    }
}

async fn read(seat: &mut Option<Box<Seat>>, allowed: &mut Allowed) -> std::io::Result<Option<()>> {
    let mut take = |reader: &mut Reader, bytes: &[u8]| {
        allowed.quota.charge_bytes(bytes.len(), now());
        reader.push(bytes);
    };
    match seat.as_deref_mut() {
        Some(Seat { stream, reader, .. }) => stream.read(|bytes| take(reader, bytes)).await,
        None => std::future::pending().await,
    }
}

async fn asked(entry: Option<&Entry>) -> Ask {
    match entry {
        Some(entry) => entry.asked().await,
        None => std::future::pending().await,
    }
}

async fn coming(seat: &mut Option<oneshot::Receiver<Box<Seat>>>) -> Option<Box<Seat>> {
    match seat {
        Some(seat) => seat.await.ok(),
        None => std::future::pending().await,
    }
}

/// Moves the timer only where it would fire too late: a call too early costs nothing.
fn arm(timer: std::pin::Pin<&mut tokio::time::Sleep>, wanted: Option<std::time::Instant>) {
    let Some(wanted) = wanted.map(Instant::from_std) else { return };
    if timer.is_elapsed() || wanted < timer.deadline() {
        timer.reset(wanted);
    }
}
