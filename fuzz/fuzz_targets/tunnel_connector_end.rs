//! The connector's end fed any frames by its relay, between commands of a desk that answers some of what it is told: it never panics,
//! and what it holds stays bounded.
#![no_main]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use outgate::proto::tunnel::frame::Frame;
use outgate::proto::tunnel::{CarrierId, ChannelId, ConnectorCommand, ConnectorEnd, ConnectorEvent, Lane, Payload, ResetCode, Settings};

fuzz_target!(|input: &[u8]| {
    let mut now = Instant::now();
    let mut connector = ConnectorEnd::new(Settings::default(), [7; 16]);
    let (mut carrier, mut sent, mut rest) = (0, 0, input);
    let mut next = [1u64; 256];
    connector.carrier_opened(CarrierId(carrier), now);
    while let Some((&step, more)) = rest.split_first() {
        rest = more;
        match step {
            0..=199 => {
                let Some((frame, more)) = frame(step % 28, rest) else { break };
                rest = more;
                connector.handle_frame(CarrierId(carrier), frame, now);
            }
            200..=209 => {
                now += Duration::from_secs(u64::from(step - 199));
                connector.handle_timeout(now);
            }
            210..=219 => {
                if step < 215 {
                    connector.carrier_lost(CarrierId(carrier), now);
                }
                carrier += 1;
                connector.carrier_opened(CarrierId(carrier), now);
                connector.switch_to(CarrierId(carrier), now);
            }
            220 => connector.handle_command(ConnectorCommand::Reset { channel: ChannelId(1), code: ResetCode::Moved }, now),
            _ => {
                let channel = u32::from(step % 16) * 2 + 1;
                let number = next[channel as usize];
                next[channel as usize] += 1;
                sent += 5;
                let payload = Payload::Event(Bytes::from_static(b"hello"));
                connector.handle_command(ConnectorCommand::Send { channel: ChannelId(channel), number, payload }, now);
            }
        }
        while let Some(event) = connector.poll_event() {
            match event {
                ConnectorEvent::CloseCarrier { carrier: closed, .. } => connector.carrier_lost(closed, now),
                ConnectorEvent::Open { channel, .. } if step % 3 != 0 => {
                    next[channel.0 as usize % 256] = 1;
                    connector.handle_command(ConnectorCommand::Accept { channel, attachment: 1, in_next: 1, out_first: 1, out: Vec::new() }, now);
                }
                ConnectorEvent::Data { channel, number, sm_in, .. } if step % 5 != 0 => {
                    connector.handle_command(ConnectorCommand::Handled { channel, number, sm_in }, now);
                }
                ConnectorEvent::CandidateReady { carrier } => {
                    connector.switch_to(carrier, now);
                }
                _ => {}
            }
        }
        for lane in [Lane::Control, Lane::Data] {
            connector.poll_transmit(CarrierId(carrier), lane, 4096, &mut BytesMut::new(), now);
        }
    }
    assert!(connector.stats().held_bytes <= sent + input.len() as u64);
});

/// A frame of a kind, with flags, channel and length from the input.
fn frame(kind: u8, input: &[u8]) -> Option<(Frame, &[u8])> {
    let (&[flags, channel, length], rest) = input.split_first_chunk::<3>()?;
    let (body, rest) = rest.split_at(usize::from(length).min(rest.len()));
    Some((Frame { kind, flags, channel: channel.into(), body: Bytes::copy_from_slice(body) }, rest))
}
