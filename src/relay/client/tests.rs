//! Every duty of a customer's stream, on a virtual clock.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test picks out the one kind it asks about")]

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;

use super::*;
use crate::fingerprint::{ClientSoftware, Denial};
use crate::im::ChatState;
use crate::proto::tunnel::RefusalCode;

const DOMAIN: &str = "chat.example";
const QUEUE: &str = "billing@chat.example";
const DESK: &str = "billing@chat.example/desk";
const GUEST: &str = "guest-1@chat.example/phone";
const SESSION: SessionKey = SessionKey(7);

#[test]
fn the_queue_shows_itself_after_the_clients_initial_presence() {
    let mut rig = Rig::bound();
    rig.stanza(&presence());
    let output = rig.output();
    assert!(output.contains(&format!("<presence from='{DESK}' to='{GUEST}'/>")), "{output}");
    rig.pass(Duration::from_secs(5));
    assert!(!rig.output().contains("<presence"));
}

#[test]
fn the_queue_shows_itself_to_a_client_that_sends_no_presence_after_a_second() {
    let mut rig = Rig::bound();
    rig.pass(Duration::from_millis(990));
    assert!(!rig.output().contains("<presence"));
    rig.pass(Duration::from_millis(20));
    assert!(rig.output().contains("<presence"));
}

#[test]
fn presence_is_told_to_the_lan_when_it_changes() {
    let mut rig = Rig::bound();
    rig.stanza(&presence());
    rig.stanza(&presence());
    rig.stanza(&presence().with_child(Element::new("show", ns::CLIENT).with_text("away")));
    let events = rig.sent_events();
    assert_eq!(events, [ImEvent::Presence(Availability::Available), ImEvent::Presence(Availability::Away)]);
}

