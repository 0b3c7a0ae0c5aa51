//! The cursor lists of RESUME and ATTACHED under any bytes, in any number of parts, at two ends that know one session: no panic, and
//! whatever a list claims, the epoch only rises.
#![no_main]

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use libfuzzer_sys::fuzz_target;
use outgate::proto::tunnel::frame::{Frame, MORE, decode};
use outgate::proto::tunnel::{CarrierId, ConnectorEnd, ConnectorEvent, Identity, Lane, RelayEnd, Settings};

const ATTACH: u8 = 3;
const ATTACHED: u8 = 4;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, list)) = input.split_first() else { return };
    let now = Instant::now();
    let mut relay = RelayEnd::new(Settings::default(), Box::new(|| [9; 16]));
    let mut connector = ConnectorEnd::new(Settings::default(), [7; 16]);
    relay.carrier_opened(CarrierId(1), Identity("lan1".to_owned()), now);
    connector.carrier_opened(CarrierId(1), now);
    exchange(&mut relay, &mut connector, CarrierId(1), None, now);
    relay.carrier_opened(CarrierId(2), Identity("lan1".to_owned()), now);
    connector.carrier_lost(CarrierId(1), now);
    connector.carrier_opened(CarrierId(2), now);
    // Tunnel and epoch are right: the list is read.
    let head = |field: u8| [&[0x0a, 16][..], &[9; 16], &[field, 1 + u8::from(field == 0x18)]].concat();
    let parts = |kind: u8, field: u8| -> Vec<Frame> {
        let (first, second) = list.split_at(usize::from(cut).min(list.len()));
        let part = |flags: u8, list: &[u8]| {
            let mut body = BytesMut::from(&head(field)[..]);
            body.put_slice(list);
            Frame { kind, flags, channel: 0, body: body.freeze() }
        };
        vec![part(MORE, first), part(0, second)]
    };
    exchange(&mut relay, &mut connector, CarrierId(2), Some((parts(ATTACH, 0x10), parts(ATTACHED, 0x10))), now);
});

/// Carries frames both ways; `instead` goes in the place of the first ATTACH and ATTACHED.
fn exchange(
    relay: &mut RelayEnd,
    connector: &mut ConnectorEnd,
    carrier: CarrierId,
    mut instead: Option<(Vec<Frame>, Vec<Frame>)>,
    now: Instant,
) {
    let mut epoch = 0;
    for _ in 0..8 {
        for lane in [Lane::Control, Lane::Data] {
            let mut bytes = BytesMut::new();
            connector.poll_transmit(carrier, lane, 1 << 20, &mut bytes, now);
            while let Ok(Some(frame)) = decode(&mut bytes) {
                let forged = instead.as_mut().filter(|_| frame.kind == ATTACH).map(|(attach, _)| std::mem::take(attach));
                for frame in forged.filter(|frames| !frames.is_empty()).unwrap_or_else(|| vec![frame]) {
                    relay.handle_frame(carrier, frame, now);
                }
            }
            relay.poll_transmit(carrier, lane, 1 << 20, &mut bytes, now);
            while let Ok(Some(frame)) = decode(&mut bytes) {
                let forged = instead.as_mut().filter(|_| frame.kind == ATTACHED).map(|(_, attached)| std::mem::take(attached));
                for frame in forged.filter(|frames| !frames.is_empty()).unwrap_or_else(|| vec![frame]) {
                    connector.handle_frame(carrier, frame, now);
                }
            }
        }
        while relay.poll_event().is_some() {}
        while let Some(event) = connector.poll_event() {
            if let ConnectorEvent::Attached { epoch: granted, resumed: true } = event {
                assert!(granted > epoch);
                epoch = granted;
            }
        }
    }
}
