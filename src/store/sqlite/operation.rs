//! Applies one [`Op`] inside the writer's transaction.
//!
//! Numbers move in [`Marks`] and reach their rows when the transaction ends. A repeated or outdated op changes nothing, and no
//! statement can violate a constraint: what is left to fail is the disk, and then the whole transaction is tried again.

use bytes::Bytes;
use rusqlite::{Connection, Params, params};

use crate::fingerprint::{ClientSoftware, Ja4};
use crate::link::RevokedLink;
use crate::proto::tunnel::{Fin, Proof};
use crate::routing::agent::Wish;
use crate::session::SessionId;
use crate::store::{Op, Place, SessionRecord, StreamKey};

use super::marks::{Marks, SessionMarks, StreamMarks};
use super::row::{integer, shown};

/// What became of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is in the transaction.
    Changed,
    /// Nothing matched: a repetition, or a session or stream that the store does not know.
    Nothing,
}

/// Applies `op`.
pub(super) fn apply(connection: &Connection, marks: &mut Marks, op: &Op) -> rusqlite::Result<Applied> {
    match op {
        Op::Begin(record) => begin(connection, record),
        Op::In { session, number, sm_in, body, at } => {
            let change = |known: &mut SessionMarks| {
                let is_new = known.in_handled < *number;
                if is_new {
                    (known.in_handled, known.sm_in) = (*number, *sm_in);
                }
                is_new
            };
            let applied = change_session(connection, marks, *session, change)?;
            insert_event(connection, marks, applied, *session, Event { outward: false, number: *number, body: body.as_ref(), at: *at })
        }
        Op::Counted { session, sm_in } => change_session(connection, marks, *session, |known| {
            known.sm_in = *sm_in;
            true
        }),
        Op::Out { session, number, body, at } => {
            let applied = change_session(connection, marks, *session, |known| raise(&mut known.out_last, *number))?;
            insert_event(connection, marks, applied, *session, Event { outward: true, number: *number, body: body.as_ref(), at: *at })
        }
        Op::OutFin { session, number, fin, at: _ } => finish(connection, marks, *session, *number, fin),
        Op::OutHandled { session, number, proof } => out_handled(connection, marks, *session, *number, *proof),
        Op::Own { session, after, count } => own(connection, *session, *after, *count),
        Op::Attached { session, attachment } => {
            let sql = "UPDATE session SET attachment = max(attachment, ?2), unseen_from = NULL WHERE id = ?1";
            run(connection, sql, params![id(session), attachment])
        }
        Op::Unseen { session, from } => {
            let sql = "UPDATE session SET unseen_from = coalesce(unseen_from, ?2) WHERE id = ?1";
            run(connection, sql, params![id(session), integer(*from)])
        }
        Op::Software { session, software } => set_software(connection, *session, software),
        Op::Place { session, place, enqueued_at } => set_place(connection, *session, place, *enqueued_at),
        Op::Forget { session } => {
            let sql = "DELETE FROM own WHERE session = (SELECT key FROM session WHERE id = ?1)";
            run(connection, sql, params![id(session)])?;
            Ok(Applied::Changed)
        }
        Op::Revoke { link, forget_before } => revoke(connection, link, *forget_before),
        Op::LinkReturned { session } => return_link(connection, *session),
        Op::LinkExpires { link, at } => {
            let sql = "UPDATE link SET expires_at = max(expires_at, ?2) WHERE use_digest = ?1";
            run(connection, sql, params![link, integer(*at)])
        }
        Op::LinksExpired { before } => {
            run(connection, "DELETE FROM link WHERE expires_at < ?1", params![integer(*before)])?;
            Ok(Applied::Changed)
        }
        Op::Wish { agent, wish } => set_wish(connection, agent, wish),
        Op::StreamBegin { .. }
        | Op::StreamPresence { .. }
        | Op::StreamIn { .. }
        | Op::StreamOut { .. }
        | Op::StreamAcked { .. }
        | Op::StreamEnd { .. } => apply_to_stream(connection, marks, op),
        Op::Delivered { session, number } => change_session(connection, marks, *session, |known| raise(&mut known.delivered, *number)),
    }
}

fn change_session(
    connection: &Connection,
    marks: &mut Marks,
    session: SessionId,
    change: impl FnOnce(&mut SessionMarks) -> bool,
) -> rusqlite::Result<Applied> {
    Ok(applied(marks.change_session(connection, session, change)?))
}

/// Marks never go back; tells whether this one rose.
fn raise(mark: &mut u64, number: u64) -> bool {
    let rises = *mark < number;
    *mark = number.max(*mark);
    rises
}

