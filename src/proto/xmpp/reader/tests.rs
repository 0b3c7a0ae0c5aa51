use proptest::prelude::*;

use super::*;
use crate::proto::xmpp::ns;

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xml:lang='en' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

type Outcome = (Vec<ReadEvent>, Option<StreamFault>);

fn read(limits: ReaderLimits, pieces: &[&[u8]]) -> Outcome {
    let mut reader = Reader::new(limits);
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.poll() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
    }
    (events, None)
}

fn whole(text: &[u8]) -> Outcome {
    read(AFTER_LOGIN, &[text])
}

fn bytewise(text: &[u8]) -> Outcome {
    let pieces: Vec<&[u8]> = text.chunks(1).collect();
    read(AFTER_LOGIN, &pieces)
}

fn after_header(text: &str) -> Outcome {
    let text = format!("{HEADER}{text}");
    let outcome = whole(text.as_bytes());
    assert_eq!(outcome, bytewise(text.as_bytes()), "split by byte: {text}");
    outcome
}

fn only_stanza(text: &str) -> Element {
    match after_header(text) {
        (events, None) => match events.into_iter().nth(1) {
            Some(ReadEvent::Stanza(element)) => element,
            other => panic!("no stanza: {other:?}"),
        },
        (_, Some(fault)) => panic!("{fault}"),
    }
}

#[test]
fn a_stream_is_header_stanzas_and_end() {
    let (events, fault) = after_header(" \n<presence/>\n<message to='q@x'><body>hi</body></message> </stream:stream>ignored");
    assert_eq!(fault, None);
    let [ReadEvent::StreamOpen(header), ReadEvent::Stanza(presence), ReadEvent::Stanza(message), ReadEvent::StreamClose] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(header.attribute("to"), Some("example.org"));
    assert_eq!(header.attribute("version"), Some("1.0"));
    assert_eq!(header.attribute("xml:lang"), Some("en"));
    assert!(presence.is("presence", ns::CLIENT));
    assert_eq!(message.child("body", ns::CLIENT).map(Element::text).as_deref(), Some("hi"));
}

#[test]
fn whitespace_and_a_missing_declaration_before_the_header_are_forgiven() {
    let text = format!(" \r\n{}", HEADER.trim_start_matches("<?xml version='1.0'?>"));
    assert!(matches!(&whole(text.as_bytes()), (events, None) if events.len() == 1));
}

#[test]
fn a_header_that_closes_itself_is_a_stream_that_ends() {
    let text = HEADER.replace("streams'>", "streams'/>junk");
    for outcome in [whole(text.as_bytes()), bytewise(text.as_bytes())] {
        assert!(matches!(&outcome.0[..], [ReadEvent::StreamOpen(_), ReadEvent::StreamClose]), "{outcome:?}");
        assert_eq!(outcome.1, None);
    }
}

#[test]
fn after_the_end_and_after_a_fault_nothing_new_is_told() {
    let mut reader = Reader::new(BEFORE_LOGIN);
    reader.push(b"<!DOCTYPE");
    assert_eq!(reader.poll(), Err(StreamFault::RestrictedXml));
    reader.push(HEADER.as_bytes());
    assert_eq!(reader.poll(), Err(StreamFault::RestrictedXml));
    assert_eq!(reader.unread(), 0);
    let mut reader = Reader::new(BEFORE_LOGIN);
    reader.push(format!("{HEADER}</stream:stream>").as_bytes());
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::StreamOpen(_)))));
    assert_eq!(reader.poll(), Ok(Some(ReadEvent::StreamClose)));
    reader.push(b"<!DOCTYPE");
    assert_eq!(reader.poll(), Ok(None));
}

#[test]
fn namespaces_are_resolved_not_believed() {
    let m = only_stanza("<a:message xmlns:a='jabber:client' xmlns='urn:x'><body/><a:body a:lang='z' xml:lang='de'>t</a:body></a:message>");
    assert!(m.is("message", ns::CLIENT));
    assert!(m.child("body", "urn:x").is_some());
    let body = m.child("body", ns::CLIENT).unwrap();
    assert_eq!((body.attribute("lang"), body.attribute("a:lang"), body.attribute("xml:lang")), (None, None, Some("de")));
    let rebound = only_stanza("<stream:message xmlns:stream='urn:y'/>");
    assert!(rebound.is("message", "urn:y"));
    let bare = only_stanza("<message xmlns=''/>");
    assert!(bare.is("message", ""));
    let scoped = only_stanza("<message><x xmlns='urn:z'/><y/></message>");
    assert!(scoped.child("y", ns::CLIENT).is_some());
}

