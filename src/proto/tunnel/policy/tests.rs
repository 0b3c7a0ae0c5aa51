//! The promises of POLICY: whole or not at all, bounded, in rising versions, behind what cannot wait.

#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use prost::Message as _;

use super::intake::{BEGUN_WINDOW, MAX_BEGUN, MAX_PARTS};
use super::shape::{MAX_SET_BYTES, WirePart, decode, encode};
use super::*;
use crate::proto::tunnel::frame::{Frame, MORE};
use crate::proto::tunnel::handshake::Refusal;
use crate::proto::tunnel::wire::{self, kind};
use crate::proto::tunnel::{CarrierId, ConnectorEnd, Lane, RelayEnd, Settings};

const CARRIER: CarrierId = CarrierId(1);

#[test]
fn a_policy_comes_through_in_parts_and_is_told_as_held() {
    let mut pair = Pair::attached();
    let policy = large(1);
    pair.push(&policy);
    assert_eq!(pair.take(), Some((1, policy.clone())));
    assert_eq!(pair.answers(), vec![held(1)]);
    // The same content again is no news.
    pair.push(&policy);
    assert_eq!((pair.take(), pair.answers()), (None, vec![]));
    pair.push(&large(2));
    assert_eq!(pair.take().map(|(version, _)| version), Some(2));
}

#[test]
fn after_an_attachment_it_is_sent_again_only_where_the_relay_holds_another() {
    let mut pair = Pair::attached();
    pair.push(&large(1));
    pair.take();
    pair.reattach();
    assert_eq!(pair.take(), None, "the relay holds it");
    pair.connector.carrier_lost(CARRIER, pair.now);
    pair.connector.push_policy(encoded(&large(2)));
    pair.reattach();
    assert_eq!(pair.take().map(|(version, _)| version), Some(2));
    // A relay that restarted holds nothing.
    pair.relay = relay();
    pair.reattach();
    assert_eq!(pair.take().map(|(_, policy)| policy), Some(large(2)));
    // A connector that restarted numbers on from what the relay tells.
    pair.connector = connector();
    pair.connector.push_policy(encoded(&large(3)));
    pair.reattach();
    assert_eq!(pair.take(), Some((4, large(3))));
}

#[test]
fn ping_and_ack_do_not_wait_for_a_policy() {
    let mut pair = Pair::attached();
    pair.connector.push_policy(encoded(&large(1)));
    let mut out = BytesMut::new();
    pair.connector.poll_transmit(CARRIER, Lane::Control, 1, &mut out, pair.now);
    assert!(out.len() < PART_BYTES + 100, "one part at a time");
    // A PING of the relay is answered before the next part.
    let ping = Frame { kind: kind::PING, flags: 0, channel: 0, body: Bytes::from_static(&[8, 1]) };
    pair.connector.handle_frame(CARRIER, ping, pair.now);
    out.clear();
    pair.connector.poll_transmit(CARRIER, Lane::Control, 1, &mut out, pair.now);
    assert_eq!(frames_of(&out)[0].kind, kind::PONG);
}

#[test]
fn a_damaged_or_cut_policy_changes_nothing() {
    let whole = parts(1, &large(1));
    assert!(whole.len() > 2);
    for at in [0, whole.len() - 1] {
        let mut intake = Intake::default();
        let mut broken = whole.clone();
        let mut part = body(&broken[at]);
        let mut bytes = part.part.to_vec();
        bytes[7] ^= 1;
        part.part = bytes.into();
        broken[at].body = part.encode_to_vec().into();
        assert_eq!(feed(&mut intake, &broken), Ok(Taken::Dropped("policy-digest")));
        assert_eq!(intake.version(), 0);
    }
    let mut intake = Intake::default();
    assert_eq!(feed(&mut intake, &whole[..1]), Ok(Taken::Part));
    intake.cut();
    assert_eq!(feed(&mut intake, &whole[1..]), Err(Refusal("malformed")), "its beginning is gone");
}

