//! Reads a [`Snapshot`] at start and a [`Transcript`] on demand.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::fingerprint::ClientSoftware;
use crate::proto::tunnel::Fin;
use crate::session::{Direction, OpenId, SessionId};
use crate::store::{
    Place, SecretDigest, SessionRecord, Snapshot, StoreError, StoredEvent, StoredSession, StoredStream, StreamKey, Transcript,
};

use super::row::{confidence, natural, reason, source};

/// Events with a body that a session brings along at a start.
const HISTORY: usize = 200;

/// An event beside its direction.
type Directed = (Direction, StoredEvent);

/// Reads what a start goes on with.
pub(super) fn snapshot(connection: &Connection) -> Result<Snapshot, StoreError> {
    let incarnation = connection.query_row("SELECT incarnation FROM store", [], |row| row.get(0))?;
    let sessions = sessions(connection)?;
    Ok(Snapshot { incarnation, sessions, streams: streams(connection)?, link_uses: link_uses(connection)? })
}

/// Reads the record of one session.
pub(super) fn transcript(connection: &Connection, session: SessionId) -> Result<Option<Transcript>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SESSION} WHERE id = ?1"))?;
    let mut rows = statement.query([session.0.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let key: i64 = row.get("key")?;
    Ok(Some(Transcript {
        record: record(row)?,
        place: place(row)?,
        out_confirmed: natural(row.get("out_confirmed")?),
        out_handled: natural(row.get("out_handled")?),
        events: events(connection, key, usize::MAX)?,
    }))
}

const SESSION: &str = "SELECT * FROM session";

fn sessions(connection: &Connection) -> Result<Vec<StoredSession>, StoreError> {
    let mut statement = connection.prepare(&format!("{SESSION} WHERE place <> 'closed' OR fin_number > out_handled ORDER BY key"))?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(session(connection, row)?);
    }
    Ok(sessions)
}

fn session(connection: &Connection, row: &Row<'_>) -> Result<StoredSession, StoreError> {
    let key: i64 = row.get("key")?;
    let (out_last, out_handled) = (natural(row.get("out_last")?), natural(row.get("out_handled")?));
    let fin = fin(row)?;
    let fin_number = fin.as_ref().map(|(number, _)| *number);
    Ok(StoredSession {
        record: record(row)?,
        place: place(row)?,
        enqueued_at: natural(row.get("enqueued_at")?),
        attachment: row.get("attachment")?,
        in_handled: natural(row.get("in_handled")?),
        delivered: natural(row.get("delivered")?),
        sm_in: row.get("sm_in")?,
        out_last,
        out_handled,
        out_pending: pending(connection, key, out_handled, out_last, fin_number)?,
        fin,
        own: own(connection, key)?,
        history: history(connection, key, row.get("delivered")?)?,
    })
}

fn record(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let software = ClientSoftware {
        name: row.get("software_name")?,
        version: row.get("software_version")?,
        system: row.get("software_system")?,
        source: source(&row.get::<_, String>("software_source")?)?,
        confidence: confidence(&row.get::<_, String>("software_confidence")?)?,
    };
    Ok(SessionRecord {
        id: SessionId(Uuid::from_bytes(row.get("id")?)),
        open_id: OpenId(row.get("open_id")?),
        secret: SecretDigest(row.get("secret")?),
        domain: row.get("domain")?,
        queue: row.get("queue")?,
        code: row.get("code")?,
        customer: row.get("customer")?,
        reason: row.get("reason")?,
        link_issuer: row.get("link_issuer")?,
        link_kid: row.get("link_kid")?,
        link_use: row.get("link_use")?,
        client_addr: row.get("client_addr")?,
        resumable: row.get("resumable")?,
        software,
        opened_at: natural(row.get("opened_at")?),
    })
}

fn place(row: &Row<'_>) -> Result<Place, StoreError> {
    let word: String = row.get("place")?;
    match word.as_str() {
        "queued" => Ok(Place::Queued),
        "bot" => Ok(Place::Bot),
        "agent" => Ok(Place::Agent(row.get("agent")?)),
        "closed" => Ok(Place::Closed(reason(&row.get::<_, String>("close_reason")?)?)),
        _ => Err(StoreError::Damaged { what: "place of a session" }),
    }
}