#[test]
fn text_is_joined_over_references_cdata_and_long_bodies() {
    let m = only_stanza("<message><body>a&lt;b<![CDATA[<c>]]>&#x64;\r\ne</body></message>");
    assert_eq!(m.child("body", ns::CLIENT).unwrap().text(), "a<b<c>d\ne");
    let long = "ü&amp;".repeat(16 * 1024 / 3) + &"x".repeat(32 * 1024);
    let m = only_stanza(&format!("<message><body>{long}</body></message>"));
    assert_eq!(m.child("body", ns::CLIENT).unwrap().text(), long.replace("&amp;", "&"));
}

#[test]
fn hostile_streams_end_with_the_right_error() {
    use StreamFault::*;
    let long_name = "n".repeat(9000);
    let long_ns = "u".repeat(300);
    let many = (0..65).map(|n| format!(" a{n}=''")).collect::<String>();
    let deep = "<a>".repeat(33);
    let scopes = "<a".to_owned() + &(0..60).map(|n| format!(" xmlns:p{n}='u'")).collect::<String>() + ">";
    let cases: &[(&str, StreamFault)] = &[
        ("<!DOCTYPE x>", RestrictedXml),
        ("<!ENTITY x 'y'>", RestrictedXml),
        ("<!-- c -->", RestrictedXml),
        ("<?php x?>", RestrictedXml),
        ("<?xml version='1.0'?>", RestrictedXml),
        ("<?xml-stylesheet href='x'?>", RestrictedXml),
        ("<a><!-- c --></a>", RestrictedXml),
        ("<a><?pi?></a>", RestrictedXml),
        ("<a>&lol;</a>", RestrictedXml),
        ("<a b='&lol;'/>", RestrictedXml),
        ("hello", BadFormat),
        ("&#32;", BadFormat),
        ("<![CDATA[ ]]>", BadFormat),
        ("<a></b>", NotWellFormed),
        ("</a>", NotWellFormed),
        ("<a><b></a></b>", NotWellFormed),
        ("<a b=c/>", NotWellFormed),
        ("<a b='1' b='2'/>", NotWellFormed),
        ("<a b/>", NotWellFormed),
        ("<p:a/>", NotWellFormed),
        ("<a p:b=''/>", NotWellFormed),
        ("<a xmlns:p='u' xmlns:q='u' p:x='' q:x=''/>", NotWellFormed),
        ("<a xmlns='u' xmlns='v'/>", NotWellFormed),
        ("<a xmlns:p='u' xmlns:p='u'/>", NotWellFormed),
        ("<a xmlns:p=''/>", NotWellFormed),
        ("<a xmlns:xmlns='u'/>", NotWellFormed),
        ("<a xmlns:p='http://www.w3.org/2000/xmlns/'/>", NotWellFormed),
        ("<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", NotWellFormed),
        ("<a xmlns:xml='u'/>", NotWellFormed),
        ("<a:b:c xmlns:a='u'/>", NotWellFormed),
        ("<:a/>", NotWellFormed),
        ("<1a/>", NotWellFormed),
        ("<a>\u{1}</a>", NotWellFormed),
        ("<a>\u{0}</a>", NotWellFormed),
        ("<a>&#0;</a>", NotWellFormed),
        ("<a>&#xd800;</a>", NotWellFormed),
        ("<a>\u{ffff}</a>", NotWellFormed),
        ("<a>]]></a>", NotWellFormed),
        ("<a b='<'/>", NotWellFormed),
        ("< a/>", NotWellFormed),
        ("<a>&;</a>", NotWellFormed),
        (&format!("<{long_name}/>"), PolicyViolation),
        (&format!("<a b='{long_name}'/>"), PolicyViolation),
        (&format!("<a xmlns='{long_ns}'/>"), PolicyViolation),
        (&format!("<a{many}/>"), PolicyViolation),
        (&deep, PolicyViolation),
        (&scopes.repeat(3), PolicyViolation),
    ];
    for (text, fault) in cases {
        let shown: String = text.chars().take(60).collect();
        assert_eq!(after_header(text).1, Some(*fault), "{shown}");
    }
}

