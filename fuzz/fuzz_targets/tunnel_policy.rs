//! POLICY, CERT and TRUST at a relay, and its answers and CERT_REQ at a connector, under any bytes. The input is the policy itself,
//! sent in parts with its own digest, and then frames of these kinds with any body: no panic, and what a relay takes it takes again
//! in its own words.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use outgate::proto::tunnel::certificate::CertificateRequest;
use outgate::proto::tunnel::frame::{Frame, IGNORABLE, MORE, decode};
use outgate::proto::tunnel::policy::{EncodedPolicy, Policy, PolicyNews, PolicyVerdict, QueueClaim};
use outgate::proto::tunnel::{CarrierId, ConnectorEnd, Identity, Lane, RelayEnd, Settings};

const CERT_REQ: u8 = 21;
const TRUST: u8 = 24;
const POLICY: u8 = 23;
const CARRIER: CarrierId = CarrierId(1);

fuzz_target!(|input: &[u8]| {
    let Some((&[cut, split], rest)) = input.split_first_chunk::<2>() else { return };
    let now = Instant::now();
    let identity = Identity("lan1".to_owned());
    let mut relay = RelayEnd::new(Settings::default(), Box::new(|| [9; 16]));
    let mut connector = ConnectorEnd::new(Settings::default(), [7; 16]);
    relay.carrier_opened(CARRIER, identity.clone(), now);
    connector.carrier_opened(CARRIER, now);
    exchange(&mut relay, &mut connector, now);
    // A request is pending: the answer to it is read.
    let blob = Bytes::from_static(b"der");
    relay.request_certificate(&identity, &CertificateRequest { id: 1, csr: blob.clone(), certificate: blob.clone(), signature: blob }, now);

    let (policy, frames) = rest.split_at(rest.len() * usize::from(split) / 255);
    for part in parts(policy, usize::from(cut)) {
        relay.handle_frame(CARRIER, part, now);
    }
    while let Some(news) = relay.poll_policy() {
        let PolicyNews::Whole { identity, version, policy } = news else { continue };
        let again = EncodedPolicy::new(&policy);
        assert!(again.is_ok(), "{:?}", again.err());
        connector.push_policy(Arc::new(again.unwrap_or_else(|_| unreachable!())));
        let verdict = PolicyVerdict::Taken { refused: policy.queues };
        relay.judge_policy(&identity, version, &verdict, now);
    }
    exchange(&mut relay, &mut connector, now);

    let mut frames = frames;
    while let Some((&[kind, flags, length], more)) = frames.split_first_chunk::<3>() {
        let (body, more) = more.split_at(usize::from(length).min(more.len()));
        frames = more;
        let kind = CERT_REQ + kind % (TRUST - CERT_REQ + 1);
        let frame = Frame { kind, flags, channel: 0, body: Bytes::copy_from_slice(body) };
        relay.handle_frame(CARRIER, frame.clone(), now);
        connector.handle_frame(CARRIER, frame, now);
        while relay.poll_certificate().is_some() {}
        while connector.poll_certificate().is_some() {}
        while connector.poll_policy_answer().is_some() {}
    }
    // Whatever came: one that is right is taken where the carrier lived.
    let claim = QueueClaim { domain: "im.example".to_owned(), queue: "sales".to_owned() };
    if let Ok(right) = EncodedPolicy::new(&Policy { queues: vec![claim], ..Policy::default() }) {
        connector.push_policy(Arc::new(right));
    }
    exchange(&mut relay, &mut connector, now);
    while relay.poll_policy().is_some() {}
});

/// A policy in two parts, with the digest that it has.
fn parts(policy: &[u8], cut: usize) -> Vec<Frame> {
    let own = digest(&SHA256, policy);
    let (first, second) = policy.split_at(cut.min(policy.len()));
    let part = |flags: u8, offset: usize, part: &[u8]| {
        let mut body = BytesMut::new();
        body.put_slice(&[0x08, 1, 0x12, 32]);
        body.put_slice(own.as_ref());
        for (tag, value) in [(0x18, policy.len()), (0x20, offset)] {
            body.put_u8(tag);
            varint(&mut body, value);
        }
        body.put_u8(0x2a);
        varint(&mut body, part.len());
        body.put_slice(part);
        Frame { kind: POLICY, flags: IGNORABLE | flags, channel: 0, body: body.freeze() }
    };
    if first.is_empty() { vec![part(0, 0, second)] } else { vec![part(MORE, 0, first), part(0, first.len(), second)] }
}

fn varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Carries frames both ways.
fn exchange(relay: &mut RelayEnd, connector: &mut ConnectorEnd, now: Instant) {
    for _ in 0..4 {
        let mut bytes = BytesMut::new();
        connector.poll_transmit(CARRIER, Lane::Control, 1 << 20, &mut bytes, now);
        while let Ok(Some(frame)) = decode(&mut bytes) {
            relay.handle_frame(CARRIER, frame, now);
        }
        relay.poll_transmit(CARRIER, Lane::Control, 1 << 20, &mut bytes, now);
        while let Ok(Some(frame)) = decode(&mut bytes) {
            connector.handle_frame(CARRIER, frame, now);
        }
        while relay.poll_event().is_some() {}
        while connector.poll_event().is_some() {}
    }
}
