//! The tables, and how a store of an older version becomes one of this version.
//!
//! The version is `PRAGMA user_version`, the number of [`MIGRATIONS`] that were applied. Migrations are only ever
//! added. Unsigned numbers are stored as the signed number of the same bits.

use rusqlite::{Connection, TransactionBehavior};

/// The steps from each version to the next.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE event (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        time_ns INTEGER NOT NULL,
        kind TEXT NOT NULL,
        count INTEGER NOT NULL,
        container_id TEXT,
        container_name TEXT,
        pod TEXT,
        namespace TEXT,
        json TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX event_by_time ON event (time_ns);
    CREATE TABLE book (
        cgroup_id INTEGER PRIMARY KEY,
        container_id TEXT NOT NULL,
        by_hand INTEGER NOT NULL,
        serial INTEGER,
        -- NULL where there are no counters.
        base INTEGER,
        accounted INTEGER,
        recounts INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT;
    -- The boot that the books and the numbers in meta are of.
    CREATE TABLE boot (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        id TEXT NOT NULL
    ) STRICT;
",
    "
    -- A number is never used twice and none is left out, so publishers can tell where they are;
    -- what is said again of a kill is a row of its own.
    CREATE TABLE told (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        time_ns INTEGER NOT NULL,
        kind TEXT NOT NULL,
        count INTEGER NOT NULL,
        container_id TEXT,
        container_name TEXT,
        pod TEXT,
        namespace TEXT,
        json TEXT NOT NULL,
        text TEXT NOT NULL,
        superseded INTEGER NOT NULL
    ) STRICT;
    INSERT INTO told
        SELECT number, id, time_ns, kind, count, container_id, container_name, pod, namespace,
            json, text, 0
        FROM event ORDER BY number;
    DROP TABLE event;
    ALTER TABLE told RENAME TO event;
    CREATE INDEX event_by_time ON event (time_ns);
    CREATE UNIQUE INDEX event_by_id ON event (id) WHERE superseded = 0;
    -- The last event that each publisher is done with.
    CREATE TABLE cursor (
        publisher TEXT PRIMARY KEY,
        number INTEGER NOT NULL
    ) STRICT;
",
    "
    -- Events that are in the books and wait to be published. They get their number then.
    CREATE TABLE pending (
        seq INTEGER PRIMARY KEY,
        json TEXT NOT NULL
    ) STRICT;
    -- How far each pinned ring is in the store; of the boot that the books are of.
    CREATE TABLE ring (
        id INTEGER PRIMARY KEY,
        bytes INTEGER NOT NULL
    ) STRICT;
    INSERT INTO ring
        SELECT ring.value, bytes.value FROM meta AS ring, meta AS bytes
        WHERE ring.key = 'ring' AND bytes.key = 'ring_bytes';
    DELETE FROM meta WHERE key IN ('ring', 'ring_bytes');
",
    "
    -- The store's own clock, and what it read when an event was stored.
    CREATE TABLE age (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        ns INTEGER NOT NULL,
        boot TEXT NOT NULL,
        boottime_ns INTEGER NOT NULL
    ) STRICT;
    ALTER TABLE event ADD COLUMN kept_ns INTEGER NOT NULL DEFAULT 0;
",
    "
    -- Of registrations by hand; nothing else finds those again.
    CREATE TABLE registration (
        cgroup_id INTEGER PRIMARY KEY,
        container_id TEXT NOT NULL
    ) STRICT;
    INSERT INTO registration SELECT cgroup_id, container_id FROM book WHERE by_hand <> 0;
    -- One per memory cgroup that counted something, and per cgroup above those. Books of registrations cannot
    -- become ledgers: what was counted since they were written, the node's count tells.
    DROP TABLE book;
    CREATE TABLE ledger (
        cgroup_id INTEGER PRIMARY KEY,
        parent_id INTEGER,
        inode INTEGER,
        serial INTEGER,
        base INTEGER NOT NULL,
        counter INTEGER NOT NULL,
        reported INTEGER NOT NULL,
        double_counts INTEGER NOT NULL,
        below INTEGER NOT NULL
    ) STRICT;
",
    "
    -- `runtime/realm/id`: two containers may have one id.
    ALTER TABLE event ADD COLUMN container_key TEXT;
",
];

/// Nanoseconds since 1970 as they are stored: in 64 bits, from 1677 until 2262.
pub(super) fn stored_time(unix_time_ns: i128) -> i64 {
    let stored = unix_time_ns.clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(stored).unwrap_or(i64::MAX)
}

/// A store's version, compared with this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// It lacks some migrations.
    Older(u32),
    Current,
    Newer(u32),
}

/// The version of the newest store that is known here.
pub(super) fn known(migrations: &[&str]) -> u32 {
    u32::try_from(migrations.len()).unwrap_or(u32::MAX)
}

/// Reads a store's version.
pub(super) fn version(
    connection: &Connection,
    migrations: &[&str],
) -> Result<Version, rusqlite::Error> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(match found.cmp(&known(migrations)) {
        std::cmp::Ordering::Less => Version::Older(found),
        std::cmp::Ordering::Equal => Version::Current,
        std::cmp::Ordering::Greater => Version::Newer(found),
    })
}

/// Applies the missing migrations, all or none.
pub(super) fn migrate(
    connection: &mut Connection,
    migrations: &[&str],
) -> Result<(), rusqlite::Error> {
    let Version::Older(found) = version(connection, migrations)? else {
        return Ok(());
    };
    let applied = usize::try_from(found).unwrap_or(usize::MAX);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in migrations.iter().skip(applied) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known(migrations))?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[&str] = &[
        "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1);",
        "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y = x + 1;",
        "CREATE TABLE b AS SELECT x + y AS z FROM a;",
    ];

    fn z(connection: &Connection) -> i64 {
        connection
            .query_row("SELECT z FROM b", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn migrations_are_applied_in_order_and_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, THREE).unwrap();
        migrate(&mut connection, THREE).unwrap();
        assert_eq!(z(&connection), 3);
        assert_eq!(version(&connection, THREE), Ok(Version::Current));
    }

    #[test]
    fn a_store_of_an_older_version_gets_only_what_it_lacks() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &THREE[..1]).unwrap();
        connection.execute("UPDATE a SET x = 5", []).unwrap();
        assert_eq!(version(&connection, THREE), Ok(Version::Older(1)));
        migrate(&mut connection, THREE).unwrap();
        assert_eq!(z(&connection), 11);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_old_version() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &THREE[..1]).unwrap();
        let broken = [THREE[0], THREE[1], "no SQL at all"];
        assert!(migrate(&mut connection, &broken).is_err());
        assert_eq!(version(&connection, THREE), Ok(Version::Older(1)));
        migrate(&mut connection, THREE).unwrap();
        assert_eq!(z(&connection), 3);
    }

    #[test]
    fn the_tables_can_be_made() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        assert_eq!(version(&connection, MIGRATIONS), Ok(Version::Current));
    }
}