#[test]
fn the_software_is_asked_once_from_the_queues_address_and_its_answer_sent_inwards() {
    let mut rig = Rig::bound();
    rig.stanza(&presence());
    let output = rig.output();
    let question = between(&output, "<iq", "</iq>");
    assert!(question.contains(ns::VERSION) && question.contains(&format!("from='{QUEUE}'")), "{output}");
    let id = attribute(&question, "id");
    let query = Element::new("query", ns::VERSION)
        .with_child(Element::new("name", ns::VERSION).with_text("Profanity"))
        .with_child(Element::new("version", ns::VERSION).with_text("0.13.1"));
    rig.stanza(&answer("result", QUEUE, &id).with_child(query));
    let software = rig.sent_software();
    assert_eq!(software.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Profanity 0.13.1"]);
    rig.pass(Duration::from_secs(60));
    assert!(!rig.output().contains(ns::VERSION));
}

#[test]
fn software_that_is_denied_ends_its_stream_with_the_sentence_and_the_session_too() {
    let mut rig = Rig::bound();
    rig.stanza(&presence());
    let question = between(&rig.output(), "<iq", "</iq>");
    let query = Element::new("query", ns::VERSION)
        .with_child(Element::new("name", ns::VERSION).with_text("Chatty"))
        .with_child(Element::new("version", ns::VERSION).with_text("1.2.9"));
    rig.stanza(&answer("result", QUEUE, &attribute(&question, "id")).with_child(query));
    assert_eq!(rig.client.poll_over(), Some("client-denied"));
    let output = rig.output();
    assert!(output.contains("policy-violation") && output.contains("Please update Chatty."), "{output}");
    assert!(rig.commands().iter().any(|command| matches!(command, RelayCommand::Finish { .. })));
}

#[test]
fn a_client_that_sends_no_presence_is_asked_a_second_after_bind_and_its_silence_told_as_unknown() {
    let mut rig = Rig::bound();
    rig.pass(Duration::from_millis(990));
    assert!(!rig.output().contains(ns::VERSION));
    rig.pass(Duration::from_millis(20));
    assert!(rig.output().contains(ns::VERSION));
    rig.pass(Duration::from_millis(1500));
    assert_eq!(rig.sent_software(), [ClientSoftware::unknown()]);
}

#[test]
fn a_message_to_the_queue_goes_inwards_rebuilt() {
    let mut rig = Rig::bound();
    rig.stanza(&message(QUEUE, "m1", "hello").with_child(Element::new("evil", "urn:example:evil")));
    rig.stanza(&message(DESK, "m2", "again"));
    assert_eq!(rig.sent_bodies(), ["hello", "again"]);
    assert_eq!(rig.client.take_dropped(), 1);
    assert_eq!(rig.output(), "");
}

#[test]
fn a_message_to_anybody_else_is_refused_and_goes_nowhere() {
    let mut rig = Rig::bound();
    rig.stanza(&message("other@chat.example", "m1", "psst"));
    let output = rig.output();
    assert!(output.contains("item-not-found") && output.contains("id='m1'"), "{output}");
    assert!(rig.commands().is_empty());
}

#[test]
fn a_message_of_another_kind_is_refused_and_an_error_is_not_answered() {
    let mut rig = Rig::bound();
    rig.stanza(&message(QUEUE, "m1", "all").with_attribute("type", "groupchat"));
    assert!(rig.output().contains("not-acceptable"));
    rig.stanza(&message(QUEUE, "m2", "no").with_attribute("type", "error"));
    assert_eq!(rig.output(), "");
    assert!(rig.commands().is_empty());
}

#[test]
fn a_body_too_large_for_one_event_is_refused_with_a_sentence() {
    let mut rig = Rig::bound();
    rig.stanza(&message(QUEUE, "m1", &"x".repeat(MAX_EVENT_BYTES + 1)));
    let output = rig.output();
    assert!(output.contains("not-acceptable") && output.contains("too long"), "{output}");
    assert!(rig.commands().is_empty());
}

#[test]
fn the_count_towards_the_client_grows_only_with_the_connectors_marks() {
    let mut rig = Rig::bound();
    rig.stanza(&message(QUEUE, "before", "not counted"));
    rig.stanza(&sm("enable"));
    assert_eq!(rig.output(), format!("<enabled xmlns='{}'/>", ns::STREAM_MANAGEMENT));
    rig.stanza(&message(QUEUE, "m1", "one"));
    rig.stanza(&ping("p1"));
    rig.stanza(&sm("r"));
    let output = rig.output();
    assert!(output.contains("<a xmlns='urn:xmpp:sm:3' h='0'/>") && output.contains("id='p1'"), "{output}");
    rig.handled(1);
    assert_eq!(rig.output(), "", "a mark for what was not counted tells nothing");
    rig.handled(2);
    assert!(rig.output().contains("<a xmlns='urn:xmpp:sm:3' h='2'/>"), "message and the ping behind it");
}

#[test]
fn an_event_without_a_stanza_moves_no_count() {
    let mut rig = Rig::bound();
    rig.stanza(&sm("enable"));
    rig.pass(Duration::from_millis(2510));
    assert_eq!(rig.sent_software().len(), 1);
    rig.output();
    rig.stanza(&message(QUEUE, "m1", "one"));
    rig.handled(1);
    assert_eq!(rig.output(), "");
    rig.handled(2);
    assert!(rig.output().contains("h='1'"));
}

#[test]
fn stream_management_is_enabled_once_and_never_resumed_here() {
    let mut rig = Rig::bound();
    rig.stanza(&sm("enable").with_attribute("resume", "true"));
    assert!(!rig.output().contains("resume"));
    rig.stanza(&sm("enable"));
    assert!(rig.output().contains("unexpected-request"));
    rig.stanza(&sm("r").with_attribute("x", "y"));
    assert!(rig.output().contains("<a "));
}

#[test]
fn an_answer_of_the_client_confirms_what_it_counts() {
    let mut rig = Rig::managed();
    rig.data(1, &text("first"));
    rig.data(2, &text("second"));
    assert!(!rig.output().contains("<r "));
    rig.pass(Duration::from_secs(1));
    assert!(rig.output().contains("<r xmlns='urn:xmpp:sm:3'/>"));
    rig.stanza(&sm("a").with_attribute("h", "1"));
    assert_eq!(rig.proofs(), [(1, Proof::Confirmed)]);
    rig.stanza(&sm("a").with_attribute("h", "2"));
    assert_eq!(rig.proofs(), [(2, Proof::Confirmed)]);
}

#[test]
fn stanzas_of_our_own_are_counted_too() {
    let mut rig = Rig::managed();
    rig.stanza(&ping("p1"));
    rig.data(1, &text("first"));
    rig.stanza(&sm("a").with_attribute("h", "1"));
    assert_eq!(rig.proofs(), []);
    rig.stanza(&sm("a").with_attribute("h", "2"));
    assert_eq!(rig.proofs(), [(1, Proof::Confirmed)]);
}

#[test]
fn an_answer_above_what_was_sent_ends_the_stream() {
    let mut rig = Rig::managed();
    rig.stanza(&sm("a").with_attribute("h", "9"));
    assert!(rig.output().contains("undefined-condition"));
    assert_eq!(rig.client.poll_over(), Some("handled-count-too-high"));
    assert_eq!(rig.ends(), [CloseReason::CustomerLost]);
}

#[test]
fn a_client_that_acknowledges_nothing_for_ever_is_ended() {
    let mut rig = Rig::managed();
    for number in 0..1100 {
        rig.stanza(&ping(&number.to_string()));
    }
    assert_eq!(rig.client.poll_over(), Some("unacknowledged"));
}

#[test]
fn without_stream_management_an_answered_ping_confirms_all_before_it() {
    let mut rig = Rig::bound();
    rig.data(1, &text("first"));
    rig.data(2, &text("second"));
    rig.pass(Duration::from_secs(1));
    let output = rig.output();
    let barrier = attribute(&between(&output, "<iq", "</iq>"), "id");
    assert_eq!(output.matches(ns::PING).count(), 1);
    rig.data(3, &text("third"));
    rig.pass(Duration::from_secs(1));
    assert!(!rig.output().contains(ns::PING), "at most one question is open");
    rig.stanza(&answer("result", DOMAIN, "guess"));
    assert_eq!(rig.proofs(), []);
    rig.stanza(&answer("error", DOMAIN, &barrier));
    assert_eq!(rig.proofs(), [(2, Proof::Confirmed)]);
    rig.pass(Duration::from_secs(1));
    assert!(rig.output().contains(ns::PING), "the third is asked about next");
}

#[test]
fn a_client_that_answers_nothing_for_thirty_seconds_gets_written() {
    let mut rig = Rig::bound();
    rig.data(1, &text("first"));
    rig.pass(Duration::from_secs(29));
    rig.output();
    assert_eq!(rig.proofs(), []);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.proofs(), [(1, Proof::Written)]);
    rig.data(2, &text("second"));
    assert_eq!(rig.proofs(), [], "not before the transport took it");
    rig.output();
    assert_eq!(rig.proofs(), [(2, Proof::Written)]);
    for number in 3..=300 {
        rig.data(number, &text("more"));
        rig.output();
    }
    assert_eq!(rig.proofs().last(), Some(&(300, Proof::Written)), "from then on nothing waits for an answer");
}

