//! Applies one [`Op`] inside the writer's transaction.
//!
//! Each statement is written so that a repeated or outdated op changes no row, and none can violate a constraint: what is left
//! to fail is the disk, and then the whole transaction is tried again.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Params, params};

use crate::fingerprint::ClientSoftware;
use crate::proto::tunnel::{Fin, Proof};
use crate::session::SessionId;
use crate::store::{Op, Place, SessionRecord, StreamKey};

use super::row::integer;

/// What became of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is in the transaction.
    Changed,
    /// Nothing matched: a repetition, or a session or stream that the store does not know.
    Nothing,
}

/// Applies `op`.
pub(super) fn apply(connection: &Connection, op: &Op) -> rusqlite::Result<Applied> {
    match op {
        Op::Begin(record) => begin(connection, record),
        Op::In { session, number, sm_in, body, at } => inward(connection, *session, *number, *sm_in, body.as_ref(), *at),
        Op::Counted { session, sm_in } => run(connection, "UPDATE session SET sm_in = ?2 WHERE id = ?1", params![id(session), sm_in]),
        Op::Out { session, number, body, at } => outward(connection, *session, *number, body.as_ref(), *at),
        Op::OutFin { session, number, fin, at: _ } => finish(connection, *session, *number, fin),
        Op::OutHandled { session, number, proof } => out_handled(connection, *session, *number, *proof),
        Op::Own { session, after, count } => own(connection, *session, *after, *count),
        Op::Attached { session, attachment } => {
            let sql = "UPDATE session SET attachment = max(attachment, ?2) WHERE id = ?1";
            run(connection, sql, params![id(session), attachment])
        }
        Op::Software { session, software } => set_software(connection, *session, software),
        Op::Place { session, place, enqueued_at } => set_place(connection, *session, place, *enqueued_at),
        Op::StreamBegin { .. } | Op::StreamIn { .. } | Op::StreamOut { .. } | Op::StreamAcked { .. } | Op::StreamEnd { .. } => {
            apply_to_stream(connection, op)
        }
        Op::Delivered { session, number } => {
            let sql = "UPDATE session SET delivered = max(delivered, ?2) WHERE id = ?1";
            run(connection, sql, params![id(session), integer(*number)])
        }
    }
}

fn begin(connection: &Connection, record: &SessionRecord) -> rusqlite::Result<Applied> {
    let software = &record.software;
    let sql = "INSERT INTO session (id, open_id, secret, domain, queue, code, customer, reason, link_issuer, link_kid, link_use,
         client_addr, resumable, software_name, software_version, software_system, software_source, software_confidence,
         opened_at, enqueued_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?19)
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
        integer(record.opened_at),
    ];
    let applied = run(connection, sql, values)?;
    if let (Applied::Changed, Some(link)) = (applied, record.link_use) {
        let sql = "INSERT INTO link (use_digest, uses) VALUES (?1, 1) ON CONFLICT DO UPDATE SET uses = uses + 1";
        return run(connection, sql, params![link]);
    }
    Ok(applied)
}

fn inward(
    connection: &Connection,
    session: SessionId,
    number: u64,
    sm_in: u32,
    body: Option<&Bytes>,
    at: u64,
) -> rusqlite::Result<Applied> {
    let sql = "UPDATE session SET in_handled = ?2, sm_in = ?3 WHERE id = ?1 AND in_handled < ?2 RETURNING key, in_handled + out_last";
    let place = position(connection, sql, params![id(&session), integer(number), sm_in])?;
    insert_event(connection, place, false, number, body, at)
}

fn outward(connection: &Connection, session: SessionId, number: u64, body: Option<&Bytes>, at: u64) -> rusqlite::Result<Applied> {
    let sql = "UPDATE session SET out_last = ?2 WHERE id = ?1 AND out_last < ?2 RETURNING key, in_handled + out_last";
    let place = position(connection, sql, params![id(&session), integer(number)])?;
    insert_event(connection, place, true, number, body, at)
}

