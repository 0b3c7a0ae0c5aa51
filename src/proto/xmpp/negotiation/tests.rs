use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::proto::xmpp::sasl::SaslCondition;
use crate::proto::xmpp::sasl::scram::ScramClient;

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='Example.ORG' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
const ANSWER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                      id='abababababababababababababababab' from='example.org' version='1.0' xml:lang='en'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const LOGIN_FEATURES: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256</mechanism>\
                              <mechanism>PLAIN</mechanism><mechanism>ANONYMOUS</mechanism></mechanisms></stream:features>";
const BIND_FEATURES: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session><sm xmlns='urn:xmpp:sm:3'/>\
                             <limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes></limits></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const ANONYMOUS: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>c2lk</auth>";
const BIND: &str = "<iq type='set' id='b&lt;1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>tele</resource></bind></iq>";
const BOUND: &str =
    "<iq type='result' id='b&lt;1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>g@example.org/tele</jid></bind></iq>";
const END: &str = "</stream:stream>";

fn settings() -> NegotiationSettings {
    let all = vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Anonymous];
    NegotiationSettings {
        domains: vec![("example.org".to_owned(), all), ("desk.example.org".to_owned(), vec![Mechanism::Plain])],
        attempts: 3,
        stream_management: true,
        resumption: false,
        salt_secret: [9; 32],
    }
}

fn start(transport: Transport) -> Negotiation {
    Negotiation::new(Arc::new(settings()), transport, Box::new(|| [0xab; 16]))
}

