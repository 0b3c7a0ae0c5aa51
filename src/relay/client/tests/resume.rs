//! A stream that can be taken up again: what is announced, held back, kept and said again.

use super::*;

const ID: &str = "5ec7e7-phone";

fn resumable() -> Rig {
    let mut rig = Rig::bound_with(Some(ID));
    rig.opened(1, 1);
    rig.stanza(&sm("enable").with_attribute("resume", "true"));
    assert_eq!(rig.output(), "", "not before the connector has recorded where the count begins");
    assert_eq!(rig.owns(), [(0, 0)]);
    rig.recorded(0, 0);
    let enabled = format!("<enabled xmlns='{}' id='{ID}' resume='true' max='120'/>", ns::STREAM_MANAGEMENT);
    assert_eq!(rig.output(), enabled);
    rig.pass(Duration::from_millis(100));
    rig
}

/// Its customer has come back with his link: other clients of his had events of this session.
#[test]
fn the_count_begins_where_open_is_answered_behind_what_others_had() {
    let mut rig = Rig::bound_with(Some(ID));
    rig.stanza(&sm("enable").with_attribute("resume", "true"));
    rig.stanza(&ping("p1"));
    assert_eq!((rig.owns(), rig.output().as_str()), (vec![], ""));
    rig.opened(5, 9);
    assert_eq!(rig.owns(), [(8, 0), (8, 1)]);
    rig.recorded(8, 0);
    assert!(rig.output().contains("<enabled "));
    rig.pass(Duration::from_millis(100));
    rig.recorded(8, 1);
    assert!(rig.output().contains("p1"));
    rig.stanza(&message(QUEUE, "m1", "one"));
    rig.handled_with(5, 2);
    assert!(rig.output().contains("h='2'"));
}

impl Rig {
    fn recorded(&mut self, after: u64, count: u32) {
        self.client.handle_tunnel(RelayEvent::OwnHandled { session: SESSION, after, count }, self.now);
    }

    fn owns(&mut self) -> Vec<(u64, u32)> {
        let owns = self.commands().drain(..).filter_map(|command| match command {
            RelayCommand::Own { after, count, .. } => Some((after, count)),
            _ => None,
        });
        owns.collect()
    }

    fn counts(&mut self) -> Vec<u32> {
        let counts = self.commands().drain(..).filter_map(|command| match command {
            RelayCommand::Counted { sm_in, .. } | RelayCommand::Send { sm_in, .. } => Some(sm_in),
            _ => None,
        });
        counts.collect()
    }

    fn lost(&mut self) {
        self.client.handle_lost(self.now);
        assert!(self.client.is_held());
    }

    fn resume(&mut self, h: u32) -> String {
        self.client.resume(h, self.now).unwrap()
    }
}

#[test]
fn a_stanza_of_our_own_waits_until_it_is_recorded_and_what_comes_later_waits_behind_it() {
    let mut rig = resumable();
    rig.stanza(&ping("p1"));
    rig.stanza(&ping("p2"));
    assert_eq!(rig.owns(), [(0, 2)], "one word for both");
    rig.data(1, &text("hello"));
    rig.stanza(&ping("p3"));
    assert_eq!(rig.owns(), [(1, 1)]);
    assert_eq!(rig.output(), "");
    rig.recorded(0, 2);
    let output = rig.output();
    let places: Vec<_> = ["id='p1'", "id='p2'", "hello"].iter().map(|part| output.find(part).unwrap()).collect();
    assert!(places.is_sorted() && !output.contains("p3"), "{output}");
    rig.recorded(1, 1);
    assert!(rig.output().contains("id='p3'"));
}

#[test]
fn an_event_needs_no_word_and_each_is_one_stanza_whatever_is_left_of_it() {
    let mut rig = resumable();
    rig.data(1, &text("hello"));
    rig.payload(2, Payload::Tombstone);
    rig.payload(3, Payload::Event(Bytes::from_static(b"\xff\xff\xff")));
    let output = rig.output();
    assert_eq!(output.matches("<message").count(), 3, "{output}");
    assert_eq!(output.matches("<body").count(), 1);
    rig.stanza(&sm("a").with_attribute("h", "3"));
    assert_eq!(rig.proofs(), [(3, Proof::Confirmed)]);
}