/// Counts an event and tells its session's key and its position; `None` where its number is not new.
fn position(connection: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<Option<(i64, i64)>> {
    connection.prepare_cached(sql)?.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn insert_event(
    connection: &Connection,
    place: Option<(i64, i64)>,
    outward: bool,
    number: u64,
    body: Option<&Bytes>,
    at: u64,
) -> rusqlite::Result<Applied> {
    let Some((session, position)) = place else { return Ok(Applied::Nothing) };
    let Some(body) = body else { return Ok(Applied::Changed) };
    let sql = "INSERT INTO event (session, position, outward, number, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    run(connection, sql, params![session, position, outward, integer(number), integer(at), body.as_ref()])
}

fn finish(connection: &Connection, session: SessionId, number: u64, fin: &Fin) -> rusqlite::Result<Applied> {
    let sql = "UPDATE session SET out_last = ?2, fin_number = ?2, fin_reason = ?3, fin_text = ?4 WHERE id = ?1 AND out_last < ?2";
    run(connection, sql, params![id(&session), integer(number), fin.reason.as_str(), fin.text])
}

fn out_handled(connection: &Connection, session: SessionId, number: u64, proof: Proof) -> rusqlite::Result<Applied> {
    let sql = match proof {
        Proof::Confirmed => "UPDATE session SET out_handled = max(out_handled, ?2), out_confirmed = max(out_confirmed, ?2) WHERE id = ?1",
        Proof::Written => "UPDATE session SET out_handled = max(out_handled, ?2) WHERE id = ?1",
    };
    run(connection, sql, params![id(&session), integer(number)])
}

fn own(connection: &Connection, session: SessionId, after: u64, count: u32) -> rusqlite::Result<Applied> {
    let sql = "INSERT INTO own (session, after_event, count) SELECT key, ?2, ?3 FROM session WHERE id = ?1
         ON CONFLICT DO UPDATE SET count = max(count, excluded.count)";
    run(connection, sql, params![id(&session), integer(after), count])
}

fn set_software(connection: &Connection, session: SessionId, software: &ClientSoftware) -> rusqlite::Result<Applied> {
    let sql = "UPDATE session SET software_name = ?2, software_version = ?3, software_system = ?4, software_source = ?5,
         software_confidence = ?6 WHERE id = ?1";
    let (source, confidence) = (software.source.as_str(), software.confidence.as_str());
    run(connection, sql, params![id(&session), software.name, software.version, software.system, source, confidence])
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

fn apply_to_stream(connection: &Connection, op: &Op) -> rusqlite::Result<Applied> {
    match op {
        Op::StreamBegin { stream, agent, resource } => {
            let sql = "INSERT INTO stream (key, agent, resource) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            run(connection, sql, params![stream.0, agent, resource])
        }
        Op::StreamIn { stream, h } => run(connection, "UPDATE stream SET h = ?2 WHERE key = ?1", params![stream.0, h]),
        Op::StreamOut { stream, number, xml, session } => stream_out(connection, *stream, *number, xml, *session),
        Op::StreamAcked { stream, h } => {
            run(connection, "DELETE FROM stanza WHERE stream = ?1 AND number <= ?2", params![stream.0, h])?;
            Ok(Applied::Changed)
        }
        Op::StreamEnd { stream } => run(connection, "DELETE FROM stream WHERE key = ?1", params![stream.0]),
        Op::Begin(_)
        | Op::In { .. }
        | Op::Counted { .. }
        | Op::Out { .. }
        | Op::OutFin { .. }
        | Op::OutHandled { .. }
        | Op::Own { .. }
        | Op::Attached { .. }
        | Op::Software { .. }
        | Op::Place { .. }
        | Op::Delivered { .. } => Ok(Applied::Nothing),
    }
}

fn stream_out(connection: &Connection, stream: StreamKey, number: u32, xml: &str, session: Option<SessionId>) -> rusqlite::Result<Applied> {
    let sql = "UPDATE stream SET out_last = ?2 WHERE key = ?1 AND out_last < ?2";
    if run(connection, sql, params![stream.0, number])? == Applied::Nothing {
        return Ok(Applied::Nothing);
    }
    let sql = "INSERT INTO stanza (stream, number, xml, session) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    run(connection, sql, params![stream.0, number, xml, session.as_ref().map(id)])
}

fn run(connection: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<Applied> {
    let changed = connection.prepare_cached(sql)?.execute(values)?;
    Ok(if changed == 0 { Applied::Nothing } else { Applied::Changed })
}

fn id(session: &SessionId) -> &[u8; 16] {
    session.0.as_bytes()
}
