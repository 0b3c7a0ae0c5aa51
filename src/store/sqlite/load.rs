//! Reads a [`Snapshot`] at start and a [`Transcript`] on demand.

use std::ops::Range;

use bytes::Bytes;
use rusqlite::{Connection, Row};
use uuid::Uuid;

use crate::fingerprint::{ClientSoftware, Features, Ja4};
use crate::link::RevokedLink;
use crate::proto::tunnel::Fin;
use crate::routing::agent::Wish;
use crate::session::{Direction, OpenId, SessionId};
use crate::store::{
    Place, SecretDigest, SessionRecord, Snapshot, StoreError, StoredEvent, StoredSession, StoredStream, StreamKey, Transcript,
};

use super::row::{confidence, natural, presence, reason, source};

/// Events with a body that a session brings along at a start.
const HISTORY: usize = 200;

/// An event beside its direction.
type Directed = (Direction, StoredEvent);

/// Reads what a start goes on with.
pub(super) fn snapshot(connection: &Connection) -> Result<Snapshot, StoreError> {
    let incarnation = connection.query_row("SELECT incarnation FROM store", [], |row| row.get(0))?;
    let sessions = sessions(connection)?;
    Ok(Snapshot {
        incarnation,
        sessions,
        streams: streams(connection)?,
        link_uses: link_uses(connection)?,
        wishes: wishes(connection)?,
        revoked: revoked(connection)?,
    })
}