#[test]
fn the_count_told_is_the_one_that_is_committed_and_stanzas_without_an_event_are_reported() {
    let mut rig = resumable();
    rig.stanza(&ping("p1"));
    assert_eq!(rig.counts(), [1]);
    rig.stanza(&message(QUEUE, "m1", "one"));
    assert_eq!(rig.counts(), [2]);
    rig.stanza(&sm("r"));
    assert!(rig.output().contains("h='0'"));
    rig.handled_with(0, 1);
    assert!(rig.output().contains("<a xmlns='urn:xmpp:sm:3' h='1'/>"));
    rig.handled_with(1, 2);
    assert!(rig.output().contains("h='2'"));
    rig.handled_with(1, 1);
    rig.stanza(&sm("r"));
    assert!(rig.output().contains("h='2'"), "it never goes back");
}

#[test]
fn a_client_that_comes_back_here_gets_what_it_lacks_once_and_then_what_came_meanwhile() {
    let mut rig = resumable();
    rig.stanza(&message(QUEUE, "m1", "one"));
    rig.data(1, &text("first"));
    rig.data(2, &text("second"));
    rig.output();
    rig.lost();
    rig.data(3, &text("third"));
    rig.client.handle_return(rig.now);
    assert_eq!(rig.owns(), [(3, 1)], "whether the session is still here");
    rig.recorded(3, 1);
    assert!(!rig.client.may_resume(), "its message is on the way");
    rig.handled_with(1, 1);
    assert!(rig.client.may_resume());
    assert_eq!(rig.ends(), []);
    let told = rig.resume(1);
    assert!(told.starts_with(&format!("<resumed xmlns='{}' previd='{ID}' h='1'/>", ns::STREAM_MANAGEMENT)), "{told}");
    assert!(told.contains("second") && !told.contains("first") && !told.contains("third"), "{told}");
    assert_eq!(rig.proofs(), [(1, Proof::Confirmed)]);
    let output = rig.output();
    assert!(output.contains("third") && !output.contains("second"), "{output}");
    rig.data(4, &text("fourth"));
    assert!(rig.output().contains("fourth"));
    rig.stanza(&sm("a").with_attribute("h", "5"));
    assert_eq!(rig.proofs(), [(4, Proof::Confirmed)], "and one stanza that says nothing");
}

#[test]
fn a_session_that_has_gone_elsewhere_is_not_gone_on_with_here() {
    let mut rig = resumable();
    rig.lost();
    rig.client.handle_return(rig.now);
    assert!(!rig.client.may_resume());
    rig.client.handle_tunnel(RelayEvent::Gone { session: SESSION, reason: CloseReason::CustomerLost }, rig.now);
    assert!(!rig.client.may_resume());
    assert_eq!((rig.client.poll_over(), rig.ends()), (Some("resumed-elsewhere"), vec![]));
}

#[test]
fn it_may_break_and_come_back_again_and_again() {
    let mut rig = resumable();
    rig.data(1, &text("first"));
    rig.output();
    for _again in 0..5 {
        rig.lost();
        assert!(rig.resume(0).contains("first"));
        assert_eq!(rig.output().matches("first").count(), 0);
    }
    rig.lost();
    assert!(!rig.resume(1).contains("first"));
    assert_eq!(rig.proofs(), [(1, Proof::Confirmed)]);
}

#[test]
fn a_count_that_cannot_be_resumes_nothing_and_harms_nothing() {
    let mut rig = resumable();
    rig.data(1, &text("first"));
    rig.data(2, &text("second"));
    rig.output();
    rig.stanza(&sm("a").with_attribute("h", "1"));
    rig.lost();
    assert_eq!(rig.client.resume(9, rig.now), Err(BadCount));
    assert_eq!(rig.client.resume(0, rig.now), Err(BadCount), "it said more before");
    assert!(rig.client.is_held());
    assert!(rig.resume(1).contains("second"));
}

#[test]
fn a_client_that_stays_away_is_lost_after_two_minutes() {
    let mut rig = resumable();
    rig.lost();
    rig.pass(Duration::from_secs(119));
    assert_eq!(rig.client.poll_over(), None);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.client.poll_over(), Some("customer-lost"));
    assert_eq!(rig.ends(), [CloseReason::CustomerLost]);
}

#[test]
fn a_client_that_was_not_told_that_it_can_resume_is_lost_at_once() {
    let mut rig = Rig::bound_with(Some(ID));
    rig.stanza(&sm("enable").with_attribute("resume", "true"));
    rig.client.handle_lost(rig.now);
    assert_eq!(rig.ends(), [CloseReason::CustomerLost]);
}