fn begin(connection: &Connection, record: &SessionRecord) -> rusqlite::Result<Applied> {
    let software = &record.software;
    let sql = "INSERT INTO session (id, open_id, secret, domain, queue, code, customer, reason, link_issuer, link_kid, link_use,
         client_addr, resumable, software_name, software_version, software_system, software_source, software_confidence,
         software_ja4, software_library, software_contradicted, software_lacks, opened_at, enqueued_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?23)
         ON CONFLICT DO NOTHING";
    let values = params![
        id(&record.id),
        record.open_id.0,
        record.secret.0,
        record.domain,
        record.queue,
        record.code,
        record.customer,
        record.reason,
        record.link_issuer,
        record.link_kid,
        record.link_use,
        record.client_addr,
        record.resumable,
        software.name,
        software.version,
        software.system,
        software.source.as_str(),
        software.confidence.as_str(),
        software.ja4.as_ref().map_or("", Ja4::as_str),
        software.library,
        software.is_contradicted,
        software.lacks.bits(),
        integer(record.opened_at),
    ];
    let applied = run(connection, sql, values)?;
    if applied == Applied::Nothing {
        return Ok(applied);
    }
    run(connection, "INSERT INTO mark (session) VALUES (?1)", [connection.last_insert_rowid()])?;
    if let Some(link) = record.link_use {
        let sql = "INSERT INTO link (use_digest, uses) VALUES (?1, 1) ON CONFLICT DO UPDATE SET uses = uses + 1";
        return run(connection, sql, params![link]);
    }
    Ok(applied)
}

/// An event on its way into the log.
struct Event<'a> {
    outward: bool,
    number: u64,
    body: Option<&'a Bytes>,
    at: u64,
}

/// Appends an event whose number was just counted, as the newest link of its session's chain.
fn insert_event(
    connection: &Connection,
    marks: &mut Marks,
    counted: Applied,
    session: SessionId,
    event: Event<'_>,
) -> rusqlite::Result<Applied> {
    let (Applied::Changed, Some(body)) = (counted, event.body) else { return Ok(counted) };
    let Some(known) = marks.session(connection, session)? else { return Ok(Applied::Nothing) };
    let sql = "INSERT INTO event (session, before, outward, number, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![known.key, known.last_event, event.outward, integer(event.number), integer(event.at), body.as_ref()];
    let applied = run(connection, sql, values)?;
    known.last_event = connection.last_insert_rowid();
    Ok(applied)
}

fn finish(connection: &Connection, marks: &mut Marks, session: SessionId, number: u64, fin: &Fin) -> rusqlite::Result<Applied> {
    let change = |known: &mut SessionMarks| {
        let is_new = raise(&mut known.out_last, number);
        if is_new {
            known.open_fin = Some(number);
        }
        is_new
    };
    if change_session(connection, marks, session, change)? == Applied::Nothing {
        return Ok(Applied::Nothing);
    }
    let sql = "UPDATE session SET fin_number = ?2, fin_reason = ?3, fin_text = ?4, fin_open = 1 WHERE id = ?1";
    run(connection, sql, params![id(&session), integer(number), fin.reason.as_str(), fin.text])
}

fn out_handled(connection: &Connection, marks: &mut Marks, session: SessionId, number: u64, proof: Proof) -> rusqlite::Result<Applied> {
    let mut is_over = false;
    let change = |known: &mut SessionMarks| {
        let is_handled = raise(&mut known.out_handled, number);
        let is_confirmed = proof == Proof::Confirmed && raise(&mut known.out_confirmed, number);
        is_over = known.open_fin.take_if(|fin| *fin <= number).is_some();
        is_handled || is_confirmed
    };
    let applied = change_session(connection, marks, session, change)?;
    if is_over {
        run(connection, "UPDATE session SET fin_open = 0 WHERE id = ?1", [id(&session)])?;
    }
    Ok(applied)
}

fn own(connection: &Connection, session: SessionId, after: u64, count: u32) -> rusqlite::Result<Applied> {
    let sql = "INSERT INTO own (session, after_event, count) SELECT key, ?2, ?3 FROM session WHERE id = ?1
         ON CONFLICT DO UPDATE SET count = max(count, excluded.count)";
    run(connection, sql, params![id(&session), integer(after), count])
}

fn set_software(connection: &Connection, session: SessionId, software: &ClientSoftware) -> rusqlite::Result<Applied> {
    let sql = "UPDATE session SET software_name = ?2, software_version = ?3, software_system = ?4, software_source = ?5,
         software_confidence = ?6, software_ja4 = ?7, software_library = ?8, software_contradicted = ?9, software_lacks = ?10
         WHERE id = ?1";
    let values = params![
        id(&session),
        software.name,
        software.version,
        software.system,
        software.source.as_str(),
        software.confidence.as_str(),
        software.ja4.as_ref().map_or("", Ja4::as_str),
        software.library,
        software.is_contradicted,
        software.lacks.bits(),
    ];
    run(connection, sql, values)
}