#[test]
fn an_event_with_nothing_to_show_is_handled_in_its_turn() {
    let mut rig = Rig::managed();
    rig.payload(1, Payload::Tombstone);
    assert_eq!(rig.proofs(), [(1, Proof::Confirmed)]);
    rig.data(2, &text("shown"));
    rig.payload(3, Payload::Event(Bytes::from_static(b"\xff\xff\xff")));
    assert_eq!(rig.proofs(), []);
    rig.stanza(&sm("a").with_attribute("h", "1"));
    assert_eq!(rig.proofs(), [(3, Proof::Confirmed)]);
}

#[test]
fn an_outward_event_keeps_its_own_id_or_gets_one() {
    let mut rig = Rig::bound();
    rig.data(1, &ImEvent::Message(Message { id: Some("agent-5".to_owned()), body: "hi".to_owned(), ..Message::default() }));
    let output = rig.output();
    assert!(output.contains("id='agent-5'"), "{output}");
    assert!(output.contains(&format!("from='{DESK}'")) && output.contains(&format!("to='{GUEST}'")), "{output}");
    rig.data(2, &ImEvent::ChatState(ChatState::Composing));
    let output = rig.output();
    assert!(output.contains("composing") && attribute(&output, "id").ends_with("-2"), "{output}");
}