#[test]
fn broken_encodings_are_named_as_such() {
    for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\x80"] {
        let mut text = format!("{HEADER}<a>").into_bytes();
        text.extend_from_slice(bad);
        text.extend_from_slice(b"</a>");
        for outcome in [whole(&text), bytewise(&text)] {
            assert_eq!(outcome.1, Some(StreamFault::UnsupportedEncoding), "{bad:x?}");
        }
    }
    assert_eq!(whole(b"\xff\xfe<\0").1, Some(StreamFault::UnsupportedEncoding));
    assert_eq!(whole(b"<?xml version='1.0' encoding='latin-1'?>").1, Some(StreamFault::UnsupportedEncoding));
}

#[test]
fn what_is_no_stream_is_refused_at_its_root() {
    use StreamFault::*;
    let cases: &[(&str, StreamFault)] = &[
        ("GET / HTTP/1.1\r\n", NotWellFormed),
        ("\u{feff}<a/>", NotWellFormed),
        ("<?xml version='1.1'?>", RestrictedXml),
        ("<?xml version='1.0' encoding='UTF-8' standalone='no'?>", RestrictedXml),
        ("<!DOCTYPE stream [<!ENTITY a 'b'>]>", RestrictedXml),
        ("<?xml version='1.0'?><?xml version='1.0'?>", RestrictedXml),
        ("<stream/>", InvalidNamespace),
        ("<stream xmlns='http://etherx.jabber.org/streams'>", InvalidNamespace),
        ("<s:stream xmlns:s='urn:x' xmlns='jabber:client'>", InvalidNamespace),
        ("<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:server'>", InvalidNamespace),
        ("<s:strean xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client'>", BadFormat),
    ];
    for (text, fault) in cases {
        assert_eq!(whole(text.as_bytes()).1, Some(*fault), "{text}");
        assert_eq!(bytewise(text.as_bytes()).1, Some(*fault), "byte by byte: {text}");
    }
}

#[test]
fn each_limit_allows_itself_and_not_one_more() {
    let limits = ReaderLimits { stanza_bytes: 300, elements: 5, depth: 3, attributes: 5 };
    let try_one = |text: &str| {
        let text = format!("{HEADER}{text}");
        let outcome = read(limits, &[text.as_bytes()]);
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(outcome, read(limits, &pieces));
        outcome.1
    };
    let sized = |bytes: usize| format!("<a>{}</a>", "x".repeat(bytes - 7));
    assert_eq!(try_one(&sized(300)), None);
    assert_eq!(try_one(&sized(301)), Some(StreamFault::PolicyViolation));
    assert_eq!(try_one(&format!("{}{}", sized(300), sized(300))), None);
    assert_eq!(try_one("<a><b/><b/><b/><b/></a>"), None);
    assert_eq!(try_one("<a><b/><b/><b/><b/><b/></a>"), Some(StreamFault::PolicyViolation));
    assert_eq!(try_one("<a><b><c/></b></a>"), None);
    assert_eq!(try_one("<a><b><c><d/></c></b></a>"), Some(StreamFault::PolicyViolation));
    assert_eq!(try_one("<a b='' c='' d='' e='' xmlns='u'/>"), None);
    assert_eq!(try_one("<a b='' c='' d='' e='' f='' xmlns='u'/>"), Some(StreamFault::PolicyViolation));
    assert_eq!(try_one(&" ".repeat(5000)), None);
    let header = ReaderLimits { stanza_bytes: HEADER.len() - 1, ..limits };
    assert_eq!(read(header, &[HEADER.as_bytes()]).1, Some(StreamFault::PolicyViolation));
    let header = ReaderLimits { stanza_bytes: HEADER.len(), ..limits };
    assert_eq!(read(header, &[HEADER.as_bytes()]).1, None);
}

#[test]
fn new_limits_hold_from_the_next_element_on() {
    let mut reader = Reader::new(BEFORE_LOGIN);
    reader.push(HEADER.as_bytes());
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::StreamOpen(_)))));
    assert_eq!(reader.poll(), Ok(None));
    assert!(!reader.is_inside_element());
    reader.push(b"<a>");
    assert_eq!(reader.poll(), Ok(None));
    assert!(reader.is_inside_element());
    reader.set_limits(AFTER_LOGIN);
    reader.push(&b"x".repeat(9000));
    assert_eq!(reader.poll(), Err(StreamFault::PolicyViolation));
}

#[test]
fn an_idle_reader_holds_little_memory() {
    let mut reader = Reader::new(AFTER_LOGIN);
    reader.push(format!("{HEADER}<message><body>{}</body></message>", "x".repeat(60_000)).as_bytes());
    while let Ok(Some(_)) = reader.poll() {}
    reader.push(&[b' '; 4096]);
    assert_eq!(reader.poll(), Ok(None));
    assert_eq!((reader.unread.capacity(), reader.taken), (0, 0));
    assert!(size_of::<Reader>() < 1024, "{}", size_of::<Reader>());
}