fn set_place(connection: &Connection, session: SessionId, place: &Place, enqueued_at: u64) -> rusqlite::Result<Applied> {
    let (word, agent, reason) = match place {
        Place::Queued => ("queued", None, None),
        Place::Bot => ("bot", None, None),
        Place::Agent(agent) => ("agent", Some(agent.as_str()), None),
        Place::Closed(reason) => ("closed", None, Some(reason.as_str())),
    };
    let sql = "UPDATE session SET place = ?2, agent = ?3, close_reason = ?4, enqueued_at = ?5 WHERE id = ?1";
    run(connection, sql, params![id(&session), word, agent, reason, integer(enqueued_at)])
}

/// The session forgets its link, so that a repetition finds nothing to give back.
fn return_link(connection: &Connection, session: SessionId) -> rusqlite::Result<Applied> {
    let sql = "UPDATE link SET uses = uses - 1 WHERE uses > 0 AND use_digest = (SELECT link_use FROM session WHERE id = ?1)";
    run(connection, sql, params![id(&session)])?;
    run(connection, "UPDATE session SET link_use = NULL WHERE id = ?1 AND link_use IS NOT NULL", params![id(&session)])
}

fn set_wish(connection: &Connection, agent: &str, wish: &Wish) -> rusqlite::Result<Applied> {
    let (word, reason) = match wish {
        Wish::Ready => ("ready", ""),
        Wish::Pause(reason) => ("pause", reason.as_str()),
    };
    let sql = "INSERT INTO agent (name, wish, reason) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET wish = excluded.wish, reason = excluded.reason";
    run(connection, sql, params![agent, word, reason])
}

fn apply_to_stream(connection: &Connection, marks: &mut Marks, op: &Op) -> rusqlite::Result<Applied> {
    match op {
        Op::StreamBegin { stream, agent, resource } => {
            let sql = "INSERT INTO stream (id, agent, resource) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            run(connection, sql, params![stream.0, agent, resource])
        }
        Op::StreamPresence { stream, presence } => {
            run(connection, "UPDATE stream SET presence = ?2 WHERE id = ?1", params![stream.0, shown(*presence)])
        }
        Op::StreamIn { stream, h } => {
            let change = |known: &mut StreamMarks| std::mem::replace(&mut known.h, *h) != *h;
            Ok(applied(marks.change_stream(connection, *stream, change)?.is_some()))
        }
        Op::StreamOut { stream, number, xml, session } => stream_out(connection, marks, *stream, *number, xml, *session),
        Op::StreamAcked { stream, h } => {
            let sql = "DELETE FROM stanza WHERE stream = (SELECT key FROM stream WHERE id = ?1) AND number <= ?2";
            run(connection, sql, params![stream.0, h])?;
            Ok(Applied::Changed)
        }
        Op::StreamEnd { stream } => {
            marks.drop_stream(*stream);
            run(connection, "DELETE FROM stream WHERE id = ?1", params![stream.0])
        }
        Op::Begin(_)
        | Op::In { .. }
        | Op::Counted { .. }
        | Op::Out { .. }
        | Op::OutFin { .. }
        | Op::OutHandled { .. }
        | Op::Own { .. }
        | Op::Attached { .. }
        | Op::Unseen { .. }
        | Op::Software { .. }
        | Op::Place { .. }
        | Op::Revoke { .. }
        | Op::Forget { .. }
        | Op::LinkReturned { .. }
        | Op::LinkExpires { .. }
        | Op::LinksExpired { .. }
        | Op::Wish { .. }
        | Op::Delivered { .. } => Ok(Applied::Nothing),
    }
}

fn revoke(connection: &Connection, link: &RevokedLink, forget_before: u64) -> rusqlite::Result<Applied> {
    run(connection, "DELETE FROM revoked WHERE expires < ?1", params![integer(forget_before)])?;
    let sql = "INSERT INTO revoked (issuer, jti, expires) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET expires = max(expires, excluded.expires)";
    run(connection, sql, params![link.issuer, link.jti, integer(link.expires)])
}

fn stream_out(
    connection: &Connection,
    marks: &mut Marks,
    stream: StreamKey,
    number: u32,
    xml: &str,
    session: Option<SessionId>,
) -> rusqlite::Result<Applied> {
    let change = |known: &mut StreamMarks| {
        let is_new = known.out_last < number;
        known.out_last = number.max(known.out_last);
        is_new
    };
    let Some(key) = marks.change_stream(connection, stream, change)? else { return Ok(Applied::Nothing) };
    let sql = "INSERT INTO stanza (stream, number, xml, session) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    run(connection, sql, params![key, number, xml, session.as_ref().map(id)])
}

fn applied(changed: bool) -> Applied {
    if changed { Applied::Changed } else { Applied::Nothing }
}

fn run(connection: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<Applied> {
    let changed = connection.prepare_cached(sql)?.execute(values)?;
    Ok(applied(changed > 0))
}

fn id(session: &SessionId) -> &[u8; 16] {
    session.0.as_bytes()
}