#[test]
fn sixty_four_unhandled_events_leave_the_socket_unread_until_some_are_handled() {
    let mut rig = Rig::bound();
    for number in 0..64 {
        assert!(rig.client.wants_read());
        rig.stanza(&message(QUEUE, &number.to_string(), "x"));
    }
    assert!(!rig.client.wants_read());
    rig.handled(1);
    assert!(rig.client.wants_read());
}

#[test]
fn sixty_four_kibibytes_unhandled_leave_the_socket_unread() {
    let mut rig = Rig::bound();
    for number in 0..3 {
        assert!(rig.client.wants_read());
        rig.stanza(&message(QUEUE, &number.to_string(), &"x".repeat(24 * 1024)));
    }
    assert!(!rig.client.wants_read());
}

#[test]
fn a_long_interruption_is_told_once_and_its_end_too() {
    let mut rig = Rig::bound();
    rig.client.handle_attachment(Attachment::Detached, rig.now);
    rig.pass(Duration::from_millis(9900));
    assert!(!rig.output().contains("interrupted"));
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.output().matches("interrupted").count(), 1);
    rig.client.handle_attachment(Attachment::Up, rig.now);
    assert!(rig.output().contains("is back"));
}

#[test]
fn a_short_interruption_is_not_told() {
    let mut rig = Rig::bound();
    rig.client.handle_attachment(Attachment::Detached, rig.now);
    rig.pass(Duration::from_secs(9));
    rig.client.handle_attachment(Attachment::Up, rig.now);
    rig.pass(Duration::from_secs(9));
    let output = rig.output();
    assert!(!output.contains("interrupted") && !output.contains("is back"), "{output}");
}

#[test]
fn the_connectors_end_is_told_in_words_and_closes_the_stream() {
    let mut rig = Rig::bound();
    rig.data(1, &text("bye"));
    let fin = Fin { reason: CloseReason::AgentDone, text: "Alice has closed the conversation.".to_owned() };
    rig.client.handle_tunnel(RelayEvent::Fin { session: SESSION, fin }, rig.now);
    let output = rig.output();
    assert!(output.contains("Alice has closed") && output.ends_with("</stream:stream>"), "{output}");
    assert_eq!(rig.client.poll_over(), None);
    rig.client.handle_stream_close(rig.now);
    assert_eq!(rig.client.poll_over(), Some("agent-done"));
    assert_eq!(rig.ends(), [], "what has ended is not ended again");
}

#[test]
fn a_client_that_does_not_close_after_the_end_is_closed_after_two_seconds() {
    let mut rig = Rig::bound();
    rig.client.handle_tunnel(RelayEvent::Gone { session: SESSION, reason: CloseReason::DetachExpired }, rig.now);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.client.poll_over(), Some("detach-expired"));
}

#[test]
fn a_refused_session_says_why() {
    let mut rig = Rig::bound();
    let refused = RelayEvent::OpenRefused { session: SESSION, code: RefusalCode::Busy, text: "Too many wait.".to_owned() };
    rig.client.handle_tunnel(refused, rig.now);
    let output = rig.output();
    assert!(output.contains("Too many wait.") && output.ends_with("</stream:stream>"), "{output}");
}

#[test]
fn leaving_and_being_lost_are_told_apart() {
    let mut rig = Rig::bound();
    rig.client.handle_stream_close(rig.now);
    assert!(rig.output().ends_with("</stream:stream>"));
    rig.client.handle_lost();
    assert_eq!(rig.ends(), [CloseReason::CustomerLeft]);

    let mut rig = Rig::bound();
    rig.client.handle_lost();
    assert_eq!(rig.ends(), [CloseReason::CustomerLost]);
    assert_eq!(rig.client.poll_over(), Some("customer-lost"));
}