#[test]
fn a_session_that_ended_meanwhile_says_its_last_words_when_the_client_is_back() {
    let mut rig = resumable();
    rig.data(1, &text("first"));
    rig.output();
    rig.lost();
    rig.data(2, &text("goodbye"));
    let fin = Fin { reason: CloseReason::AgentDone, text: "Alice has closed the conversation.".to_owned() };
    rig.client.handle_tunnel(RelayEvent::Fin { session: SESSION, fin }, rig.now);
    assert_eq!(rig.client.poll_over(), None);
    assert!(rig.resume(0).contains("first"));
    let output = rig.output();
    assert!(output.contains("goodbye") && output.contains("Alice has closed") && output.ends_with("</stream:stream>"), "{output}");
    rig.client.handle_stream_close(rig.now);
    assert_eq!(rig.proofs(), [(2, Proof::Confirmed)]);
    assert_eq!(rig.client.poll_over(), Some("agent-done"));
}

#[test]
fn a_stream_that_went_on_elsewhere_ends_with_a_conflict_and_ends_no_session() {
    let mut rig = resumable();
    rig.client.handle_tunnel(RelayEvent::Gone { session: SESSION, reason: CloseReason::CustomerLost }, rig.now);
    assert!(rig.output().contains("<conflict "));
    assert_eq!(rig.client.poll_over(), Some("resumed-elsewhere"));
    assert_eq!(rig.ends(), []);
}

#[test]
fn a_client_that_leaves_a_question_open_for_a_minute_is_hung_up_on_and_held() {
    let mut rig = resumable();
    rig.data(1, &text("first"));
    rig.pass(Duration::from_secs(59));
    assert_eq!(rig.proofs(), []);
    assert!(!rig.client.wants_hangup());
    rig.pass(Duration::from_secs(3));
    assert!(rig.client.wants_hangup());
    assert!(rig.output().contains("connection-timeout"));
    rig.lost();
    assert!(!rig.client.wants_hangup());
    assert_eq!((rig.proofs(), rig.ends()), (vec![], vec![]), "nothing counts as written");
    assert!(rig.resume(0).contains("first"));
}

#[test]
fn a_stopping_relay_ends_the_stream_and_leaves_the_session_to_the_next() {
    let mut rig = resumable();
    rig.client.handle_shutdown();
    assert!(rig.output().contains("system-shutdown"));
    assert_eq!((rig.ends(), rig.client.poll_over()), (vec![], Some("shutdown")));
}

#[test]
fn at_another_relay_the_counts_go_on_and_nothing_is_introduced_again() {
    let settings = ClientSettings {
        screening: Screening { denied: denied().into(), ..Screening::default() },
        session: SESSION,
        domain: DOMAIN.to_owned(),
        client: GUEST.to_owned(),
        queue: Contact { jid: QUEUE.to_owned(), name: "Billing".to_owned(), group: "Support".to_owned() },
        is_anonymous: false,
        idle: Idle::default(),
        entropy,
        resume_id: Some(ID.to_owned()),
    };
    let now = tokio::time::Instant::now().into_std();
    let (client, told) = Client::resumed(settings, 7, 4, (3, 9), now);
    assert_eq!(told, format!("<resumed xmlns='{}' previd='{ID}' h='9'/>", ns::STREAM_MANAGEMENT));
    let mut rig = Rig { client, now, commands: Vec::new() };
    rig.pass(Duration::from_secs(5));
    assert_eq!((rig.output().as_str(), rig.client.may_resume()), ("", true));
    rig.stanza(&message(QUEUE, "m1", "one"));
    assert_eq!(rig.counts(), [10]);
    rig.handled_with(4, 10);
    assert!(rig.output().contains("h='10'"));
    rig.data(5, &text("fifth"));
    rig.stanza(&ping("p1"));
    assert_eq!(rig.owns(), [(5, 1)]);
    rig.recorded(5, 1);
    rig.output();
    rig.stanza(&sm("a").with_attribute("h", "8"));
    assert_eq!(rig.proofs(), [(5, Proof::Confirmed)]);
    rig.lost();
    assert!(rig.resume(8).contains("id='p1'"), "ours as well");
}

#[test]
fn events_from_before_the_count_are_not_counted_and_are_proven_by_the_first_answer() {
    let mut rig = Rig::bound_with(Some(ID));
    rig.opened(1, 1);
    rig.data(1, &text("welcome"));
    assert!(rig.output().contains("welcome"));
    rig.stanza(&sm("enable").with_attribute("resume", "1"));
    assert_eq!(rig.owns(), [(1, 0)]);
    rig.data(2, &text("meanwhile"));
    assert_eq!(rig.output(), "");
    rig.recorded(1, 0);
    let output = rig.output();
    assert!(output.contains("<enabled") && !output.contains("meanwhile"), "some clients begin to count a moment later: {output}");
    rig.pass(Duration::from_millis(100));
    assert!(rig.output().contains("meanwhile"));
    rig.lost();
    assert!(rig.resume(0).contains("meanwhile"));
    assert_eq!(rig.proofs(), [(1, Proof::Confirmed)]);
}
