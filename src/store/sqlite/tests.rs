//! Promises of the store, on real files.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::fingerprint::{ClientSoftware, Confidence, Features, Ja4, SoftwareSource};
use crate::im::Availability;
use crate::link::{NEVER_EXPIRES, RevokedLink};
use crate::proto::tunnel::{Fin, Proof};
use crate::routing::agent::Wish;
use crate::session::{CloseReason, Direction, OpenId, SessionId};
use crate::store::{
    Op, Place, SecretDigest, SessionRecord, Snapshot, Store, StoreError, StoredEvent, StoredSession, StoredStream, StreamKey,
};

const STREAM: StreamKey = StreamKey([9; 16]);

#[tokio::test]
async fn a_session_comes_back_as_it_was() {
    let home = TempDir::new().unwrap();
    let software = ClientSoftware {
        name: "Gajim".into(),
        source: SoftwareSource::Caps,
        confidence: Confidence::Inferred,
        ja4: Ja4::parse("t13d1516h2_8daaf6152771_e5627efa2ab1"),
        library: "GnuTLS".into(),
        is_contradicted: true,
        lacks: Features::named(["corrections"]).unwrap(),
        ..ClientSoftware::unknown()
    };
    let snapshot = after(
        &home,
        vec![
            Op::Begin(Box::new(record(1))),
            Op::In { session: session(1), number: 1, sm_in: 3, body: Some("hello".into()), at: 10 },
            Op::In { session: session(1), number: 2, sm_in: 4, body: None, at: 11 },
            Op::Counted { session: session(1), sm_in: 6 },
            Op::Out { session: session(1), number: 1, body: Some("welcome".into()), at: 12 },
            Op::Out { session: session(1), number: 2, body: None, at: 13 },
            Op::Out { session: session(1), number: 3, body: Some("yes?".into()), at: 14 },
            Op::OutHandled { session: session(1), number: 1, proof: Proof::Confirmed },
            Op::Own { session: session(1), after: 0, count: 2 },
            Op::Own { session: session(1), after: 1, count: 5 },
            Op::Unseen { session: session(1), from: 2 },
            Op::Attached { session: session(1), attachment: 7 },
            Op::Unseen { session: session(1), from: 3 },
            Op::Unseen { session: session(1), from: 4 },
            Op::Software { session: session(1), software: software.clone() },
            Op::Place { session: session(1), place: Place::Agent("alice".into()), enqueued_at: 99 },
            Op::Delivered { session: session(1), number: 1 },
        ],
    )
    .await;
    let expected = StoredSession {
        record: SessionRecord { software, ..record(1) },
        place: Place::Agent("alice".into()),
        enqueued_at: 99,
        attachment: 7,
        unseen_from: Some(3),
        in_handled: 2,
        delivered: 1,
        sm_in: 6,
        out_last: 3,
        out_handled: 1,
        out_pending: vec![StoredEvent { number: 2, body: None, at: 0 }, event(3, "yes?", 14)],
        fin: None,
        own: vec![(0, 2), (1, 5)],
        history: vec![
            (Direction::In, event(1, "hello", 10)),
            (Direction::Out, event(1, "welcome", 12)),
            (Direction::Out, event(3, "yes?", 14)),
        ],
    };
    assert_eq!(snapshot.sessions, [expected]);
    assert_eq!(snapshot.link_uses, [([5; 32], 1, 0)]);
}

#[tokio::test]
async fn what_no_agent_has_seen_comes_back_however_much_was_said_since() {
    let home = TempDir::new().unwrap();
    let mut ops =
        vec![Op::Begin(Box::new(record(1))), Op::In { session: session(1), number: 1, sm_in: 1, body: Some("seen".into()), at: 1 }];
    ops.push(Op::Delivered { session: session(1), number: 1 });
    ops.push(Op::In { session: session(1), number: 2, sm_in: 2, body: Some("my card is lost".into()), at: 2 });
    ops.extend((1..=250).map(|number| Op::Out { session: session(1), number, body: Some("You are in line.".into()), at: 3 }));
    let history = &after(&home, ops).await.sessions[0].history;
    assert_eq!(history.first(), Some(&(Direction::In, event(2, "my card is lost", 2))));
    assert_eq!(history.len(), 201);
}

