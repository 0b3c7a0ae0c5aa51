//! Links and short codes: their uses, and what is kept of them.

use rusqlite::{Connection, Row, params};

use crate::link::{LinkTerms, RevokedLink};
use crate::session::SessionId;
use crate::store::{LinkUse, SecretDigest, StoreError, StoredCode};

use super::operation::{Applied, id, run};
use super::row::{integer, natural};

/// Between two skills of a code; no skill has it.
const SKILL_END: &str = "\n";

pub(super) fn count_use(connection: &Connection, link: &[u8; 32]) -> rusqlite::Result<Applied> {
    let sql = "INSERT INTO link (use_digest, uses) VALUES (?1, 1) ON CONFLICT DO UPDATE SET uses = uses + 1";
    run(connection, sql, params![link])
}

pub(super) fn describe_use(connection: &Connection, link: &LinkUse) -> rusqlite::Result<Applied> {
    let sql = "UPDATE link SET issuer = ?2, jti = ?3, queue = ?4, max_sessions = ?5, expires_at = max(expires_at, ?6)
         WHERE use_digest = ?1";
    run(connection, sql, params![link.digest, link.issuer, link.jti, link.queue, link.max_sessions, integer(link.expires)])
}

/// The session forgets its link, so that a repetition finds nothing to give back.
pub(super) fn return_use(connection: &Connection, session: SessionId) -> rusqlite::Result<Applied> {
    let sql = "UPDATE link SET uses = uses - 1 WHERE uses > 0 AND use_digest = (SELECT link_use FROM session WHERE id = ?1)";
    run(connection, sql, params![id(&session)])?;
    run(connection, "UPDATE session SET link_use = NULL WHERE id = ?1 AND link_use IS NOT NULL", params![id(&session)])
}

/// A live session's own link still authenticates its return.
pub(super) fn forget_uses(connection: &Connection, before: u64) -> rusqlite::Result<Applied> {
    let sql = "DELETE FROM link WHERE expires_at < ?1
         AND use_digest NOT IN (SELECT link_use FROM session WHERE (place <> 'closed' OR fin_open) AND link_use IS NOT NULL)";
    run(connection, sql, params![integer(before)])?;
    Ok(Applied::Changed)
}

pub(super) fn revoke(connection: &Connection, link: &RevokedLink, forget_before: u64) -> rusqlite::Result<Applied> {
    run(connection, "DELETE FROM revoked WHERE expires < ?1", params![integer(forget_before)])?;
    let sql = "INSERT INTO revoked (issuer, jti, expires) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET expires = max(expires, excluded.expires)";
    run(connection, sql, params![link.issuer, link.jti, integer(link.expires)])
}

pub(super) fn make_code(connection: &Connection, code: &StoredCode) -> rusqlite::Result<Applied> {
    let sql = "INSERT INTO code (digest, jti, domain, queue, subject, skills, lang, reason, max_sessions, expires_at, made_at, revoked)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING";
    let terms = &code.terms;
    let values = params![
        code.digest.0,
        terms.jti,
        code.domain,
        terms.queue,
        terms.subject,
        terms.skills.join(SKILL_END),
        terms.lang,
        terms.reason,
        terms.max_sessions,
        integer(terms.expires),
        integer(code.made_at),
        code.revoked,
    ];
    run(connection, sql, values)
}

pub(super) fn revoke_code(connection: &Connection, digest: &SecretDigest) -> rusqlite::Result<Applied> {
    run(connection, "UPDATE code SET revoked = 1 WHERE digest = ?1", params![digest.0])
}

pub(super) fn forget_code(connection: &Connection, digest: &SecretDigest) -> rusqlite::Result<Applied> {
    run(connection, "DELETE FROM code WHERE digest = ?1", params![digest.0])
}

pub(super) fn uses(connection: &Connection) -> Result<Vec<LinkUse>, StoreError> {
    let mut statement = connection.prepare("SELECT * FROM link ORDER BY use_digest")?;
    let use_of = |row: &Row<'_>| {
        Ok(LinkUse {
            digest: row.get("use_digest")?,
            issuer: row.get("issuer")?,
            jti: row.get("jti")?,
            queue: row.get("queue")?,
            max_sessions: row.get("max_sessions")?,
            uses: row.get("uses")?,
            expires: natural(row.get("expires_at")?),
        })
    };
    Ok(statement.query_map([], use_of)?.collect::<Result<_, _>>()?)
}

/// `issuer` is what codes bear in place of one.
pub(super) fn codes(connection: &Connection, issuer: &str) -> Result<Vec<StoredCode>, StoreError> {
    let mut statement = connection.prepare("SELECT * FROM code ORDER BY digest")?;
    let code_of = |row: &Row<'_>| {
        let skills: String = row.get("skills")?;
        let terms = LinkTerms {
            issuer: issuer.to_owned(),
            kid: String::new(),
            jti: row.get("jti")?,
            subject: row.get("subject")?,
            queue: row.get("queue")?,
            skills: skills.split(SKILL_END).filter(|skill| !skill.is_empty()).map(str::to_owned).collect(),
            lang: row.get("lang")?,
            reason: row.get("reason")?,
            max_sessions: row.get("max_sessions")?,
            expires: natural(row.get("expires_at")?),
            lapsed: false,
        };
        Ok(StoredCode {
            digest: SecretDigest(row.get("digest")?),
            domain: row.get("domain")?,
            terms,
            made_at: natural(row.get("made_at")?),
            revoked: row.get("revoked")?,
        })
    };
    Ok(statement.query_map([], code_of)?.collect::<Result<_, _>>()?)
}

pub(super) fn revoked(connection: &Connection) -> Result<Vec<RevokedLink>, StoreError> {
    let mut statement = connection.prepare("SELECT issuer, jti, expires FROM revoked ORDER BY issuer, jti")?;
    let rows = statement.query_map([], |row| Ok(RevokedLink { issuer: row.get(0)?, jti: row.get(1)?, expires: natural(row.get(2)?) }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
