//! A negotiation under any bytes with a shell that refuses every login: nobody gets in, and it ends at most once.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outgate::proto::xmpp::negotiation::{Action, Mechanism, Negotiation, NegotiationSettings, Transport};
use outgate::proto::xmpp::sasl::{SaslCondition, SaslFailure};

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let settings = NegotiationSettings {
        domains: vec![("x".to_owned(), vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Anonymous])],
        attempts: 3,
        stream_management: true,
        resumption: true,
        salt_secret: [0; 32],
    };
    let transport = if first & 1 == 0 { Transport::Tls } else { Transport::Plain };
    let mut negotiation = Negotiation::new(Arc::new(settings), transport, Box::new(|| [7; 16]));
    let mut output = 0;
    let mut ends = 0;
    for piece in rest.chunks(usize::from(first >> 1) + 1) {
        negotiation.handle_bytes(piece);
        while let Some(action) = negotiation.poll_action() {
            match action {
                Action::StartTls => negotiation.tls_established(),
                Action::Verify(_) => negotiation.verdict(Err(refusal())),
                Action::FindScramKeys { .. } => negotiation.scram_keys(None),
                Action::Bind { .. } | Action::Resume { .. } | Action::Established => panic!("let in without a login"),
                Action::Close { .. } => ends += 1,
            }
        }
        output += negotiation.poll_output().map_or(0, |bytes| bytes.len());
    }
    assert!(ends <= 1 && output < 64 * 1024);
});

fn refusal() -> SaslFailure {
    SaslFailure { condition: SaslCondition::NotAuthorized, text: String::new() }
}