fn fin(row: &Row<'_>) -> Result<Option<(u64, Fin)>, StoreError> {
    let Some(number) = row.get::<_, Option<i64>>("fin_number")? else { return Ok(None) };
    let fin = Fin { reason: reason(&row.get::<_, String>("fin_reason")?)?, text: row.get("fin_text")? };
    Ok(Some((natural(number), fin)))
}

/// The outward numbers above `handled`; those without a row were ephemeral and come back as tombstones.
fn pending(connection: &Connection, key: i64, handled: u64, last: u64, fin: Option<u64>) -> Result<Vec<StoredEvent>, StoreError> {
    let sql = "SELECT outward, number, at, body FROM event WHERE session = ?1 AND outward = 1 AND number > ?2 ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    let mut stored = statement.query_map(params![key, super::row::integer(handled)], event)?.peekable();
    let mut pending = Vec::new();
    for number in (handled + 1..=last).filter(|number| Some(*number) != fin) {
        let found = stored.next_if(|row| row.as_ref().map_or(true, |(_, event)| event.number == number));
        pending.push(match found {
            Some(row) => row?.1,
            None => StoredEvent { number, body: None, at: 0 },
        });
    }
    Ok(pending)
}

/// The last events with a body, oldest first, and before them whatever has not reached an agent yet: that is owed, however much
/// was said since.
fn history(connection: &Connection, key: i64, delivered: i64) -> Result<Vec<Directed>, StoreError> {
    let sql = "SELECT outward, number, at, body FROM event WHERE session = ?1 AND (outward = 0 AND number > ?2 OR position >=
         (SELECT min(position) FROM (SELECT position FROM event WHERE session = ?1 ORDER BY position DESC LIMIT ?3)))
         ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(HISTORY).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![key, delivered, limit], event)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The last `limit` events with a body, oldest first.
fn events(connection: &Connection, key: i64, limit: usize) -> Result<Vec<Directed>, StoreError> {
    let sql = "SELECT outward, number, at, body FROM event WHERE session = ?1 ORDER BY position DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut events = statement.query_map(params![key, limit], event)?.collect::<Result<Vec<_>, _>>()?;
    events.reverse();
    Ok(events)
}

fn event(row: &Row<'_>) -> rusqlite::Result<Directed> {
    let direction = if row.get(0)? { Direction::Out } else { Direction::In };
    let body = Some(Bytes::from(row.get::<_, Vec<u8>>(3)?));
    Ok((direction, StoredEvent { number: natural(row.get(1)?), body, at: natural(row.get(2)?) }))
}

fn own(connection: &Connection, key: i64) -> Result<Vec<(u64, u32)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT after_event, count FROM own WHERE session = ?1 ORDER BY after_event")?;
    let rows = statement.query_map([key], |row| Ok((natural(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn streams(connection: &Connection) -> Result<Vec<StoredStream>, StoreError> {
    let mut statement = connection.prepare("SELECT key, agent, resource, h, out_last FROM stream ORDER BY key")?;
    let rows = statement.query_map([], |row| {
        let stream = StreamKey(row.get(0)?);
        Ok(StoredStream { stream, agent: row.get(1)?, resource: row.get(2)?, h: row.get(3)?, out_last: row.get(4)?, pending: Vec::new() })
    })?;
    let mut streams = rows.collect::<Result<Vec<_>, _>>()?;
    for stream in &mut streams {
        stream.pending = stanzas(connection, stream.stream)?;
    }
    Ok(streams)
}

fn stanzas(connection: &Connection, stream: StreamKey) -> Result<Vec<(u32, String, Option<SessionId>)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT number, xml, session FROM stanza WHERE stream = ?1 ORDER BY number")?;
    let rows = statement.query_map([stream.0], |row| {
        let session: Option<[u8; 16]> = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, session.map(|id| SessionId(Uuid::from_bytes(id)))))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn link_uses(connection: &Connection) -> Result<Vec<([u8; 32], u32)>, StoreError> {
    let mut statement = connection.prepare("SELECT use_digest, uses FROM link ORDER BY use_digest")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
