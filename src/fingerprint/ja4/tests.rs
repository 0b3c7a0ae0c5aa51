use super::*;

/// What FoxIO publishes of the captures beside its programs: the JA4, and the hello that it is of (`JA4_ro`: cipher suites, extensions
/// and signature schemes in the client's order).
const PUBLISHED: [(&str, &str, &str, &str); 13] = [
    (
        "t10d230100_6a57a6f57151_000000000000",
        "0039,0038,0035,0016,0013,000a,0033,0032,002f,009a,0099,0096,0005,0004,0015,0012,0009,0014,0011,0008,0006,0003,00ff",
        "0000",
        "",
    ),
    (
        "t12d190800_d83cc789557e_7af1ed941c26",
        "c02c,c02b,c030,c02f,c024,c023,c028,c027,c00a,c009,c014,c013,009d,009c,003d,003c,0035,002f,000a",
        "0000,0005,000a,000b,000d,0023,0017,ff01",
        "0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
    ),
    (
        "t12d1909h2_d83cc789557e_7af1ed941c26",
        "c02c,c02b,c030,c02f,c024,c023,c028,c027,c00a,c009,c014,c013,009d,009c,003d,003c,0035,002f,000a",
        "0000,0005,000a,000b,000d,0023,0010,0017,ff01",
        "0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
    ),
    (
        "t12d4605h2_85626a9a5f7f_aaf95bb78ec9",
        "c030,c02c,c028,c024,c014,c00a,009f,006b,0039,cca9,cca8,ccaa,ff85,00c4,0088,0081,009d,003d,0035,00c0,0084,c02f,c02b,c027,c023,c013,c009,009e,0067,0033,00be,0045,009c,003c,002f,00ba,0041,c011,c007,0005,0004,c012,c008,0016,000a,00ff",
        "0000,000b,000a,000d,0010",
        "0601,0603,efef,0501,0503,0401,0403,eeee,eded,0301,0303,0201,0203",
    ),
    (
        "t13d151400_8daaf6152771_de4a06bb82e3",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        "0033,002b,001b,0000,0012,002d,000d,000a,0005,0023,0017,ff01,000b,0015",
        "0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1515h2_8daaf6152771_f37e75b10bcc",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        "0005,001b,0033,002d,4469,000a,000d,0012,ff01,000b,0023,002b,0000,0017,0010",
        "0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1516h1_8daaf6152771_e5627efa2ab1",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        "000d,0033,0000,ff01,002b,0023,002d,0005,0012,000b,0017,4469,0010,001b,000a,0015",
        "0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1516h2_8daaf6152771_9b887d9acb53",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        "000d,0010,0000,000b,0023,4469,ff01,0033,000a,002d,002b,0005,0017,0012,001b,0029",
        "0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        "000d,0000,000a,0005,000b,002b,001b,ff01,0033,4469,002d,0023,0017,0012,0010,0015",
        "0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1517h1_8daaf6152771_6cdcb247c39b",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
        "0000,0017,0005,002b,0012,0023,000a,0033,0010,002d,001b,4469,000b,000d,ff01,0015,0029",
        "0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1615h2_46e7e9700bed_45f260be83e2",
        "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035,000a",
        "0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,0015",
        "0403,0804,0401,0503,0805,0501,0806,0601,0201",
    ),
    (
        "t13d1715h2_5b57614c22b0_3d5424432f57",
        "1301,1303,1302,c02b,c02f,cca9,cca8,c02c,c030,c00a,c009,c013,c014,009c,009d,002f,0035",
        "0000,0017,ff01,000a,000b,0023,0010,0005,0022,0033,002b,000d,002d,001c,0015",
        "0403,0503,0603,0804,0805,0806,0401,0501,0601,0203,0201",
    ),
    (
        "t13d2613h2_2802a3db6c62_845d286b0d67",
        "1301,1302,1303,c02c,c02b,c024,c023,c00a,c009,cca9,c030,c02f,c028,c027,c014,c013,cca8,009d,009c,003d,003c,0035,002f,c008,c012,000a",
        "ff01,0000,0017,000d,0005,0012,0010,000b,0033,002d,002b,000a,0015",
        "0403,0804,0401,0503,0203,0805,0805,0501,0806,0601,0201",
    ),
];