#[test]
fn blocking_the_queue_is_leaving_it() {
    let mut rig = Rig::bound();
    let block = Element::new("block", ns::BLOCKING).with_child(Element::new("item", ns::BLOCKING).with_attribute("jid", QUEUE));
    rig.stanza(&Element::new("iq", ns::CLIENT).with_attribute("type", "set").with_attribute("id", "b1").with_child(block));
    assert_eq!(rig.ends(), [CloseReason::CustomerLeft]);
    let output = rig.output();
    assert!(output.contains("id='b1'") && output.ends_with("</stream:stream>"), "{output}");
}

#[test]
fn a_silent_client_is_pinged_after_four_minutes_and_closed_after_ten() {
    let mut rig = Rig::bound();
    rig.pass(Duration::from_secs(239));
    assert!(!rig.output().contains(ns::PING));
    rig.pass(Duration::from_secs(2));
    assert!(rig.output().contains(ns::PING));
    rig.pass(Duration::from_secs(358));
    assert_eq!(rig.client.poll_over(), None);
    rig.pass(Duration::from_secs(2));
    assert!(rig.output().contains("connection-timeout"));
    assert_eq!(rig.ends(), [CloseReason::CustomerLost]);
}

#[test]
fn a_client_that_is_heard_is_never_closed_for_silence() {
    let mut rig = Rig::bound();
    for _minute in 0..20 {
        rig.pass(Duration::from_secs(60));
        rig.client.handle_heard(rig.now);
    }
    assert_eq!(rig.client.poll_over(), None);
    assert!(!rig.output().contains(ns::PING));
}

#[test]
fn a_stopping_relay_says_so() {
    let mut rig = Rig::bound();
    rig.client.handle_shutdown();
    assert!(rig.output().contains("system-shutdown"));
    assert_eq!(rig.ends(), [CloseReason::Shutdown]);
    assert_eq!(rig.client.poll_over(), Some("shutdown"));
}

#[test]
fn a_broken_stream_ends_with_its_condition() {
    let mut rig = Rig::bound();
    rig.client.handle_fault(StreamFault::RestrictedXml, rig.now);
    assert!(rig.output().contains("restricted-xml"));
    assert_eq!(rig.client.poll_over(), Some("restricted-xml"));
    assert_eq!(rig.ends(), [CloseReason::CustomerLost]);
}

#[test]
fn an_unknown_nonza_is_ignored_and_an_unknown_stanza_is_not() {
    let mut rig = Rig::bound();
    rig.stanza(&Element::new("active", "urn:xmpp:csi:0"));
    assert_eq!(rig.client.poll_over(), None);
    rig.stanza(&Element::new("query", ns::CLIENT));
    assert!(rig.output().contains("unsupported-stanza-type"));
}

/// A client on a virtual clock, its commands gathered and its output taken by a willing transport.
struct Rig {
    client: Client,
    now: Instant,
    commands: Vec<RelayCommand>,
}

impl Rig {
    fn bound() -> Self {
        let now = tokio::time::Instant::now().into_std();
        let queue = Contact { jid: QUEUE.to_owned(), name: "Billing".to_owned(), group: "Support".to_owned() };
        let settings = ClientSettings {
            screening: Screening { denied: denied().into(), ..Screening::default() },
            session: SESSION,
            domain: DOMAIN.to_owned(),
            client: GUEST.to_owned(),
            queue,
            is_anonymous: false,
            idle: Idle::default(),
            entropy,
        };
        Self { client: Client::new(settings, now), now, commands: Vec::new() }
    }

    fn managed() -> Self {
        let mut rig = Self::bound();
        rig.stanza(&sm("enable"));
        rig.output();
        rig
    }

    fn stanza(&mut self, stanza: &Element) {
        self.client.handle_stanza(stanza, self.now);
    }

    fn data(&mut self, number: u64, event: &ImEvent) {
        self.payload(number, payload_of(event).0);
    }

    fn payload(&mut self, number: u64, payload: Payload) {
        self.client.handle_tunnel(RelayEvent::Data { session: SESSION, number, payload }, self.now);
    }