#[test]
fn versions_do_not_go_back() {
    let mut intake = Intake::default();
    assert!(matches!(feed(&mut intake, &parts(5, &large(1))), Ok(Taken::Whole(5, _))));
    intake.judge(5, &PolicyVerdict::Taken { refused: vec![] });
    for version in [4, 5] {
        assert_eq!(feed(&mut intake, &parts(version, &large(2))), Ok(Taken::Dropped("policy-old-version")));
        assert_eq!(intake.version(), 5);
    }
    assert!(matches!(feed(&mut intake, &parts(6, &large(2))), Ok(Taken::Whole(6, _))));
    intake.judge(6, &PolicyVerdict::Refused { why: "policy-keys" });
    assert_eq!(intake.version(), 5, "what the shell refused does not stand");
}

#[test]
fn a_flood_of_parts_is_bounded_and_costs_the_carrier() {
    let now = Instant::now();
    let mut intake = Intake::default();
    let first = &parts(1, &large(1))[0];
    for _ in 0..MAX_BEGUN {
        assert_eq!(intake.take(first, now), Ok(Taken::Part));
    }
    assert_eq!(intake.take(first, now), Err(Refusal("policy_flood")));
    assert_eq!(intake.take(first, now + BEGUN_WINDOW), Ok(Taken::Part));
    // Tiny parts.
    let mut intake = Intake::default();
    let part = |offset: u32| frame(&WirePart { offset, part: Bytes::from_static(b"x"), ..body(first) }, MORE);
    let refused = (0..10_000).find_map(|offset| intake.take(&part(offset), now).err());
    assert_eq!(refused, Some(Refusal("malformed")));
    assert!(intake.coming.is_some_and(|coming| coming.received <= MAX_PARTS as usize));
    // More than was announced, and more than is allowed.
    let mut intake = Intake::default();
    let short = WirePart { length: 1, ..body(first) };
    assert_eq!(intake.take(&frame(&short, MORE), now), Err(Refusal("malformed")));
    let huge = WirePart { length: MAX_POLICY_BYTES as u32 + 1, ..body(first) };
    assert_eq!(intake.take(&frame(&huge, MORE), now), Err(Refusal("policy_too_large")));
}

#[test]
fn lists_and_names_are_bounded() {
    let claim = |queue: &str| QueueClaim { domain: "d".into(), queue: queue.into() };
    let denial = |software: &str| Denial { software: software.into(), version: None, text: String::new() };
    let out_of_bounds = [
        Policy { queues: vec![claim("a"); MAX_CLAIMS + 1], ..Policy::default() },
        Policy { queues: vec![claim("")], ..Policy::default() },
        Policy { queues: vec![claim("\u{202e}")], ..Policy::default() },
        Policy { queues: vec![claim(&"x".repeat(256))], ..Policy::default() },
        Policy { denied: vec![denial("x"); MAX_DENIED + 1], ..Policy::default() },
        Policy { revoked: vec![RevokedLink { issuer: "i".into(), jti: "j".into(), expires: 1 }; MAX_REVOKED + 1], ..Policy::default() },
        Policy { issuers: vec![IssuerKeys { issuer: "i".into(), jwks: "x".repeat(MAX_SET_BYTES + 1) }], ..Policy::default() },
    ];
    for policy in out_of_bounds {
        assert_eq!(EncodedPolicy::new(&policy).unwrap_err(), PolicyError::OutOfBounds);
        let bytes = Bytes::from(encode(&policy));
        let forged = EncodedPolicy { digest: sha256(&bytes), bytes };
        assert_eq!(feed(&mut Intake::default(), &encoded_parts(1, &Arc::new(forged))), Ok(Taken::Dropped("policy-malformed")));
    }
    let keys = IssuerKeys { issuer: "i".into(), jwks: "x".repeat(MAX_SET_BYTES) };
    let heavy = Policy { issuers: vec![keys; 9], ..Policy::default() };
    assert!(matches!(EncodedPolicy::new(&heavy), Err(PolicyError::TooLarge(_))));
}

#[test]
fn damaged_bytes_are_refused_or_read_but_never_panic() {
    let bytes = encode(&large(0));
    for index in 0..200 {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            drop(decode(&damaged));
        }
        drop(decode(&bytes[..index]));
    }
}

/// Both ends over a carrier that hands frames over at once.
struct Pair {
    relay: RelayEnd,
    connector: ConnectorEnd,
    now: Instant,
}

