//! Servers, tools and what is normal for them.

use rusqlite::{Connection, params};

use crate::store::{
    job::Done,
    rows::{ServerRow, ToolRow, signed},
};

/// Counts add up, so that an agent that just started need not know what was before. What is not
/// known at this sighting keeps its older value.
pub(super) fn server(db: &Connection, row: &ServerRow) -> rusqlite::Result<Done> {
    let ServerRow {
        identity,
        name,
        uid,
        package,
        version,
        entry,
        digest,
        client,
        project,
        first_seen,
        last_seen,
        sessions,
        calls,
    } = row;
    db.prepare_cached(
        "INSERT INTO servers (identity, name, uid, package, version, entry, digest, client, project,
                              first_seen, last_seen, sessions, calls)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (identity) DO UPDATE SET
             name = ?2, uid = ?3, package = coalesce(?4, package), version = coalesce(?5, version),
             entry = coalesce(?6, entry), digest = coalesce(?7, digest), client = coalesce(?8, client),
             project = coalesce(?9, project), first_seen = min(first_seen, ?10),
             last_seen = max(last_seen, ?11), sessions = sessions + ?12, calls = calls + ?13",
    )?
    .execute(params![
        identity,
        name,
        uid,
        package,
        version,
        entry,
        digest,
        client,
        project,
        first_seen,
        last_seen,
        signed(*sessions),
        signed(*calls),
    ])
    .map(|_| Done::Written)
}

/// Counts add up, as those of servers do.
pub(super) fn tool(db: &Connection, row: &ToolRow) -> rusqlite::Result<Done> {
    let ToolRow { identity, tool, calls, first_seen, last_seen } = row;
    db.prepare_cached(
        "INSERT INTO tools (identity, tool, calls, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (identity, tool) DO UPDATE SET
             calls = calls + ?3, first_seen = min(first_seen, ?4), last_seen = max(last_seen, ?5)",
    )?
    .execute(params![identity, tool, signed(*calls), first_seen, last_seen])
    .map(|_| Done::Written)
}

/// All given scopes at once: a baseline of which half is newer would be a false one.
pub(super) fn baselines(
    db: &Connection,
    identity: &str,
    meta: &str,
    scopes: &[(String, String)],
    at: i64,
) -> rusqlite::Result<Done> {
    db.prepare_cached(
        "INSERT INTO identities (identity, meta, updated) VALUES (?1, ?2, ?3)
         ON CONFLICT (identity) DO UPDATE SET meta = ?2, updated = ?3",
    )?
    .execute(params![identity, meta, at])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO baselines (identity, scope, blob, updated) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (identity, scope) DO UPDATE SET blob = ?3, updated = ?4",
    )?;
    for (scope, blob) in scopes {
        insert.execute(params![identity, scope, blob, at])?;
    }
    Ok(Done::Written)
}

/// Forgets one scope, or the identity with all of them.
pub(super) fn forget(db: &Connection, identity: &str, scope: Option<&str>) -> rusqlite::Result<Done> {
    match scope {
        Some(scope) => db
            .prepare_cached("DELETE FROM baselines WHERE identity = ? AND scope = ?")?
            .execute([identity, scope]),
        None => db.prepare_cached("DELETE FROM identities WHERE identity = ?")?.execute([identity]),
    }
    .map(super::written)
}