#[tokio::test]
async fn an_open_id_used_again_after_its_session_has_ended_makes_a_session_on_record() {
    let home = TempDir::new().unwrap();
    let again = SessionRecord { open_id: record(1).open_id, ..record(2) };
    let ops = vec![
        Op::Begin(Box::new(record(1))),
        Op::Place { session: session(1), place: Place::Closed(CloseReason::CustomerLeft), enqueued_at: 0 },
        Op::Begin(Box::new(again)),
        Op::In { session: session(2), number: 1, sm_in: 1, body: Some("hello".into()), at: 1 },
    ];
    let snapshot = after(&home, ops).await;
    assert_eq!(snapshot.sessions.len(), 1);
    assert_eq!(snapshot.sessions[0].in_handled, 1);
}

#[tokio::test]
async fn a_stream_comes_back_with_what_is_unacknowledged() {
    let home = TempDir::new().unwrap();
    let ops = vec![
        Op::StreamBegin { stream: STREAM, agent: "alice".into(), resource: "desk".into() },
        Op::StreamBegin { stream: StreamKey([8; 16]), agent: "bob".into(), resource: "desk".into() },
        Op::StreamIn { stream: STREAM, h: 4 },
        Op::StreamOut { stream: STREAM, number: 1, xml: "<a/>".into(), session: None },
        Op::StreamOut { stream: STREAM, number: 2, xml: "<b/>".into(), session: Some(session(1)) },
        Op::StreamOut { stream: STREAM, number: 3, xml: "<c/>".into(), session: None },
        Op::StreamAcked { stream: STREAM, h: 1 },
        Op::StreamEnd { stream: StreamKey([8; 16]) },
    ];
    let snapshot = after(&home, ops).await;
    let pending = vec![(2, "<b/>".to_owned(), Some(session(1))), (3, "<c/>".to_owned(), None)];
    let expected =
        StoredStream { stream: STREAM, agent: "alice".into(), resource: "desk".into(), h: 4, out_last: 3, presence: None, pending };
    assert_eq!(snapshot.streams, [expected]);
}