#[test]
fn restart_tells_what_was_smuggled_behind_starttls() {
    let mut reader = Reader::new(BEFORE_LOGIN);
    reader.push(format!("{HEADER}<starttls xmlns='{}'/> \n", ns::TLS).as_bytes());
    let _header = reader.poll();
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::Stanza(_)))));
    assert_eq!(reader.restart(), 0);
    reader.push(format!("{HEADER}<starttls xmlns='{}'/> <a/>", ns::TLS).as_bytes());
    let _header = reader.poll();
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::Stanza(_)))));
    assert_eq!(reader.restart(), 4);
}

#[test]
fn a_pipelined_stream_survives_the_restart() {
    let mut reader = Reader::new(BEFORE_LOGIN);
    reader.push(format!("{HEADER}<auth/>{HEADER}<iq/>").as_bytes());
    let _header = reader.poll();
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::Stanza(_)))));
    reader.restart_keeping();
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::StreamOpen(_)))));
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::Stanza(_)))));
    assert_eq!(reader.poll(), Ok(None));
}

fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(vec![
        "<a>",
        "</a>",
        "<a/>",
        "<message>",
        "</message>",
        "<body>",
        "</body>",
        "x",
        "é",
        " ",
        "\n",
        "\r",
        "&amp;",
        "&lt;",
        "&#x41;",
        "<![CDATA[",
        "]]>",
        "]",
        "<b xmlns='u'>",
        "</b>",
        "<p:c xmlns:p='v' p:d='1' e=\"2\"/>",
        "<a xml:lang='x'/>",
        "<",
        ">",
        "'",
        "&",
        "<!--",
        "<?",
        "-->",
        "</stream:stream>",
        "\u{1}",
        "<q:r/>",
        "xmlns",
        "=",
    ]);
    prop::collection::vec(scrap, 0..24).prop_map(|scraps| scraps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_events(text in scraps(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let text = format!("{HEADER}{text}").into_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        at.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for to in at {
            pieces.push(&text[from..to]);
            from = to;
        }
        pieces.push(&text[from..]);
        let expected = whole(&text);
        prop_assert_eq!(&expected, &read(AFTER_LOGIN, &pieces));
        prop_assert_eq!(&expected, &bytewise(&text));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut text = HEADER.as_bytes().to_vec();
        text.extend_from_slice(&bytes);
        prop_assert_eq!(whole(&text), bytewise(&text));
        prop_assert_eq!(whole(&bytes), bytewise(&bytes));
    }

    #[test]
    fn what_is_written_is_read_back(text in "[ -~é\n\t\r]{0,40}", value in "[ -~ü\n]{0,20}") {
        let element = Element::new("message", ns::CLIENT).with_attribute("id", value).with_child(Element::new("x", "urn:x").with_text(text.clone()));
        let read = only_stanza(&element.to_xml());
        prop_assert_eq!(read.attribute("id"), element.attribute("id"));
        prop_assert_eq!(read.child("x", "urn:x").map(Element::text), Some(text));
    }

    #[test]
    fn namespaces_agree_with_the_tokenizers_own_resolver(text in scraps()) {
        let text = format!("{HEADER}{text}").into_bytes();
        let (events, fault) = whole(&text);
        let mut parser = rxml::Parser::new();
        let mut theirs = Vec::new();
        let mut rest = &text[..];
        let theirs_fail = loop {
            match parser.parse(&mut rest, false) {
                Ok(Some(rxml::Event::StartElement(_, (namespace, name), _))) => theirs.push((namespace.to_string(), name.to_string())),
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(rxml::error::EndOrError::NeedMoreData) => break false,
                Err(rxml::error::EndOrError::Error(_)) => break true,
            }
        };
        fn names(element: &Element, out: &mut Vec<(String, String)>) {
            out.push((element.namespace().to_owned(), element.name().to_owned()));
            element.elements().for_each(|child| names(child, out));
        }
        let mut ours = Vec::new();
        for event in &events {
            if let ReadEvent::StreamOpen(element) | ReadEvent::Stanza(element) = event {
                names(element, &mut ours);
            }
        }
        prop_assert!(theirs.starts_with(&ours), "{ours:?} against {theirs:?}");
        let closed = events.last() == Some(&ReadEvent::StreamClose);
        prop_assert!(!theirs_fail || closed || fault.is_some(), "the tokenizer refuses what the reader takes");
    }
}