fn drain(negotiation: &mut Negotiation) -> (String, Option<Action>) {
    let mut text = String::new();
    while let Some(bytes) = negotiation.poll_output() {
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    let action = negotiation.poll_action();
    assert_eq!(negotiation.poll_action(), None, "one action at a time");
    (text, action)
}

fn say(negotiation: &mut Negotiation, text: &str) -> (String, Option<Action>) {
    negotiation.handle_bytes(text.as_bytes());
    drain(negotiation)
}

fn plain(message: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>", STANDARD.encode(message))
}

fn failure(inner: &str) -> String {
    format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{inner}</failure>")
}

fn error(condition: &str, text: &str) -> String {
    let text = if text.is_empty() { String::new() } else { format!("<text xmlns='{}' xml:lang='en'>{text}</text>", ns::STREAM_ERRORS) };
    format!("<stream:error><{condition} xmlns='{}'/>{text}</stream:error></stream:stream>", ns::STREAM_ERRORS)
}

fn closed(reason: &'static str) -> Option<Action> {
    Some(Action::Close { reason })
}

/// A stream that has logged in anonymously and is told the bind features.
fn logged_in(settings: NegotiationSettings) -> Negotiation {
    let mut negotiation = Negotiation::new(Arc::new(settings), Transport::Tls, Box::new(|| [0xab; 16]));
    let (_, action) = say(&mut negotiation, &format!("{OPEN}{ANONYMOUS}"));
    assert_eq!(action, Some(Action::Verify(Login::Anonymous { domain: "example.org".to_owned() })));
    negotiation.verdict(Ok(()));
    let (text, _) = say(&mut negotiation, OPEN);
    assert_eq!(text, format!("{SUCCESS}{ANSWER}{BIND_FEATURES}"));
    negotiation
}

fn bind_action() -> Option<Action> {
    Some(Action::Bind { domain: "example.org".to_owned(), user: String::new(), resource: Some("tele".to_owned()) })
}

#[test]
fn starttls_then_plain_then_bind() {
    let mut n = start(Transport::Plain);
    let starttls = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
    assert_eq!(say(&mut n, OPEN), (format!("{ANSWER}{starttls}"), None));
    let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_owned();
    assert_eq!(say(&mut n, &format!("{STARTTLS} \n")), (proceed, Some(Action::StartTls)));
    assert_eq!(say(&mut n, " \r\n"), (String::new(), None));
    n.tls_established();
    assert_eq!(say(&mut n, OPEN), (format!("{ANSWER}{LOGIN_FEATURES}"), None));
    let login = Login::Plain { domain: "example.org".to_owned(), user: "ann".to_owned(), password: "pw".to_owned() };
    assert_eq!(say(&mut n, &plain("ann@example.org\0ann\0pw")), (String::new(), Some(Action::Verify(login))));
    n.verdict(Ok(()));
    assert_eq!(drain(&mut n), (SUCCESS.to_owned(), None));
    assert_eq!(say(&mut n, OPEN), (format!("{ANSWER}{BIND_FEATURES}"), None));
    let bind = Action::Bind { domain: "example.org".to_owned(), user: "ann".to_owned(), resource: Some("tele".to_owned()) };
    assert_eq!(say(&mut n, BIND), (String::new(), Some(bind)));
    n.bound("g@example.org/tele");
    assert_eq!(drain(&mut n), (BOUND.to_owned(), Some(Action::Established)));
    let mut reader = n.into_reader();
    reader.push(format!("<message><body>{}</body></message>", "x".repeat(100_000)).as_bytes());
    assert!(matches!(reader.poll(), Ok(Some(ReadEvent::Stanza(_)))));
}

#[test]
fn a_peer_may_say_everything_at_once() {
    let mut n = start(Transport::Tls);
    let (text, action) = say(&mut n, &format!("{OPEN}{ANONYMOUS}{OPEN}{BIND}<presence/>"));
    assert_eq!(text, format!("{ANSWER}{LOGIN_FEATURES}"));
    assert!(matches!(action, Some(Action::Verify(_))));
    n.verdict(Ok(()));
    assert_eq!(drain(&mut n), (format!("{SUCCESS}{ANSWER}{BIND_FEATURES}"), bind_action()));
    n.bound("g@example.org/tele");
    assert_eq!(drain(&mut n), (BOUND.to_owned(), Some(Action::Established)));
    assert!(matches!(n.into_reader().poll(), Ok(Some(ReadEvent::Stanza(presence))) if presence.is("presence", ns::CLIENT)));
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut n = start(Transport::Tls);
    let mut text = String::new();
    for byte in format!("{OPEN}{ANONYMOUS}").bytes() {
        n.handle_bytes(&[byte]);
        while let Some(bytes) = n.poll_output() {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
    assert_eq!(text, format!("{ANSWER}{LOGIN_FEATURES}"));
    assert!(matches!(n.poll_action(), Some(Action::Verify(Login::Anonymous { .. }))));
}

fn scram(password: &str, keys: Option<ScramKeys>) -> (Negotiation, ScramClient, String, Option<Action>) {
    let mut n = start(Transport::Tls);
    let (mut client, first) = ScramClient::new("ann", password, "fyko+d2lbbFgONRv9qkxdawL");
    let auth = format!("<auth xmlns='{}' mechanism='SCRAM-SHA-256'>{}</auth>", ns::SASL, STANDARD.encode(first));
    let (_, action) = say(&mut n, &format!("{OPEN}{auth}"));
    assert_eq!(action, Some(Action::FindScramKeys { domain: "example.org".to_owned(), user: "ann".to_owned() }));
    n.scram_keys(keys);
    let (challenge, _) = drain(&mut n);
    let challenge = challenge.strip_prefix("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>").unwrap();
    let challenge = STANDARD.decode(challenge.strip_suffix("</challenge>").unwrap()).unwrap();
    let proof = client.prove(&challenge).unwrap();
    let (text, action) = say(&mut n, &format!("<response xmlns='{}'>{}</response>", ns::SASL, STANDARD.encode(proof)));
    (n, client, text, action)
}

#[test]
fn scram_proves_both_sides() {
    let (mut n, client, text, action) = scram("pencil", Some(ScramKeys::derive("pencil", b"salt", 16)));
    assert_eq!(action, None);
    let last = text.strip_prefix("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>").unwrap().strip_suffix("</success>").unwrap();
    assert!(client.is_server_genuine(&STANDARD.decode(last).unwrap()));
    let (_, action) = say(&mut n, &format!("{OPEN}{BIND}"));
    assert!(matches!(action, Some(Action::Bind { user, .. }) if user == "ann"));
}

#[test]
fn an_unknown_user_looks_like_a_wrong_password() {
    let expected = failure("<not-authorized/><text xml:lang='en'>User name or password is wrong.</text>");
    for keys in [Some(ScramKeys::derive("other", b"salt", 16)), None] {
        let (_, _, text, action) = scram("pencil", keys);
        assert_eq!((text, action), (expected.clone(), None));
    }
    let salt = |user: &str| ScramKeys::invented_salt(&[9; 32], "example.org", user);
    assert_eq!(salt("ann"), salt("ann"));
    assert_ne!(salt("ann"), salt("bob"));
}

#[test]
fn a_mechanism_without_a_first_message_is_asked_for_it() {
    let mut n = start(Transport::Tls);
    let (text, _) = say(&mut n, &format!("{OPEN}<auth xmlns='{}' mechanism='PLAIN'/>", ns::SASL));
    assert!(text.ends_with("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"), "{text}");
    let response = format!("<response xmlns='{}'>{}</response>", ns::SASL, STANDARD.encode("\0ann\0pw"));
    assert!(matches!(say(&mut n, &response).1, Some(Action::Verify(Login::Plain { .. }))));
}

#[test]
fn failed_logins_keep_the_stream_until_there_were_enough() {
    let mut n = start(Transport::Tls);
    let _features = say(&mut n, OPEN);
    let _verify = say(&mut n, &plain("\0ann\0pw"));
    n.verdict(Err(SaslFailure { condition: SaslCondition::CredentialsExpired, text: "Gone since <May>.".to_owned() }));
    let expected = failure("<credentials-expired/><text xml:lang='en'>Gone since &lt;May&gt;.</text>");
    assert_eq!(drain(&mut n), (expected, None));
    let abort = format!("<abort xmlns='{}'/>", ns::SASL);
    assert_eq!(say(&mut n, &abort), (failure("<aborted/>"), None));
    let (text, action) = say(&mut n, &abort);
    assert_eq!(text, failure("<aborted/>") + &error("policy-violation", "Too many login attempts."));
    assert_eq!(action, closed("too-many-attempts"));
    assert_eq!(say(&mut n, &plain("\0ann\0pw")), (String::new(), None));
}

#[test]
fn each_bad_login_has_its_condition() {
    let sasl = ns::SASL;
    let cases = [
        (format!("<auth xmlns='{sasl}' mechanism='DIGEST-MD5'>AA==</auth>"), "<invalid-mechanism/>"),
        (format!("<auth xmlns='{sasl}'>AA==</auth>"), "<invalid-mechanism/>"),
        (format!("<auth xmlns='{sasl}' mechanism='PLAIN'>A A=</auth>"), "<incorrect-encoding/>"),
        (format!("<auth xmlns='{sasl}' mechanism='PLAIN'>AGE\nA</auth>"), "<incorrect-encoding/>"),
        (format!("<auth xmlns='{sasl}' mechanism='PLAIN'>=</auth>"), "<malformed-request/>"),
        (plain("no zeros"), "<malformed-request/>"),
        (plain("bob\0ann\0pw"), "<invalid-authzid/>"),
        (format!("<auth xmlns='{sasl}' mechanism='SCRAM-SHA-256'>AA==</auth>"), "<malformed-request/>"),
    ];
    for (auth, condition) in cases {
        let mut n = start(Transport::Tls);
        let _features = say(&mut n, OPEN);
        let (text, action) = say(&mut n, &auth);
        assert!(text.contains(condition) && text.starts_with("<failure"), "{auth}: {text}");
        assert_eq!(action, None);
        assert!(matches!(say(&mut n, ANONYMOUS).1, Some(Action::Verify(_))), "the stream stays");
    }
}

#[test]
fn nothing_but_starttls_is_done_in_the_clear() {
    let mut n = start(Transport::Plain);
    let _features = say(&mut n, OPEN);
    let (text, _) = say(&mut n, &plain("\0ann\0pw"));
    assert_eq!(text, failure("<encryption-required/><text xml:lang='en'>Start TLS first.</text>"));
    let (text, action) = say(&mut n, BIND);
    assert_eq!((text, action), (error("not-authorized", "Start TLS first."), closed("not-authorized")));
}

#[test]
fn what_follows_starttls_in_the_clear_ends_the_stream() {
    let told = error("policy-violation", "Nothing may follow starttls in the clear.");
    let mut n = start(Transport::Plain);
    let (text, action) = say(&mut n, &format!("{OPEN}{STARTTLS}<a/>"));
    assert!(text.ends_with(&told) && !text.contains("proceed"), "{text}");
    assert_eq!(action, closed("bytes-after-starttls"));
    let mut n = start(Transport::Plain);
    let _proceed = say(&mut n, &format!("{OPEN}{STARTTLS}"));
    assert_eq!(say(&mut n, OPEN).1, closed("bytes-after-starttls"));
    n.tls_established();
    assert_eq!(drain(&mut n), (String::new(), None));
}

#[test]
fn starttls_inside_tls_fails() {
    let mut n = start(Transport::Tls);
    let _features = say(&mut n, OPEN);
    let (text, action) = say(&mut n, STARTTLS);
    assert_eq!((text, action), (format!("<failure xmlns='{}'/>{END}", ns::TLS), closed("starttls-inside-tls")));
}

#[test]
fn bad_headers_have_their_conditions() {
    let cases = [
        (OPEN.replace("Example.ORG", "elsewhere.org"), "host-unknown"),
        (OPEN.replace(" to='Example.ORG'", ""), "host-unknown"),
        (OPEN.replace(" version='1.0' xmlns", " xmlns"), "unsupported-version"),
        (OPEN.replace(" version='1.0' xmlns", " version='0.9' xmlns"), "unsupported-version"),
        (OPEN.replace(" version='1.0' xmlns", " version='+1.0' xmlns"), "unsupported-version"),
        (OPEN.replace("jabber:client", "jabber:server"), "invalid-namespace"),
        (OPEN.replace("http://etherx", "http://other"), "invalid-namespace"),
        ("\u{16}\u{3}\u{1}".to_owned(), "not-well-formed"),
        ("<!DOCTYPE a>".to_owned(), "restricted-xml"),
        (format!("<{}", "a".repeat(9000)), "policy-violation"),
    ];
    for (header, condition) in cases {
        let mut n = start(Transport::Tls);
        let (text, action) = say(&mut n, &header);
        assert_eq!(text, format!("{ANSWER}{}", error(condition, "")), "{header}");
        assert!(matches!(action, Some(Action::Close { reason }) if reason == condition));
    }
}

#[test]
fn a_lone_domain_needs_no_name_and_the_client_hears_its_own() {
    let mut alone = settings();
    alone.domains.truncate(1);
    let mut n = Negotiation::new(Arc::new(alone), Transport::Tls, Box::new(|| [0xab; 16]));
    let (text, _) = say(&mut n, &OPEN.replace("to='Example.ORG'", "from='a&apos;b@c'"));
    assert!(text.contains(" from='example.org' to='a&apos;b@c' ") && text.ends_with(LOGIN_FEATURES), "{text}");
}

#[test]
fn each_domain_has_its_own_mechanisms() {
    let mut n = start(Transport::Tls);
    let (text, _) = say(&mut n, &OPEN.replace("Example.ORG", "desk.example.org"));
    assert!(text.contains("<mechanism>PLAIN</mechanism></mechanisms>") && !text.contains("ANONYMOUS"), "{text}");
    assert!(say(&mut n, ANONYMOUS).0.contains("<invalid-mechanism/>"));
}

#[test]
fn a_login_does_not_carry_over_to_another_domain() {
    let mut n = start(Transport::Tls);
    let _verify = say(&mut n, &format!("{OPEN}{ANONYMOUS}"));
    n.verdict(Ok(()));
    let (text, action) = say(&mut n, &OPEN.replace("Example.ORG", "desk.example.org"));
    assert!(text.ends_with(&error("host-unknown", "")), "{text}");
    assert_eq!(action, closed("host-unknown"));
}

#[test]
fn stanzas_before_login_end_the_stream() {
    for stanza in ["<message/>", "<iq type='get' id='1'/>", "<resume xmlns='urn:xmpp:sm:3' h='1' previd='x'/>", "<auth/>"] {
        let mut n = start(Transport::Tls);
        let _features = say(&mut n, OPEN);
        assert_eq!(say(&mut n, stanza), (error("not-authorized", "Log in first."), closed("not-authorized")), "{stanza}");
    }
}

#[test]
fn before_bind_an_iq_gets_an_error_and_other_stanzas_end_the_stream() {
    let mut n = logged_in(settings());
    let refused = |id: &str, kind: &str, condition: &str| {
        format!("<iq type='error' id='{id}'><error type='{kind}'><{condition} xmlns='{}'/></error></iq>", ns::STANZA_ERRORS)
    };
    assert_eq!(say(&mut n, "<iq type='get' id='1'/>").0, refused("1", "cancel", "not-allowed"));
    assert_eq!(say(&mut n, "<iq type='result' id='1'/>").0, "");
    assert_eq!(say(&mut n, &BIND.replace("tele", "a&#9;b")).0, refused("b&lt;1", "modify", "bad-request"));
    assert_eq!(say(&mut n, "<message/>"), (error("not-authorized", "Bind a resource first."), closed("not-authorized")));
    let mut n = logged_in(settings());
    assert_eq!(say(&mut n, "<x xmlns='u'/>").1, closed("unsupported-stanza-type"));
    let mut n = logged_in(settings());
    assert_eq!(say(&mut n, &"<iq type='get' id='1'/>".repeat(17)).1, closed("policy-violation"));
}

#[test]
fn resumption_is_refused_where_it_is_not_supported() {
    let mut n = logged_in(settings());
    let failed = |condition: &str| format!("<failed xmlns='urn:xmpp:sm:3'><{condition} xmlns='{}'/></failed>", ns::STANZA_ERRORS);
    assert_eq!(say(&mut n, "<resume xmlns='urn:xmpp:sm:3' h='1' previd='x'/>"), (failed("item-not-found"), None));
    assert_eq!(say(&mut n, "<resume xmlns='urn:xmpp:sm:3' h='-1' previd='x'/>"), (failed("bad-request"), None));
    assert_eq!(say(&mut n, "<enable xmlns='urn:xmpp:sm:3'/>"), (failed("unexpected-request"), None));
    assert_eq!(say(&mut n, BIND), (String::new(), bind_action()));
}

#[test]
fn resumption_is_the_shells_to_judge_where_it_is_supported() {
    let resume = "<resume xmlns='urn:xmpp:sm:3' h='7' previd='x'/>";
    let asked = || {
        let mut n = logged_in(NegotiationSettings { resumption: true, ..settings() });
        let (text, action) = say(&mut n, &format!("{resume}<presence/>"));
        assert_eq!(text, "");
        let (domain, user) = ("example.org".to_owned(), String::new());
        assert_eq!(action, Some(Action::Resume { domain, user, previd: "x".to_owned(), h: 7 }));
        n
    };
    let mut n = asked();
    n.resume_accepted("<resumed/>");
    assert_eq!(drain(&mut n), ("<resumed/>".to_owned(), Some(Action::Established)));
    assert!(matches!(n.into_reader().poll(), Ok(Some(ReadEvent::Stanza(_)))));
    let mut n = asked();
    n.resume_refused();
    let (text, action) = drain(&mut n);
    assert!(text.starts_with("<failed xmlns='urn:xmpp:sm:3'><item-not-found"), "{text}");
    assert_eq!(action, closed("not-authorized"), "the pipelined presence is now before bind");
}

#[test]
fn the_client_may_leave_at_any_time_and_so_may_we() {
    let mut n = start(Transport::Tls);
    assert_eq!(say(&mut n, &format!("{OPEN}{END}")), (format!("{ANSWER}{LOGIN_FEATURES}{END}"), closed("client-closed")));
    let mut n = start(Transport::Tls);
    n.end("connection-timeout", "Too slow.");
    assert_eq!(drain(&mut n), (format!("{ANSWER}{}", error("connection-timeout", "Too slow.")), closed("connection-timeout")));
    n.end("system-shutdown", "");
    assert_eq!(drain(&mut n), (String::new(), None));
}

#[test]
fn a_flood_behind_an_unanswered_question_ends_the_stream() {
    let mut n = start(Transport::Tls);
    let _verify = say(&mut n, &format!("{OPEN}{ANONYMOUS}"));
    for _ in 0..MAX_WAITING / 1024 {
        n.handle_bytes(&[b' '; 1024]);
    }
    assert_eq!(drain(&mut n), (String::new(), None));
    assert_eq!(say(&mut n, "x").1, closed("policy-violation"));
}

#[test]
fn secrets_are_not_shown() {
    let mut n = start(Transport::Tls);
    let (_, action) = say(&mut n, &format!("{OPEN}{}", plain("\0ann\0s3cret")));
    assert!(!format!("{action:?} {n:?} {:?}", settings()).contains("s3cret"));
    assert!(!format!("{:?}", settings()).contains("9, 9"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_logs_in_and_ends_at_most_once(scraps in prop::collection::vec(prop::sample::select(vec![
        OPEN, STARTTLS, ANONYMOUS, BIND, END, "<presence/>", " ", "<", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>",
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>=</response>", "<resume xmlns='urn:xmpp:sm:3' h='7' previd='x'/>",
    ]), 0..12), plain in any::<bool>()) {
        let mut n = start(if plain { Transport::Plain } else { Transport::Tls });
        let mut ends = 0;
        for scrap in scraps {
            n.handle_bytes(scrap.as_bytes());
            while let Some(action) = n.poll_action() {
                match action {
                    Action::StartTls => n.tls_established(),
                    Action::Verify(_) => n.verdict(Err(SaslFailure { condition: SaslCondition::NotAuthorized, text: String::new() })),
                    Action::FindScramKeys { .. } => n.scram_keys(None),
                    Action::Bind { .. } | Action::Resume { .. } | Action::Established => prop_assert!(false, "let in"),
                    Action::Close { .. } => ends += 1,
                }
            }
        }
        prop_assert!(ends <= 1);
    }

    #[test]
    fn a_damaged_stream_is_answered_alike_in_any_pieces(at in any::<prop::sample::Index>(), byte in any::<u8>(), size in 1..40_usize) {
        let mut text = format!("{OPEN}{}{OPEN}<iq type='get' id='1'/>{BIND}<presence/>", plain("\0ann\0pw")).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        prop_assert_eq!(talk(&text, text.len()), talk(&text, size));
    }
}

/// What a shell that lets everybody in writes and closes with, when bytes come in pieces of `size`.
fn talk(text: &[u8], size: usize) -> (String, Option<&'static str>) {
    let mut n = start(Transport::Tls);
    let mut output = Vec::new();
    let mut reason = None;
    for piece in text.chunks(size) {
        n.handle_bytes(piece);
        while let Some(action) = n.poll_action() {
            match action {
                Action::StartTls => n.tls_established(),
                Action::Verify(_) => n.verdict(Ok(())),
                Action::FindScramKeys { .. } => n.scram_keys(None),
                Action::Bind { .. } => n.bound("ann@example.org/tele"),
                Action::Resume { .. } => n.resume_refused(),
                Action::Established => reason = Some("established"),
                Action::Close { reason: why } => reason = Some(why),
            }
        }
        output.extend(std::iter::from_fn(|| n.poll_output()).flatten());
    }
    (String::from_utf8(output).unwrap(), reason)
}
