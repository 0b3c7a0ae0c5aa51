//! The numbers of live sessions and streams as the transaction in progress has them.
//!
//! A busy session's numbers move many times within one transaction, and its row is written once, at the end. They stay in memory
//! after it: nobody else writes this file. A transaction that fails takes them back to what the file says: they are read again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension, params};

use crate::session::SessionId;
use crate::store::StreamKey;

use super::row::{integer, natural};

/// Sessions and streams kept between transactions: beyond this all are read anew, so that what ended cannot pile up.
const MAX_KEPT: usize = 32 * 1024;

/// The numbers of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionMarks {
    /// Its row.
    pub(super) key: i64,
    pub(super) in_handled: u64,
    pub(super) delivered: u64,
    pub(super) sm_in: u32,
    pub(super) out_last: u64,
    pub(super) out_handled: u64,
    pub(super) out_confirmed: u64,
    /// An outward event and the client's count right after it, where the client can resume.
    pub(super) counts: Option<(u64, u32)>,
    /// Row of its newest event, 0 for none.
    pub(super) last_event: i64,
    /// The number of its FIN while that is not handled.
    pub(super) open_fin: Option<u64>,
    is_changed: bool,
}

/// The numbers of one agent's stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamMarks {
    /// Its row.
    pub(super) key: i64,
    pub(super) h: u32,
    pub(super) out_last: u32,
    is_changed: bool,
}

/// All that were needed lately.
#[derive(Debug, Default)]
pub(super) struct Marks {
    sessions: HashMap<SessionId, SessionMarks>,
    changed_sessions: Vec<SessionId>,
    streams: HashMap<StreamKey, StreamMarks>,
    changed_streams: Vec<StreamKey>,
}

impl Marks {
    /// A session's numbers, if the store knows it.
    pub(super) fn session(&mut self, connection: &Connection, id: SessionId) -> rusqlite::Result<Option<&mut SessionMarks>> {
        match self.sessions.entry(id) {
            Entry::Occupied(kept) => Ok(Some(kept.into_mut())),
            Entry::Vacant(place) => Ok(read_session(connection, id)?.map(|marks| place.insert(marks))),
        }
    }

    /// Changes a session's numbers; `change` tells whether it did. False too where the store does not know the session.
    pub(super) fn change_session(
        &mut self,
        connection: &Connection,
        id: SessionId,
        change: impl FnOnce(&mut SessionMarks) -> bool,
    ) -> rusqlite::Result<bool> {
        let Some(marks) = self.session(connection, id)? else { return Ok(false) };
        if !change(marks) {
            return Ok(false);
        }
        if !std::mem::replace(&mut marks.is_changed, true) {
            self.changed_sessions.push(id);
        }
        Ok(true)
    }

    /// As [`Marks::change_session`], for an agent's stream.
    pub(super) fn change_stream(
        &mut self,
        connection: &Connection,
        id: StreamKey,
        change: impl FnOnce(&mut StreamMarks) -> bool,
    ) -> rusqlite::Result<Option<i64>> {
        let marks = match self.streams.entry(id) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => match read_stream(connection, id)? {
                Some(marks) => place.insert(marks),
                None => return Ok(None),
            },
        };
        if !change(marks) {
            return Ok(None);
        }
        let key = marks.key;
        if !std::mem::replace(&mut marks.is_changed, true) {
            self.changed_streams.push(id);
        }
        Ok(Some(key))
    }

    /// The stream is deleted.
    pub(super) fn drop_stream(&mut self, id: StreamKey) {
        self.streams.remove(&id);
    }

    /// Writes what changed, as the last part of a transaction.
    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for id in self.changed_sessions.drain(..) {
            let Some(marks) = self.sessions.get_mut(&id) else { continue };
            marks.is_changed = false;
            let sql = "UPDATE mark SET in_handled = ?2, delivered = ?3, sm_in = ?4, out_last = ?5, out_handled = ?6,
                 out_confirmed = ?7, last_event = ?8, counts_event = ?9, counts = ?10 WHERE session = ?1";
            connection.prepare_cached(sql)?.execute(params![
                marks.key,
                integer(marks.in_handled),
                integer(marks.delivered),
                marks.sm_in,
                integer(marks.out_last),
                integer(marks.out_handled),
                integer(marks.out_confirmed),
                marks.last_event,
                marks.counts.map(|(event, _)| integer(event)),
                marks.counts.map(|(_, count)| count),
            ])?;
        }
        for id in self.changed_streams.drain(..) {
            let Some(marks) = self.streams.get_mut(&id) else { continue };
            marks.is_changed = false;
            let sql = "UPDATE stream SET h = ?2, out_last = ?3 WHERE key = ?1";
            connection.prepare_cached(sql)?.execute(params![marks.key, marks.h, marks.out_last])?;
        }
        Ok(())
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self) {
        if self.sessions.len() + self.streams.len() > MAX_KEPT {
            self.forget();
        }
    }

    /// The transaction failed: what the file says counts.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn read_session(connection: &Connection, id: SessionId) -> rusqlite::Result<Option<SessionMarks>> {
    let sql = "SELECT key, in_handled, delivered, sm_in, out_last, out_handled, out_confirmed, last_event,
         iif(fin_open, fin_number, NULL), counts_event, counts FROM session JOIN mark ON mark.session = session.key WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let marks = statement.query_row([id.0.as_bytes()], |row| {
        Ok(SessionMarks {
            key: row.get(0)?,
            in_handled: natural(row.get(1)?),
            delivered: natural(row.get(2)?),
            sm_in: row.get(3)?,
            out_last: natural(row.get(4)?),
            out_handled: natural(row.get(5)?),
            out_confirmed: natural(row.get(6)?),
            last_event: row.get(7)?,
            open_fin: row.get::<_, Option<i64>>(8)?.map(natural),
            counts: counts(row.get(9)?, row.get(10)?),
            is_changed: false,
        })
    });
    marks.optional()
}

/// Both columns, or nothing.
pub(super) fn counts(event: Option<i64>, count: Option<u32>) -> Option<(u64, u32)> {
    Some((natural(event?), count?))
}

fn read_stream(connection: &Connection, id: StreamKey) -> rusqlite::Result<Option<StreamMarks>> {
    let mut statement = connection.prepare_cached("SELECT key, h, out_last FROM stream WHERE id = ?1")?;
    let marks =
        statement.query_row([id.0], |row| Ok(StreamMarks { key: row.get(0)?, h: row.get(1)?, out_last: row.get(2)?, is_changed: false }));
    marks.optional()
}
