//! The tables, and how a connection to them is set up.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// The version of [`TABLES`], kept in `user_version`.
pub(super) const VERSION: i64 = 6;

/// Statements kept prepared: more than there are in this store.
const STATEMENTS: usize = 64;

/// Pages in the write-ahead log before a commit brings them into the database, 16 MiB: the marks of busy sessions are written
/// again and again, and a checkpoint writes each page once however often it stands in the log.
const CHECKPOINT_PAGES: i64 = 4096;

/// Sets up the connection and makes the tables where the file is empty.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (found, tables) {
        (VERSION, _) => return Ok(()),
        (0, 0) => {}
        _ => return Err(StoreError::Version { found, known: VERSION }),
    }
    transaction.execute_batch(TABLES)?;
    let mut incarnation = [0; 16];
    aws_lc_rs::rand::fill(&mut incarnation).map_err(|_| StoreError::Damaged { what: "no random bytes for its name" })?;
    transaction.execute("INSERT INTO store (incarnation) VALUES (?1)", [incarnation])?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// What changes with every message is kept small and together, since a commit writes whole pages: `event` is a log that only grows at
/// its end, and `mark` holds a session's numbers in some thirty bytes. A session's events are a chain from `mark.last_event` back
/// through `event.before`, 0 at its beginning; an index would dirty a page of its own for each session that speaks.
/// The order of keys is the order of commits. Ephemeral events have no row: a number at or below the mark without a row is a tombstone.
const TABLES: &str = "
CREATE TABLE store (incarnation BLOB NOT NULL) STRICT;
CREATE TABLE session (
    key INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    open_id BLOB NOT NULL,
    secret BLOB NOT NULL,
    domain TEXT NOT NULL,
    queue TEXT NOT NULL,
    code TEXT NOT NULL,
    customer TEXT NOT NULL,
    reason TEXT NOT NULL,
    link_issuer TEXT NOT NULL,
    link_kid TEXT NOT NULL,
    link_use BLOB,
    client_addr TEXT NOT NULL,
    resumable INTEGER NOT NULL,
    software_name TEXT NOT NULL,
    software_version TEXT NOT NULL,
    software_system TEXT NOT NULL,
    software_source TEXT NOT NULL,
    software_confidence TEXT NOT NULL,
    software_ja4 TEXT NOT NULL,
    software_library TEXT NOT NULL,
    software_contradicted INTEGER NOT NULL,
    software_lacks INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    place TEXT NOT NULL DEFAULT 'queued',
    agent TEXT,
    close_reason TEXT,
    enqueued_at INTEGER NOT NULL,
    attachment INTEGER NOT NULL DEFAULT 0,
    unseen_from INTEGER,
    fin_number INTEGER,
    fin_reason TEXT,
    fin_text TEXT,
    fin_open INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX session_live ON session (key) WHERE place <> 'closed' OR fin_open;
CREATE TABLE mark (
    session INTEGER PRIMARY KEY REFERENCES session (key) ON DELETE CASCADE,
    in_handled INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    sm_in INTEGER NOT NULL DEFAULT 0,
    out_last INTEGER NOT NULL DEFAULT 0,
    out_handled INTEGER NOT NULL DEFAULT 0,
    out_confirmed INTEGER NOT NULL DEFAULT 0,
    last_event INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE event (
    key INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    before INTEGER NOT NULL,
    outward INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE own (
    session INTEGER NOT NULL REFERENCES session (key) ON DELETE CASCADE,
    after_event INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (session, after_event)
) STRICT, WITHOUT ROWID;
CREATE TABLE link (
    use_digest BLOB PRIMARY KEY NOT NULL,
    uses INTEGER NOT NULL,
    expires_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE agent (name TEXT PRIMARY KEY NOT NULL, wish TEXT NOT NULL, reason TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE revoked (
    issuer TEXT NOT NULL,
    jti TEXT NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (issuer, jti)
) STRICT, WITHOUT ROWID;
CREATE TABLE stream (
    key INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    resource TEXT NOT NULL,
    presence TEXT NOT NULL DEFAULT '',
    h INTEGER NOT NULL DEFAULT 0,
    out_last INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE stanza (
    stream INTEGER NOT NULL REFERENCES stream (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    xml TEXT NOT NULL,
    session BLOB,
    PRIMARY KEY (stream, number)
) STRICT, WITHOUT ROWID;
";