/// A hello that says the rest as the head of its fingerprint tells it.
fn hello(head: &str, ciphers: &str, extensions: &str, schemes: &str) -> (ClientHello, Over) {
    let list = |text: &str| -> Vec<u16> {
        text.split(',').filter(|word| !word.is_empty()).map(|word| u16::from_str_radix(word, 16).unwrap()).collect()
    };
    let extensions = list(extensions);
    let version = match &head[1..3] {
        "13" => 0x0304,
        "12" => 0x0303,
        _ => 0x0301,
    };
    let hello = ClientHello {
        legacy_version: version.min(0x0303),
        cipher_suites: list(ciphers),
        supported_versions: extensions.contains(&extension::SUPPORTED_VERSIONS).then(|| vec![0x5a5a, 0x0303, version]),
        extensions,
        signature_schemes: list(schemes),
        alpn: match &head[8..10] {
            "h2" => b"h2".to_vec(),
            "h1" => b"http/1.1".to_vec(),
            _ => Vec::new(),
        },
    };
    (hello, if head.starts_with('q') { Over::Quic } else { Over::Tcp })
}

#[test]
fn the_published_examples_come_out() {
    for (ja4, ciphers, extensions, schemes) in PUBLISHED {
        let (hello, over) = hello(ja4, ciphers, extensions, schemes);
        assert_eq!(Fingerprint::of(&hello, over).ja4.as_str(), ja4);
        assert_eq!(Ja4::parse(ja4).unwrap().as_str(), ja4);
    }
}

#[test]
fn grease_is_not_there_and_the_order_of_ciphers_and_extensions_does_not_matter() {
    let (ja4, ciphers, extensions, schemes) = PUBLISHED[PUBLISHED.len() - 1];
    let (plain, over) = hello(ja4, ciphers, extensions, schemes);
    let mut other = plain.clone();
    other.cipher_suites.reverse();
    other.extensions.reverse();
    for list in [&mut other.cipher_suites, &mut other.extensions, &mut other.signature_schemes] {
        list.insert(0, 0x0a0a);
        list.push(0xfafa);
    }
    assert_eq!(Fingerprint::of(&other, over), Fingerprint::of(&plain, over));
    other.signature_schemes.reverse();
    assert_ne!(Fingerprint::of(&other, over), Fingerprint::of(&plain, over), "the order of schemes says something");
}

#[test]
fn a_resumed_session_has_the_same_stable_fingerprint() {
    let of = |extensions: &str| {
        let (hello, over) = hello("t13d1516h2", "1301,c02b", extensions, "0403");
        Fingerprint::of(&hello, over)
    };
    let (first, again) = (of("0000,0010,0023,002b,0033,0015"), of("0000,0010,002b,0033,0029"));
    assert_ne!(first.ja4, again.ja4);
    assert_eq!(first.stable, again.stable);
    assert_ne!(first.stable, first.ja4);
    assert_eq!(first.stable.hashes(), &first.stable.as_str()[11..]);
}

#[test]
fn the_ends_of_the_first_protocol_are_told_as_the_description_says() {
    for (protocol, told) in [
        (&b""[..], "00"),
        (b"h2", "h2"),
        (b"xmpp-client", "xt"),
        (b"a", "aa"),
        (b"\xab", "ab"),
        (b"\x20", "20"),
        (b"\xab\xcd", "ad"),
        (b"\x20\x61", "21"),
        (b"\x30\xab", "3b"),
        (b"\x61\x20", "60"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ] {
        assert_eq!(alpn(protocol), told, "{protocol:?}");
    }
}

#[test]
fn a_hello_of_nothing_has_zeros_and_more_than_99_are_99() {
    assert_eq!(Fingerprint::of(&ClientHello::default(), Over::Quic).ja4.as_str(), "q00i000000_000000000000_000000000000");
    let many = ClientHello { cipher_suites: (0..500).collect(), ..ClientHello::default() };
    assert!(Fingerprint::of(&many, Over::Tcp).ja4.as_str().starts_with("t00i990000_"));
}

#[test]
fn only_what_has_the_form_of_a_fingerprint_is_read_as_one() {
    assert!(Ja4::parse("t13d1516h2_8daaf6152771_e5627efa2ab1").is_some());
    for wrong in [
        "",
        "t13d1516h2",
        "t13d1516h2_8daaf6152771_e5627efa2ab",
        "t13d1516h2_8daaf6152771_e5627efa2ab11",
        "t13d1516h2-8daaf6152771_e5627efa2ab1",
        "t13d1516h2_8daaf6152771_E5627efa2ab1",
        "t13d1516h2_8daaf615277g_e5627efa2ab1",
        "t13d1516hä_8daaf6152771_e5627efa2ab",
    ] {
        assert_eq!(Ja4::parse(wrong), None, "{wrong}");
    }
}
