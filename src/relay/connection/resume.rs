//! A client that asks to go on with its stream: by the session that is held here, or else by its connector.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::fingerprint::ClientSoftware;
use crate::net::entropy;
use crate::net::negotiate::Resumption;
use crate::proto::tunnel::{Admission, Assertion, Open, OpenKind, RefusalCode, RelayEvent, SessionKey};
use crate::relay::attach::{SessionEvents, Tunnels};
use crate::relay::client::software::Screening;
use crate::relay::client::{Attachment, Client, ClientSettings};
use crate::relay::door::Admitted;
use crate::relay::resumable::{Digest, Granted, NotGranted, StreamId, label_of};
use crate::telemetry::audit::Event;

use super::live::{Allowed, Back, Live};
use super::{CustomerJudge, Shared, mark_of, now};

/// How long a client that asks may wait: for what it sent before to be handled, or for the connector's answer.
const RESUME_WITHIN: Duration = Duration::from_secs(10);

/// A session that another relay had, asked for at its connector.
pub(super) struct Returning {
    session: SessionKey,
    events: SessionEvents,
    id: StreamId,
    h: u32,
    /// The next outward event.
    out_first: Option<u64>,
    /// Inward events and stanzas that are handled.
    handled: Option<(u64, u32)>,
    /// What came before all was known.
    early: Vec<RelayEvent>,
}

