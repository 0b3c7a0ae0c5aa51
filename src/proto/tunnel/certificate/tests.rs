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
    carrier: CarrierId,
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
        let mut ends = Self { relay, connector, identity, carrier: CARRIER, now };
        ends.pump();
        assert!(ends.relay.is_attached(&ends.identity));
        ends
    }

    /// Carries control frames until both are silent.
    fn pump(&mut self) {
        while self.step(usize::MAX) {}
    }

    /// Carries what each side writes at once, up to `max` bytes begun.
    fn step(&mut self, max: usize) -> bool {
        let mut out = BytesMut::new();
        let mut moved = self.connector.poll_transmit(self.carrier, Lane::Control, max, &mut out, self.now);
        while let Some(frame) = decode(&mut out).unwrap() {
            self.relay.handle_frame(self.carrier, frame, self.now);
        }
        moved |= self.relay.poll_transmit(self.carrier, Lane::Control, max, &mut out, self.now);
        while let Some(frame) = decode(&mut out).unwrap() {
            self.connector.handle_frame(self.carrier, frame, self.now);
        }
        moved
    }

    fn heard(&mut self) -> Vec<Trust> {
        let news = std::iter::from_fn(|| self.relay.poll_certificate());
        news.map(|(_, news)| if let CertificateNews::Trust(trust) = news { trust } else { panic!("an answer") }).collect()
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
    assert!(!ends.connector.tell_trust(&Trust { authorities: vec![large.clone()], ..Trust::default() }, ends.now));
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
    for frame in [request_frame(&request(1)).unwrap(), LongLists::default().tell(&Trust::default()).unwrap()] {
        let frame = decode(&mut BytesMut::from(&frame[..])).unwrap().unwrap();
        assert_ne!(frame.flags & IGNORABLE, 0);
    }
}

#[test]
fn a_list_longer_than_a_frame_comes_in_parts_and_others_do_not_wait_for_it() {
    let mut ends = Ends::attached();
    let (short, long) = (Bytes::from_static(b"short"), list(1, 100_000));
    let trust = Trust { authorities: vec![short.clone()], revocations: vec![long.clone(), short.clone()], ..Trust::default() };
    assert!(ends.connector.tell_trust(&trust, ends.now));
    ends.pump();
    let first = Trust { authorities: vec![short.clone()], revocations: vec![short], ..Trust::default() };
    assert!(ends.heard() == [first, of(&long)]);
    // Too long for any relay.
    assert!(ends.connector.tell_trust(&of(&list(2, MAX_LIST_BYTES + 1)), ends.now));
    ends.pump();
    assert_eq!(ends.heard(), [Trust::default()]);
}

#[test]
fn lists_that_change_while_one_is_sent_do_not_keep_it_from_getting_through() {
    let mut ends = Ends::attached();
    let (first, last) = (list(0, 100_000), list(9, 100_000));
    assert!(ends.connector.tell_trust(&of(&first), ends.now));
    for change in 0..=9 {
        ends.step(64);
        assert!(ends.connector.tell_trust(&of(&list(change, 100_000)), ends.now));
    }
    ends.pump();
    let long: Vec<_> = ends.heard().into_iter().filter(|trust| *trust != Trust::default()).collect();
    assert!(long == [of(&first), of(&last)], "{} lists came", long.len());
}

#[test]
fn a_list_that_a_lost_carrier_cut_begins_anew() {
    let mut ends = Ends::attached();
    let long = list(1, 100_000);
    assert!(ends.connector.tell_trust(&of(&long), ends.now));
    for _ in 0..3 {
        ends.step(1);
    }
    ends.relay.carrier_lost(CARRIER, ends.now);
    ends.connector.carrier_lost(CARRIER, ends.now);
    let next = CarrierId(2);
    ends.carrier = next;
    ends.relay.carrier_opened(next, ends.identity.clone(), ends.now);
    ends.connector.carrier_opened(next, ends.now);
    ends.pump();
    assert!(ends.relay.is_attached(&ends.identity));
    ends.heard();
    assert!(ends.connector.tell_trust(&of(&long), ends.now));
    ends.pump();
    assert!(ends.heard() == [Trust::default(), of(&long)]);
}

#[test]
fn a_part_that_is_out_of_order_empty_or_too_much_costs_the_carrier() {
    let good = WireTrust { length: 10, part: Bytes::from_static(b"01234"), ..WireTrust::default() };
    let part = |offset: u32, part: &'static [u8]| WireTrust { offset, part: Bytes::from_static(part), ..good.clone() };
    let mut intake = ListIntake::default();
    assert_eq!(intake.take(&part(5, b"56789"), false), Err(Refusal("malformed")), "nothing was begun");
    assert_eq!(intake.take(&good, true), Ok(None));
    assert_eq!(intake.take(&part(5, b"56789"), false), Ok(Some(Bytes::from_static(b"0123456789"))));
    let other_length = WireTrust { length: 11, ..part(5, b"56789") };
    let with_others = WireTrust { links: vec![Bytes::new()], ..part(5, b"56789") };
    for (bad, has_more) in [
        (part(4, b"4"), true),
        (part(6, b"6"), true),
        (part(5, b""), true),
        (part(5, b"567890"), false),
        (part(5, b"5678"), false),
        (other_length, true),
        (with_others, true),
    ] {
        let mut intake = ListIntake::default();
        assert_eq!(intake.take(&good, true), Ok(None));
        assert_eq!(intake.take(&bad, has_more), Err(Refusal("malformed")), "{bad:?}");
    }
    let huge = WireTrust { length: MAX_LIST_BYTES as u32 + 1, ..good };
    assert_eq!(ListIntake::default().take(&huge, true), Err(Refusal("too_large")));
}

fn list(seed: u8, length: usize) -> Bytes {
    Bytes::from((0..length).map(|at| seed.wrapping_add(at as u8)).collect::<Vec<u8>>())
}

fn of(list: &Bytes) -> Trust {
    Trust { revocations: vec![list.clone()], ..Trust::default() }
}
