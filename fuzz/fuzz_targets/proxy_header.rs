//! The header of a trusted proxy that has been captured: any bytes. No panic, no more is asked for than the longest header has, not a
//! byte behind it is read, and an IPv4 address is told as one.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use outgate::proto::proxy_header::{LONGEST, Origin, Step, step};

fuzz_target!(|input: &[u8]| {
    let mut held = 0;
    let origin = loop {
        let Some(bytes) = input.get(..held) else { return };
        match step(bytes) {
            Ok(Step::Read(count)) => {
                assert!(count > 0 && held + count <= LONGEST, "{held} and {count} more");
                held += count;
            }
            Ok(Step::Whole(origin)) => break origin,
            Err(_) => return,
        }
    };
    if let Origin::Client(client, server) = origin {
        for address in [client.ip(), server.ip()] {
            assert!(!matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()), "{address}");
        }
    }
    // The same header in one piece, and with any byte behind it, is no other header.
    let whole = input.get(..held).unwrap_or_default();
    assert_eq!(step(whole), Ok(Step::Whole(origin)));
});