#[tokio::test]
async fn a_closed_session_stays_until_its_fin_is_handled() {
    let home = TempDir::new().unwrap();
    let fin = Fin { reason: CloseReason::AgentDone, text: "Goodbye".into() };
    let mut ops = vec![
        Op::Begin(Box::new(record(1))),
        Op::Out { session: session(1), number: 1, body: Some("bye".into()), at: 1 },
        Op::OutFin { session: session(1), number: 2, fin: fin.clone(), at: 2 },
        Op::Place { session: session(1), place: Place::Closed(CloseReason::AgentDone), enqueued_at: 0 },
    ];
    let snapshot = after(&home, ops.clone()).await;
    assert_eq!(snapshot.sessions[0].fin, Some((2, fin)));
    assert_eq!(snapshot.sessions[0].out_pending, [event(1, "bye", 1)]);
    assert_eq!(snapshot.sessions[0].place, Place::Closed(CloseReason::AgentDone));

    ops = vec![Op::OutHandled { session: session(1), number: 2, proof: Proof::Written }];
    assert_eq!(after(&home, ops).await.sessions, []);
    let (store, _, _released) = open(&home);
    let transcript = store.transcript(session(1)).await.unwrap().unwrap();
    assert_eq!(transcript.events, [(Direction::Out, event(1, "bye", 1))]);
    assert_eq!((transcript.out_confirmed, transcript.out_handled), (0, 2));
    assert_eq!(store.transcript(session(2)).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_repeated_changes_nothing() {
    let home = TempDir::new().unwrap();
    let ops = vec![
        Op::Begin(Box::new(record(1))),
        Op::In { session: session(1), number: 1, sm_in: 1, body: Some("one".into()), at: 1 },
        Op::In { session: session(1), number: 2, sm_in: 2, body: Some("two".into()), at: 1 },
        Op::Out { session: session(1), number: 1, body: Some("three".into()), at: 1 },
        Op::OutHandled { session: session(1), number: 1, proof: Proof::Confirmed },
        Op::Own { session: session(1), after: 1, count: 5 },
    ];
    let once = after(&home, ops.clone()).await;
    let mut again = ops;
    again.push(Op::Begin(Box::new(SessionRecord { queue: "another".into(), ..record(1) })));
    again.push(Op::OutHandled { session: session(1), number: 0, proof: Proof::Confirmed });
    again.push(Op::Own { session: session(1), after: 1, count: 4 });
    again.push(Op::In { session: session(3), number: 1, sm_in: 1, body: Some("nobody's".into()), at: 1 });
    assert_eq!(after(&home, again).await, once);
}

#[tokio::test]
async fn a_link_counts_each_session_once() {
    let home = TempDir::new().unwrap();
    let other = SessionRecord { link_use: None, ..record(3) };
    let ops = vec![record(1), record(2), record(2), other].into_iter().map(|record| Op::Begin(Box::new(record))).collect();
    assert_eq!(after(&home, ops).await.link_uses, [([5; 32], 2, 0)]);
}

#[tokio::test]
async fn a_use_is_given_back_once_and_forgotten_with_its_link() {
    let home = TempDir::new().unwrap();
    let mut ops: Vec<Op> = vec![record(1), record(2)].into_iter().map(|record| Op::Begin(Box::new(record))).collect();
    ops.push(Op::LinkExpires { link: [5; 32], at: 1000 });
    ops.extend([Op::LinkReturned { session: session(1) }, Op::LinkReturned { session: session(1) }]);
    ops.push(Op::LinksExpired { before: 1000 });
    assert_eq!(after(&home, ops).await.link_uses, [([5; 32], 1, 1000)]);
    assert_eq!(after(&home, vec![Op::LinksExpired { before: 1001 }]).await.link_uses, []);
}

#[tokio::test]
async fn a_session_that_is_over_leaves_no_account_of_the_relays_stanzas() {
    let home = TempDir::new().unwrap();
    let mut ops = vec![Op::Begin(Box::new(record(1))), Op::Begin(Box::new(record(2)))];
    for number in [1, 2] {
        ops.extend((0..5).map(|after| Op::Own { session: session(number), after, count: 1 }));
    }
    ops.push(Op::Forget { session: session(1) });
    let own = after(&home, ops).await.sessions.into_iter().map(|session| session.own.len()).collect::<Vec<_>>();
    assert_eq!(own, [0, 5]);
}

#[tokio::test]
async fn what_an_agent_asked_for_and_shows_comes_back() {
    let home = TempDir::new().unwrap();
    let wish = |wish| Op::Wish { agent: "alice".into(), wish };
    let ops = vec![
        wish(Wish::Ready),
        wish(Wish::Pause("lunch".into())),
        Op::StreamBegin { stream: STREAM, agent: "alice".into(), resource: "desk".into() },
        Op::StreamPresence { stream: STREAM, presence: Some(Availability::Away) },
    ];
    let snapshot = after(&home, ops).await;
    assert_eq!(snapshot.wishes, [("alice".to_owned(), Wish::Pause("lunch".into()))]);
    assert_eq!(snapshot.streams[0].presence, Some(Availability::Away));
}

#[tokio::test]
async fn history_is_bounded_and_keeps_the_newest() {
    let home = TempDir::new().unwrap();
    let mut ops = vec![Op::Begin(Box::new(record(1)))];
    for number in 1..=150 {
        ops.push(Op::In { session: session(1), number, sm_in: 0, body: Some("in".into()), at: number });
        ops.push(Op::Out { session: session(1), number, body: Some("out".into()), at: number });
    }
    let undelivered = &after(&home, ops).await.sessions[0].history;
    assert_eq!(undelivered[0], (Direction::In, event(1, "in", 1)), "however old, what reached nobody comes back");
    assert_eq!(undelivered.len(), 250);
    let stored = &after(&home, vec![Op::Delivered { session: session(1), number: 150 }]).await.sessions[0];
    assert_eq!(stored.history.len(), 200);
    assert_eq!(stored.history[0], (Direction::In, event(51, "in", 51)));
    assert_eq!(stored.history[199], (Direction::Out, event(150, "out", 150)));
    assert_eq!(stored.out_pending.len(), 150);
}

#[tokio::test]
async fn the_store_keeps_its_name() {
    let (home, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = after(&home, vec![]).await.incarnation;
    assert_eq!(after(&home, vec![]).await.incarnation, first);
    assert_ne!(after(&elsewhere, vec![]).await.incarnation, first);
    assert_ne!(first, [0; 16]);
}

#[tokio::test]
async fn effects_come_in_order_and_after_their_commit() {
    let home = TempDir::new().unwrap();
    let (store, _, mut released) = open(&home);
    let reader = Connection::open_with_flags(path(&home), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let submitting = async {
        store.submit(vec![Op::Begin(Box::new(record(1)))], vec![0]).await.unwrap();
        for number in 1..=3000_u64 {
            // Every third has nothing to commit and must not overtake.
            let op = Op::In { session: session(1), number, sm_in: 0, body: Some("x".into()), at: 0 };
            let ops = if number % 3 == 0 { vec![] } else { vec![op] };
            store.submit(ops, vec![number]).await.unwrap();
        }
    };
    let receiving = async {
        let mut next = 0;
        while next <= 3000 {
            let effects = released.recv().await.unwrap();
            let handled: i64 = reader.query_row("SELECT in_handled FROM mark", [], |row| row.get(0)).unwrap();
            for effect in effects {
                assert_eq!(effect, next);
                assert!(effect % 3 == 0 || handled >= i64::try_from(effect).unwrap(), "{effect} released with {handled} committed");
                next += 1;
            }
        }
    };
    tokio::join!(submitting, receiving);
}

#[tokio::test]
async fn a_crash_keeps_a_prefix_that_holds_all_that_was_released() {
    let (home, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (store, _, mut released) = open(&home);
    store.submit(vec![Op::Begin(Box::new(record(1)))], vec![]).await.unwrap();
    for number in 1..=200 {
        let op = Op::Out { session: session(1), number, body: Some("x".into()), at: 0 };
        store.submit(vec![op], vec![number]).await.unwrap();
    }
    let mut last = 0;
    while last < 50 {
        last = *released.recv().await.unwrap().last().unwrap();
    }
    // What a kill would leave: the files as they are now. Too little is written for a checkpoint to fall between the two copies.
    fs::copy(home.path().join("store.db"), path(&crashed)).unwrap();
    fs::copy(home.path().join("store.db-wal"), crashed.path().join("store.db-wal")).unwrap();

    let (_store, snapshot, _released) = open(&crashed);
    let stored = &snapshot.sessions[0];
    assert!(stored.out_last >= last, "released {last}, kept {}", stored.out_last);
    let numbers: Vec<u64> = stored.out_pending.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=stored.out_last).collect::<Vec<_>>());
    assert!(stored.out_pending.iter().all(|event| event.body.is_some()));
}

#[tokio::test]
async fn a_commit_that_fails_is_tried_again_and_nothing_overtakes_it() {
    let home = TempDir::new().unwrap();
    let (store, _, mut released) = open(&home);
    store.submit(vec![Op::Begin(Box::new(record(1)))], vec![0]).await.unwrap();
    assert_eq!(released.recv().await.unwrap(), [0]);

    let saboteur = Connection::open(path(&home)).unwrap();
    saboteur.execute_batch("CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'full'); END").unwrap();
    let op = Op::In { session: session(1), number: 1, sm_in: 1, body: Some("x".into()), at: 0 };
    store.submit(vec![op], vec![1]).await.unwrap();
    store.submit(vec![], vec![2]).await.unwrap();
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), released.recv()).await;
    assert!(early.is_err(), "released without a commit: {early:?}");
    saboteur.execute_batch("DROP TRIGGER full").unwrap();

    let mut effects = Vec::new();
    while effects.len() < 2 {
        effects.extend(released.recv().await.unwrap());
    }
    assert_eq!(effects, [1, 2]);
    store.close().await.unwrap();
    assert_eq!(open(&home).1.sessions[0].in_handled, 1);
}

#[tokio::test]
async fn a_second_process_and_a_foreign_file_are_refused() {
    let home = TempDir::new().unwrap();
    let (store, _, _released) = open(&home);
    assert!(matches!(Store::open(&path(&home), |_: Vec<u64>| {}), Err(StoreError::InUse { .. })));
    store.close().await.unwrap();

    Connection::open(path(&home)).unwrap().pragma_update(None, "user_version", 77).unwrap();
    assert!(matches!(Store::open(&path(&home), |_: Vec<u64>| {}), Err(StoreError::Version { found: 77, known: 6 })));
}

#[tokio::test]
async fn revoked_links_come_back_until_they_are_forgotten() {
    let home = TempDir::new().unwrap();
    let link = |jti: &str, expires: u64| RevokedLink { issuer: "https://example.com".into(), jti: jti.into(), expires };
    let revoke = |link: &RevokedLink, forget_before: u64| Op::Revoke { link: link.clone(), forget_before };
    let (short, long, never) = (link("a", 100), link("b", 200), link("c", NEVER_EXPIRES));
    let ops = vec![revoke(&short, 0), revoke(&long, 0), revoke(&never, 0), revoke(&link("b", 150), 0)];
    assert_eq!(after(&home, ops).await.revoked, [short, long.clone(), never.clone()]);
    assert_eq!(after(&home, vec![revoke(&never, 101)]).await.revoked, [long, never]);
}

/// Commits `ops`, ends the store and opens it again.
async fn after(home: &TempDir, ops: Vec<Op>) -> Snapshot {
    let (store, _, _released) = open(home);
    for op in ops {
        store.submit(vec![op], vec![]).await.unwrap();
    }
    store.close().await.unwrap();
    let (store, snapshot, _released) = open(home);
    store.close().await.unwrap();
    snapshot
}

fn open(home: &TempDir) -> (Store<u64>, Snapshot, mpsc::Receiver<Vec<u64>>) {
    let (released, effects) = mpsc::channel(4096);
    let (store, snapshot) = Store::open(&path(home), move |effects| drop(released.blocking_send(effects))).unwrap();
    (store, snapshot, effects)
}

fn path(home: &TempDir) -> std::path::PathBuf {
    Path::new(home.path()).join("store.db")
}

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn event(number: u64, body: &'static str, at: u64) -> StoredEvent {
    StoredEvent { number, body: Some(Bytes::from_static(body.as_bytes())), at }
}

fn record(n: u8) -> SessionRecord {
    SessionRecord {
        id: session(n.into()),
        open_id: OpenId([n; 16]),
        secret: SecretDigest([n; 32]),
        domain: "example.org".into(),
        queue: "support".into(),
        code: "7f3a".into(),
        customer: "guest-7f3a".into(),
        reason: "an invoice".into(),
        link_issuer: "shop".into(),
        link_kid: "kid".into(),
        link_use: Some([5; 32]),
        client_addr: "[2001:db8::1]:4711".into(),
        resumable: true,
        software: ClientSoftware {
            name: "Profanity".into(),
            version: "0.13.1".into(),
            source: SoftwareSource::Asked,
            ..ClientSoftware::unknown()
        },
        opened_at: 1_700_000_000_000,
    }
}
