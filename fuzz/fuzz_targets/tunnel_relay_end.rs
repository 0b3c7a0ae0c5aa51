//! The relay's end fed any frames by its connector, between commands of its sessions and jumps in time: it never panics, and what it
//! holds stays bounded.
#![no_main]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use outgate::fingerprint::ClientSoftware;
use outgate::proto::tunnel::frame::Frame;
use outgate::proto::tunnel::{
    Admission, Assertion, CarrierId, Identity, Lane, Open, OpenKind, Payload, Proof, RelayCommand, RelayEnd, RelayEvent, SessionKey,
    Settings,
};
use outgate::session::{OpenId, SessionSecret};

const IDENTITY: &str = "outgate://fuzz/connector/lan1";

fuzz_target!(|input: &[u8]| {
    let mut now = Instant::now();
    let mut minted = 0u8;
    let entropy = move || {
        minted = minted.wrapping_add(1);
        [minted; 16]
    };
    let mut relay = RelayEnd::new(Settings::default(), Box::new(entropy));
    let (mut carrier, mut sessions, mut rest) = (0, 0, input);
    relay.carrier_opened(CarrierId(carrier), Identity(IDENTITY.to_owned()), now);
    while let Some((&step, more)) = rest.split_first() {
        rest = more;
        match step {
            0..=199 => {
                let Some((frame, more)) = frame(step % 28, rest) else { break };
                rest = more;
                relay.handle_frame(CarrierId(carrier), frame, now);
            }
            200..=209 => {
                now += Duration::from_secs(u64::from(step - 199));
                relay.handle_timeout(now);
            }
            210..=214 => {
                relay.carrier_lost(CarrierId(carrier), now);
                carrier += 1;
                relay.carrier_opened(CarrierId(carrier), Identity(IDENTITY.to_owned()), now);
            }
            215..=229 => {
                sessions += 1;
                relay.handle_command(open(sessions, step % 2 == 0), now);
            }
            _ => {
                let session = SessionKey(u64::from(step) % sessions.max(1) + 1);
                let payload = Payload::Event(Bytes::from_static(b"hello"));
                relay.handle_command(RelayCommand::Send { session, payload, sm_in: u32::from(step) }, now);
                let number = u64::from(step & 3);
                relay.handle_command(RelayCommand::Handled { session, number, proof: Proof::Confirmed }, now);
            }
        }
        while let Some(event) = relay.poll_event() {
            if let RelayEvent::CloseCarrier { carrier: closed, .. } = event {
                relay.carrier_lost(closed, now);
            }
        }
        for lane in [Lane::Control, Lane::Data] {
            relay.poll_transmit(CarrierId(carrier), lane, 4096, &mut BytesMut::new(), now);
        }
        assert!(relay.poll_timeout().is_none_or(|due| due <= now + Duration::from_secs(24 * 3600 + 1)));
    }
    let held: u64 = relay.stats().iter().map(|(_, stats)| stats.held_bytes).sum();
    assert!(held <= 5 * input.len() as u64);
});

/// A frame of a kind, with flags, channel and length from the input.
fn frame(kind: u8, input: &[u8]) -> Option<(Frame, &[u8])> {
    let (&[flags, channel, length], rest) = input.split_first_chunk::<3>()?;
    let (body, rest) = rest.split_at(usize::from(length).min(rest.len()));
    Some((Frame { kind, flags, channel: channel.into(), body: Bytes::copy_from_slice(body) }, rest))
}

fn open(session: u64, new: bool) -> RelayCommand {
    let (open_id, secret) = (OpenId(u128::from(session).to_be_bytes()), SessionSecret([7; 16]));
    let kind =
        if new { OpenKind::New { open_id, secret } } else { OpenKind::Attach { secret, in_next: 0, out_next: 0, client_h: Some(1), attachment: 0 } };
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
    let open = Open {
        kind,
        admission: Admission { domain: "im.example".to_owned(), queue: "sales".to_owned(), assertion: Assertion::Anonymous },
        client_addr: address,
        local_addr: address,
        protocol: "xmpp".to_owned(),
        sni: None,
        software: ClientSoftware::unknown(),
        resumable: true,
        waited: Duration::ZERO,
    };
    RelayCommand::Open { session: SessionKey(session), identity: Identity(IDENTITY.to_owned()), open: Box::new(open) }
}