/// Reads the record of one session.
pub(super) fn transcript(connection: &Connection, session: SessionId) -> Result<Option<Transcript>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SESSION} WHERE id = ?1"))?;
    let mut rows = statement.query([session.0.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let last: i64 = row.get("last_event")?;
    Ok(Some(Transcript {
        record: record(row)?,
        place: place(row)?,
        out_confirmed: natural(row.get("out_confirmed")?),
        out_handled: natural(row.get("out_handled")?),
        events: events(connection, last)?,
    }))
}

const SESSION: &str = "SELECT * FROM session JOIN mark ON mark.session = session.key";

fn sessions(connection: &Connection) -> Result<Vec<StoredSession>, StoreError> {
    let mut statement = connection.prepare(&format!("{SESSION} WHERE place <> 'closed' OR fin_open ORDER BY key"))?;
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
    let (in_handled, delivered) = (natural(row.get("in_handled")?), natural(row.get("delivered")?));
    let fin = fin(row)?;
    let fin_number = fin.as_ref().map(|(number, _)| *number);
    let owed = Owed { inward: delivered..in_handled, outward: out_handled..out_last };
    let recent = recent(connection, row.get("last_event")?, &owed)?;
    Ok(StoredSession {
        record: record(row)?,
        place: place(row)?,
        enqueued_at: natural(row.get("enqueued_at")?),
        attachment: row.get("attachment")?,
        unseen_from: row.get::<_, Option<i64>>("unseen_from")?.map(natural),
        in_handled,
        delivered,
        sm_in: row.get("sm_in")?,
        out_last,
        out_handled,
        out_pending: pending(&recent, &owed, fin_number),
        fin,
        own: own(connection, key)?,
        history: history(recent, delivered),
    })
}

fn record(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let software = ClientSoftware {
        name: row.get("software_name")?,
        version: row.get("software_version")?,
        system: row.get("software_system")?,
        source: source(&row.get::<_, String>("software_source")?)?,
        confidence: confidence(&row.get::<_, String>("software_confidence")?)?,
        ja4: Ja4::parse(&row.get::<_, String>("software_ja4")?),
        library: row.get("software_library")?,
        is_contradicted: row.get("software_contradicted")?,
        lacks: Features::from_bits(row.get("software_lacks")?),
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

/// The numbers whose events are owed to somebody: above the first, up to and with the second.
struct Owed {
    inward: Range<u64>,
    outward: Range<u64>,
}

/// The outward numbers that are not handled; those without a row were ephemeral and come back as tombstones.
fn pending(recent: &[Directed], owed: &Owed, fin: Option<u64>) -> Vec<StoredEvent> {
    let outward = recent.iter().filter(|(direction, event)| *direction == Direction::Out && event.number > owed.outward.start);
    let mut stored = outward.map(|(_, event)| event).peekable();
    let numbers = (owed.outward.start + 1..=owed.outward.end).filter(|number| Some(*number) != fin);
    let tombstone = |number| StoredEvent { number, body: None, at: 0 };
    numbers.map(|number| stored.next_if(|event| event.number == number).cloned().unwrap_or_else(|| tombstone(number))).collect()
}

/// The last events with a body, oldest first, and before them whatever has not reached an agent yet: that is owed, however much
/// was said since.
fn history(recent: Vec<Directed>, delivered: u64) -> Vec<Directed> {
    let older = recent.len().saturating_sub(HISTORY);
    let is_owed = |(direction, event): &Directed| *direction == Direction::In && event.number > delivered;
    recent.into_iter().enumerate().filter(|(at, event)| *at >= older || is_owed(event)).map(|(_, event)| event).collect()
}

/// The newest events of a chain, oldest first: [`HISTORY`] of them, and as many more as it takes to have all that is owed.
fn recent(connection: &Connection, last: i64, owed: &Owed) -> Result<Vec<Directed>, StoreError> {
    let (mut has_inward, mut has_outward) = (owed.inward.is_empty(), owed.outward.is_empty());
    let mut recent = Vec::new();
    let mut key = last;
    while key != 0 && !(has_inward && has_outward && recent.len() >= HISTORY) {
        let (before, found) = link(connection, key)?;
        match found.0 {
            Direction::In => has_inward |= found.1.number <= owed.inward.start,
            Direction::Out => has_outward |= found.1.number <= owed.outward.start,
        }
        recent.push(found);
        key = before;
    }
    recent.reverse();
    Ok(recent)
}

/// All events of a chain, oldest first.
fn events(connection: &Connection, last: i64) -> Result<Vec<Directed>, StoreError> {
    let mut events = Vec::new();
    let mut key = last;
    while key != 0 {
        let (before, found) = link(connection, key)?;
        events.push(found);
        key = before;
    }
    events.reverse();
    Ok(events)
}

/// One event, and the key of the one before it in its session.
fn link(connection: &Connection, key: i64) -> Result<(i64, Directed), StoreError> {
    let mut statement = connection.prepare_cached("SELECT outward, number, at, body, before FROM event WHERE key = ?1")?;
    let (before, found) = statement.query_row([key], |row| Ok((row.get(4)?, event(row)?)))?;
    // A chain that led forward would never end.
    if before < key { Ok((before, found)) } else { Err(StoreError::Damaged { what: "order of a session's events" }) }
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
    let mut statement = connection.prepare("SELECT id, agent, resource, h, out_last, key, presence FROM stream ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        let pending = stanzas(connection, row.get(5)?)?;
        let stream = StreamKey(row.get(0)?);
        streams.push(StoredStream {
            stream,
            agent: row.get(1)?,
            resource: row.get(2)?,
            h: row.get(3)?,
            out_last: row.get(4)?,
            presence: presence(&row.get::<_, String>(6)?),
            pending,
        });
    }
    Ok(streams)
}

fn stanzas(connection: &Connection, stream: i64) -> Result<Vec<(u32, String, Option<SessionId>)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT number, xml, session FROM stanza WHERE stream = ?1 ORDER BY number")?;
    let rows = statement.query_map([stream], |row| {
        let session: Option<[u8; 16]> = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, session.map(|id| SessionId(Uuid::from_bytes(id)))))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn link_uses(connection: &Connection) -> Result<Vec<([u8; 32], u32, u64)>, StoreError> {
    let mut statement = connection.prepare("SELECT use_digest, uses, expires_at FROM link ORDER BY use_digest")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, natural(row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn wishes(connection: &Connection) -> Result<Vec<(String, Wish)>, StoreError> {
    let mut statement = connection.prepare("SELECT name, wish, reason FROM agent ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        let wish = if row.get::<_, String>(1)? == "ready" { Wish::Ready } else { Wish::Pause(row.get(2)?) };
        Ok((row.get(0)?, wish))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn revoked(connection: &Connection) -> Result<Vec<RevokedLink>, StoreError> {
    let mut statement = connection.prepare("SELECT issuer, jti, expires FROM revoked ORDER BY issuer, jti")?;
    let rows = statement.query_map([], |row| Ok(RevokedLink { issuer: row.get(0)?, jti: row.get(1)?, expires: natural(row.get(2)?) }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