impl Pair {
    fn attached() -> Self {
        let mut pair = Self { relay: relay(), connector: connector(), now: Instant::now() };
        pair.reattach();
        pair
    }

    fn reattach(&mut self) {
        self.relay.carrier_lost(CARRIER, self.now);
        self.connector.carrier_lost(CARRIER, self.now);
        self.relay.carrier_opened(CARRIER, identity(), self.now);
        self.connector.carrier_opened(CARRIER, self.now);
        while self.step() {}
        assert!(self.relay.is_attached(&identity()));
        self.answers();
    }

    fn push(&mut self, policy: &Policy) {
        self.connector.push_policy(encoded(policy));
        while self.step() {}
    }

    /// Hands what one side has to the other.
    fn step(&mut self) -> bool {
        let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
        self.connector.poll_transmit(CARRIER, Lane::Control, 1, &mut up, self.now);
        self.relay.poll_transmit(CARRIER, Lane::Control, 1, &mut down, self.now);
        for frame in frames_of(&up) {
            self.relay.handle_frame(CARRIER, frame, self.now);
        }
        for frame in frames_of(&down) {
            self.connector.handle_frame(CARRIER, frame, self.now);
        }
        !up.is_empty() || !down.is_empty()
    }

    /// The policy that came whole, taken as the shell would.
    fn take(&mut self) -> Option<(u64, Policy)> {
        match self.relay.poll_policy()? {
            PolicyNews::Whole { identity, version, policy } => {
                self.relay.judge_policy(&identity, version, &PolicyVerdict::Taken { refused: vec![] }, self.now);
                while self.step() {}
                Some((version, *policy))
            }
            PolicyNews::Dropped { why, .. } => panic!("{why}"),
        }
    }

    fn answers(&mut self) -> Vec<PolicyAnswer> {
        std::iter::from_fn(|| self.connector.poll_policy_answer()).collect()
    }
}

fn relay() -> RelayEnd {
    let mut next = 0;
    let entropy = move || {
        next += 1;
        [next; 16]
    };
    RelayEnd::new(Settings::default(), Box::new(entropy))
}

fn connector() -> ConnectorEnd {
    ConnectorEnd::new(Settings::default(), [1; 16])
}

fn identity() -> Identity {
    Identity("outgate://example/connector/lan1".to_owned())
}

fn held(version: u64) -> PolicyAnswer {
    PolicyAnswer { version, is_current: true, ..PolicyAnswer::default() }
}

/// A policy of several parts.
fn large(seed: u64) -> Policy {
    let revoked = (0..1000).map(|n| RevokedLink { issuer: "https://example.com".into(), jti: format!("link-{seed}-{n}"), expires: n });
    Policy { revoked: revoked.collect(), ..Policy::default() }
}

fn encoded(policy: &Policy) -> Arc<EncodedPolicy> {
    Arc::new(EncodedPolicy::new(policy).unwrap())
}

fn parts(version: u64, policy: &Policy) -> Vec<Frame> {
    encoded_parts(version, &encoded(policy))
}

fn encoded_parts(version: u64, policy: &Arc<EncodedPolicy>) -> Vec<Frame> {
    let mut outbox = Outbox::default();
    (outbox.policy, outbox.version, outbox.sending) = (Some(Arc::clone(policy)), version, Some(0));
    let mut out = BytesMut::new();
    while outbox.sending.is_some() {
        outbox.write(usize::MAX, &mut out);
    }
    frames_of(&out)
}

fn feed(intake: &mut Intake, frames: &[Frame]) -> Result<Taken, Refusal> {
    let mut last = Ok(Taken::Part);
    for frame in frames {
        last = intake.take(frame, Instant::now());
    }
    last
}

fn body(frame: &Frame) -> WirePart {
    wire::body(frame).unwrap()
}

fn frame(part: &WirePart, flags: u8) -> Frame {
    Frame { kind: kind::POLICY, flags, channel: 0, body: part.encode_to_vec().into() }
}

fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let mut buffer = BytesMut::from(bytes);
    std::iter::from_fn(|| crate::proto::tunnel::frame::decode(&mut buffer).unwrap()).collect()
}