/// Why a session does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotBack {
    /// It is over, or never was.
    Unknown(&'static str),
    /// Nobody could say.
    Unanswered(&'static str),
}

impl Returning {
    async fn ask(tunnels: &Tunnels, admitted: &Admitted, ends: (SocketAddr, SocketAddr), id: StreamId, h: u32) -> Self {
        let (client_addr, local_addr) = ends;
        let kind = OpenKind::Attach { secret: id.secret, in_next: 0, out_next: 0, client_h: Some(h), attachment: 0 };
        let open = Open {
            kind,
            // The secret is what counts.
            admission: Admission { assertion: Assertion::Anonymous, ..admitted.admission.clone() },
            client_addr,
            local_addr,
            protocol: "xmpp".to_owned(),
            sni: None,
            software: ClientSoftware::unknown(),
            resumable: true,
            waited: Duration::ZERO,
        };
        let (session, events) = tunnels.open(admitted.identity.clone(), Box::new(open)).await;
        Self { session, events, id, h, out_first: None, handled: None, early: Vec::new() }
    }

    /// Waits until the connector has told where the session stands. May be given up and called again.
    async fn answered(&mut self) -> Result<(), NotBack> {
        while self.out_first.is_none() || self.handled.is_none() {
            match self.events.recv().await {
                Some(RelayEvent::OpenOk { out_first, .. }) => self.out_first = Some(out_first),
                Some(RelayEvent::Handled { number, sm_in, .. }) => self.handled = Some((number, sm_in)),
                Some(RelayEvent::OpenRefused { code, .. }) => return Err(refused(code)),
                Some(RelayEvent::Gone { .. }) | None => return Err(NotBack::Unanswered("resume-lost")),
                Some(event) => self.early.push(event),
            }
        }
        Ok(())
    }

    fn live(self, shared: &Shared, tunnels: &Tunnels, admitted: Admitted, is_anonymous: bool, peer: SocketAddr) -> (Box<Live>, String) {
        let Self { session, events, id, h, out_first, handled, early } = self;
        let (digest, identity) = (id.digest(), admitted.identity.clone());
        let (audit, queue) = (shared.log.audit(), admitted.contact.jid.clone());
        let link = mark_of(&admitted.admission, &admitted.issuer);
        audit.record(Event::Admitted { address: audit.place(peer.ip()), queue: queue.clone(), link, ja4: None });
        // What its software is was known and judged when it began.
        let settings = settings_of(shared, session, admitted, is_anonymous, &id, Screening::default());
        let (handled, sm_in) = handled.unwrap_or_default();
        let last_event = out_first.unwrap_or(1).saturating_sub(1);
        let (mut client, output) = Client::resumed(settings, h, last_event, (handled, sm_in), now());
        for event in early {
            client.handle_tunnel(event, now());
        }
        let (tunnels, back, sent, began) = (tunnels.clone(), Back::default(), handled, None);
        let allowed = Allowed::new(shared.limits.session);
        (Box::new(Live { seat: None, client, tunnels, events, identity, queue, peer, allowed, sent, began, digest, back }), output)
    }
}

/// What the client of a session is shown.
pub(super) fn settings_of(
    shared: &Shared,
    session: SessionKey,
    admitted: Admitted,
    is_anonymous: bool,
    id: &StreamId,
    screening: Screening,
) -> ClientSettings {
    let Admitted { admission, contact, .. } = admitted;
    ClientSettings {
        session,
        client: jid_of(id, &admission.domain),
        domain: admission.domain,
        queue: contact,
        is_anonymous,
        screening,
        idle: shared.limits.idle,
        entropy: entropy::sixteen,
        resume_id: Some(id.text()),
    }
}

/// The address of the client, the same at every relay.
pub(super) fn jid_of(id: &StreamId, domain: &str) -> String {
    format!("{}@{domain}/{}", id.localpart(), id.resource)
}

impl CustomerJudge<'_> {
    pub(super) async fn go_on(&mut self, previd: &str, h: u32) -> Resumption {
        match self.find(previd, h).await {
            Ok(output) => {
                self.shared.counters.count("resumed");
                Resumption::Resumed(output)
            }
            Err(NotBack::Unknown(reason)) => {
                self.note(reason);
                Resumption::Unknown
            }
            Err(NotBack::Unanswered(reason)) => {
                self.note(reason);
                Resumption::Unanswered
            }
        }
    }

    fn note(&self, reason: &'static str) {
        self.shared.refuse("resume", reason, self.peer);
    }

    async fn find(&mut self, previd: &str, h: u32) -> Result<String, NotBack> {
        let id = StreamId::parse(previd).ok_or(NotBack::Unknown("resume-malformed"))?;
        let admitted = self.admitted.clone().ok_or(NotBack::Unanswered("fault"))?;
        if label_of(&admitted.identity) != id.label {
            return Err(NotBack::Unknown("resume-other-connector"));
        }
        if let Some(output) = self.find_here(id.digest(), h).await {
            return Ok(output);
        }
        if self.tunnels.attachment(&admitted.identity) == Attachment::Detached {
            return Err(NotBack::Unanswered("resume-no-tunnel"));
        }
        let returning = Returning::ask(self.tunnels, &admitted, (self.peer, self.local), id, h).await;
        let returning = self.returning.insert(returning);
        // Where this is given up, whoever serves this connection waits on: the session may be here then.
        timeout(RESUME_WITHIN, returning.answered()).await.unwrap_or(Err(NotBack::Unanswered("resume-unanswered")))?;
        let returning = self.returning.take().ok_or(NotBack::Unanswered("fault"))?;
        let (live, output) = returning.live(self.shared, self.tunnels, admitted, self.is_anonymous, self.peer);
        self.returned = Some(live);
        Ok(output)
    }

    /// Asks a session that this relay has.
    async fn find_here(&mut self, digest: Digest, h: u32) -> Option<String> {
        match self.shared.resumables.ask(digest, h)?.await {
            Ok(Ok(Granted { output, seat })) => {
                self.seat = Some(seat);
                Some(output)
            }
            // It ended at this moment, or its client has been elsewhere, or nobody can say: the connector knows.
            Ok(Err(NotGranted::BadCount | NotGranted::Slow)) | Err(_) => None,
        }
    }

    /// A session that came here although its client has not: it waits for it.
    pub(super) async fn left_behind(mut self) -> Option<Box<Live>> {
        if let Some(live) = self.returned.take() {
            return Some(live);
        }
        let mut returning = self.returning.take()?;
        returning.answered().await.ok()?;
        let (live, _) = returning.live(self.shared, self.tunnels, self.admitted.take()?, self.is_anonymous, self.peer);
        Some(live)
    }
}

fn refused(code: RefusalCode) -> NotBack {
    match code {
        RefusalCode::UnknownSession => NotBack::Unknown("resume-unknown"),
        RefusalCode::StoreRegressed => NotBack::Unknown("resume-store-regressed"),
        RefusalCode::NoQueue | RefusalCode::BadLink | RefusalCode::Policy => NotBack::Unknown("resume-refused"),
        RefusalCode::Busy | RefusalCode::Drain => NotBack::Unanswered("resume-busy"),
    }
}