    fn handled(&mut self, number: u64) {
        self.client.handle_tunnel(RelayEvent::Handled { session: SESSION, number, sm_in: 0 }, self.now);
    }

    /// Lets time pass, calling at each moment the client asked for.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.client.poll_timeout().filter(|next| *next <= until) {
            self.now = next.max(self.now);
            self.client.handle_timeout(self.now);
        }
        self.now = until;
    }

    fn output(&mut self) -> String {
        let mut text = String::new();
        while let Some(output) = self.client.poll_output() {
            text.push_str(&output);
            self.client.handle_drained();
        }
        text
    }

    fn commands(&mut self) -> &mut Vec<RelayCommand> {
        while let Some(command) = self.client.poll_command() {
            self.commands.push(command);
        }
        &mut self.commands
    }

    fn sent_events(&mut self) -> Vec<ImEvent> {
        let payloads = self.commands().drain(..).filter_map(|command| match command {
            RelayCommand::Send { payload: Payload::Event(bytes) | Payload::Ephemeral(bytes), .. } => Some(bytes),
            _ => None,
        });
        payloads.map(|bytes| event::decode(&bytes).unwrap()).collect()
    }

    fn sent_software(&mut self) -> Vec<ClientSoftware> {
        let software = self.sent_events().into_iter().filter_map(|event| match event {
            ImEvent::Software(software) => Some(software),
            _ => None,
        });
        software.collect()
    }

    fn sent_bodies(&mut self) -> Vec<String> {
        let bodies = self.sent_events().into_iter().filter_map(|event| match event {
            ImEvent::Message(message) => Some(message.body),
            _ => None,
        });
        bodies.collect()
    }

    fn proofs(&mut self) -> Vec<(u64, Proof)> {
        let proofs = self.commands().drain(..).filter_map(|command| match command {
            RelayCommand::Handled { number, proof, .. } => Some((number, proof)),
            _ => None,
        });
        proofs.collect()
    }

    fn ends(&mut self) -> Vec<CloseReason> {
        let ends = self.commands().drain(..).filter_map(|command| match command {
            RelayCommand::Finish { fin, .. } => Some(fin.reason),
            _ => None,
        });
        ends.collect()
    }
}

fn entropy() -> [u8; 16] {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    [NEXT.fetch_add(1, Ordering::Relaxed); 16]
}

fn message(to: &str, id: &str, body: &str) -> Element {
    Element::new("message", ns::CLIENT)
        .with_attribute("type", "chat")
        .with_attribute("to", to)
        .with_attribute("id", id)
        .with_child(Element::new("body", ns::CLIENT).with_text(body))
}

fn text(body: &str) -> ImEvent {
    ImEvent::Message(Message { body: body.to_owned(), ..Message::default() })
}

fn presence() -> Element {
    Element::new("presence", ns::CLIENT)
}

fn ping(id: &str) -> Element {
    Element::new("iq", ns::CLIENT)
        .with_attribute("type", "get")
        .with_attribute("to", DOMAIN)
        .with_attribute("id", id)
        .with_child(Element::new("ping", ns::PING))
}

fn answer(kind: &str, to: &str, id: &str) -> Element {
    Element::new("iq", ns::CLIENT).with_attribute("type", kind).with_attribute("to", to).with_attribute("id", id)
}

fn sm(name: &'static str) -> Element {
    Element::new(name, ns::STREAM_MANAGEMENT)
}

/// The first stretch of `text` from `start` to `end`.
fn between(text: &str, start: &str, end: &str) -> String {
    let from = text.find(start).unwrap_or_else(|| panic!("{start} in {text}"));
    let to = text[from..].find(end).unwrap_or_else(|| panic!("{end} in {text}")) + from;
    text[from..to].to_owned()
}

fn attribute(text: &str, name: &str) -> String {
    let from = between(text, &format!(" {name}='"), ">");
    from.split('\'').nth(1).unwrap().to_owned()
}

fn denied() -> Vec<Denial> {
    vec![Denial { software: "Chatty".to_owned(), version: Some("1.2".to_owned()), text: "Please update Chatty.".to_owned() }]
}
