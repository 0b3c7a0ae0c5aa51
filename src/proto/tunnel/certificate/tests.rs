use std::time::Instant;

use bytes::BytesMut;

use super::*;
use crate::proto::tunnel::frame::decode;
use crate::proto::tunnel::{CarrierId, ConnectorEnd, ConnectorEvent, Identity, Lane, RelayEnd, RelayEvent, Settings};

const CARRIER: CarrierId = CarrierId(1);

struct Ends {
    relay: RelayEnd,
    connector: ConnectorEnd,
    identity: Identity,
    now: Instant,
}

impl Ends {
    #[expect(clippy::disallowed_methods, reason = "a test starts its clock anywhere")]
    fn attached() -> Self {
        let now = Instant::now();
        let identity = Identity("outgate://example/connector/lan1".into());
        let mut relay = RelayEnd::new(Settings::default(), Box::new(|| [7; 16]));
        let mut connector = ConnectorEnd::new(Settings::default(), [1; 16]);
        relay.carrier_opened(CARRIER, identity.clone(), now);
        connector.carrier_opened(CARRIER, now);
        let mut ends = Self { relay, connector, identity, now };
        ends.pump();
        assert!(ends.relay.is_attached(&ends.identity));
        ends
    }

    /// Carries control frames until both are silent.
    fn pump(&mut self) {
        loop {
            let mut out = BytesMut::new();
            let mut moved = self.connector.poll_transmit(CARRIER, Lane::Control, usize::MAX, &mut out, self.now);
            while let Some(frame) = decode(&mut out).unwrap() {
                self.relay.handle_frame(CARRIER, frame, self.now);
            }
            moved |= self.relay.poll_transmit(CARRIER, Lane::Control, usize::MAX, &mut out, self.now);
            while let Some(frame) = decode(&mut out).unwrap() {
                self.connector.handle_frame(CARRIER, frame, self.now);
            }
            if !moved {
                return;
            }
        }
    }

    fn ask(&mut self, id: u64) -> bool {
        self.relay.request_certificate(&self.identity.clone(), &request(id), self.now)
    }

    fn relay_closes(&mut self) -> bool {
        std::iter::from_fn(|| self.relay.poll_event()).any(|event| matches!(event, RelayEvent::CloseCarrier { .. }))
    }

    fn connector_closes(&mut self) -> bool {
        std::iter::from_fn(|| self.connector.poll_event()).any(|event| matches!(event, ConnectorEvent::CloseCarrier { .. }))
    }
}

fn request(id: u64) -> CertificateRequest {
    let bytes = Bytes::from_static;
    CertificateRequest { id, csr: bytes(b"csr"), certificate: bytes(b"certificate"), signature: bytes(b"signature") }
}

#[test]
fn a_request_comes_whole_and_its_answer_back_once() {
    let mut ends = Ends::attached();
    assert!(ends.ask(5));
    ends.pump();
    assert_eq!(ends.connector.poll_certificate(), Some(request(5)));
    assert_eq!(ends.connector.poll_certificate(), None);
    let answer = CertificateAnswer::Issued(vec![Bytes::from_static(b"leaf"), Bytes::from_static(b"ca")]);
    ends.connector.answer_certificate(5, &answer, ends.now);
    ends.connector.answer_certificate(5, &answer, ends.now);
    ends.pump();
    assert_eq!(ends.relay.poll_certificate(), Some((ends.identity.clone(), CertificateNews::Answer(answer))));
    assert_eq!(ends.relay.poll_certificate(), None);
}

#[test]
fn one_request_is_pending_and_a_second_is_refused_in_words() {
    let mut ends = Ends::attached();
    assert!(ends.ask(5) && ends.ask(5) && ends.ask(6));
    ends.pump();
    assert_eq!(ends.connector.poll_certificate().map(|request| request.id), Some(5));
    let Some((_, CertificateNews::Answer(CertificateAnswer::Refused(text)))) = ends.relay.poll_certificate() else { panic!("no refusal") };
    assert!(text.contains("pending"), "{text}");
    // The relay waits for 6 no more, and never asked for 7.
    ends.connector.answer_certificate(5, &CertificateAnswer::Refused("late".into()), ends.now);
    ends.connector.answer_certificate(7, &CertificateAnswer::Refused("unasked".into()), ends.now);
    ends.pump();
    assert_eq!(ends.relay.poll_certificate(), None);
}

#[test]
fn a_lost_carrier_forgets_the_request_and_another_may_follow() {
    let mut ends = Ends::attached();
    assert!(ends.ask(5));
    ends.pump();
    ends.connector.carrier_lost(CARRIER, ends.now);
    assert_eq!(ends.connector.poll_certificate(), None);
    ends.relay.carrier_lost(CARRIER, ends.now);
    assert!(!ends.ask(6), "nobody is attached");
}

#[test]
fn trust_reaches_the_relay_and_a_flood_of_it_stays_bounded() {
    let mut ends = Ends::attached();
    let trust = Trust { revocations: vec![Bytes::from_static(b"list")], ..Trust::default() };
    for _ in 0..100 {
        assert!(ends.connector.tell_trust(&trust, ends.now));
    }
    ends.pump();
    let heard: Vec<_> = std::iter::from_fn(|| ends.relay.poll_certificate()).collect();
    assert_eq!(heard.len(), MAX_NEWS);
    assert_eq!(heard[0], (ends.identity.clone(), CertificateNews::Trust(trust)));
}

#[test]
fn what_is_larger_than_its_limit_is_not_sent_and_costs_the_carrier_that_brings_it() {
    let mut ends = Ends::attached();
    let large = Bytes::from(vec![0; MAX_CERTIFICATE_BYTES]);
    assert!(!ends.connector.tell_trust(&Trust { revocations: vec![large.clone()], ..Trust::default() }, ends.now));
    let identity = ends.identity.clone();
    assert!(!ends.relay.request_certificate(&identity, &CertificateRequest { csr: large.clone(), ..request(1) }, ends.now));
    // An answer that is too large becomes a refusal: the relay must not wait for ever.
    assert!(ends.ask(2));
    ends.pump();
    ends.connector.answer_certificate(2, &CertificateAnswer::Issued(vec![large]), ends.now);
    ends.pump();
    assert!(matches!(ends.relay.poll_certificate(), Some((_, CertificateNews::Answer(CertificateAnswer::Refused(_))))));

    let frame = Frame { kind: kind::TRUST, flags: IGNORABLE, channel: 0, body: Bytes::from(vec![0; MAX_CERTIFICATE_BYTES + 1]) };
    ends.relay.handle_frame(CARRIER, frame.clone(), ends.now);
    assert!(ends.relay_closes());
    ends.connector.handle_frame(CARRIER, Frame { kind: kind::CERT_REQ, ..frame }, ends.now);
    assert!(ends.connector_closes());
}

#[test]
fn who_does_not_know_the_frames_may_ignore_them() {
    for frame in [request_frame(&request(1)).unwrap(), trust_frame(&Trust::default()).unwrap()] {
        let frame = decode(&mut BytesMut::from(&frame[..])).unwrap().unwrap();
        assert_ne!(frame.flags & IGNORABLE, 0);
    }
}
