//! Keeps the history within its limits of age and bytes. The events stored first go first. The ledgers count as bytes
//! too, but are never removed. No wall clock is asked.

use rusqlite::{Connection, params};

use super::Limits;

/// Trims the history. `now_ns` is the store's own clock ([`super::age`]). No event with a number after `passed` goes
/// for its age alone: some publisher is not done with it.
pub(super) fn trim(
    connection: &Connection,
    limits: &Limits,
    passed: i64,
    now_ns: u64,
) -> Result<(), rusqlite::Error> {
    let max_age_ns = u64::try_from(limits.max_age.as_nanos()).unwrap_or(u64::MAX);
    if let Some(oldest_ns) = now_ns.checked_sub(max_age_ns) {
        connection.execute(
            "DELETE FROM event WHERE kept_ns < ?1 AND number <= ?2",
            params![oldest_ns.cast_signed(), passed],
        )?;
    }
    while used_bytes(connection)? > limits.max_bytes {
        // An eighth at a time: between too few and too many statements.
        let trimmed = connection.execute(
            "DELETE FROM event WHERE number IN (
                 SELECT number FROM event ORDER BY number
                 LIMIT (SELECT count(*) / 8 + 1 FROM event))",
            params![],
        )?;
        if trimmed == 0 {
            break;
        }
    }
    // Gives the freed pages back to the file system: a row for each, to be stepped through.
    let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Bytes of the pages that hold something.
fn used_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let number = |pragma| -> Result<u64, rusqlite::Error> {
        let value: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
        Ok(value.cast_unsigned())
    };
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(pages.saturating_mul(number("page_size")?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        event::fixture::{BOOT, event_at},
        store::{Batch, database::Database, files::Files, fixture::state_dir},
    };

    const FOR_EVER: Duration = Duration::from_secs(1 << 40);

    fn filled(files: &Files, events: u64) -> Database {
        let (mut database, _) = Database::open_or_begin(files, BOOT).unwrap();
        let batch = Batch {
            events: (1..=events).map(|second| event_at(second).into()).collect(),
            ..Batch::default()
        };
        database.write(&batch, BOOT).unwrap();
        database
    }

    fn left(database: &Database) -> (u64, Option<i64>) {
        let sql = "SELECT count(*), min(time_ns) / 1000000000 FROM event";
        let row = database.connection.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
        });
        row.unwrap()
    }

    /// As if each had been stored at its second.
    fn kept_at_their_seconds(database: &Database) {
        let sql = "UPDATE event SET kept_ns = time_ns";
        database.connection.execute(sql, []).unwrap();
    }

    const TEN_SECONDS: Limits = Limits {
        max_age: Duration::from_secs(10),
        max_bytes: u64::MAX,
    };

    #[test]
    fn what_is_kept_for_too_long_goes() {
        let dir = state_dir();
        let files = Files::lock(dir.path()).unwrap();
        let database = filled(&files, 100);
        kept_at_their_seconds(&database);
        let connection = &database.connection;
        trim(connection, &TEN_SECONDS, i64::MAX, 100_000_000_000).unwrap();
        assert_eq!(left(&database), (11, Some(90)));
        trim(connection, &TEN_SECONDS, i64::MAX, 1 << 62).unwrap();
        assert_eq!(left(&database), (0, None));
    }

    #[test]
    fn for_its_age_alone_nothing_goes_that_a_publisher_waits_for() {
        let dir = state_dir();
        let files = Files::lock(dir.path()).unwrap();
        let database = filled(&files, 100);
        kept_at_their_seconds(&database);
        trim(&database.connection, &TEN_SECONDS, 30, 1 << 62).unwrap();
        assert_eq!(left(&database), (70, Some(31)));
    }

    /// The clock went back between the fifth and the sixth: those had lesser times and went first.
    #[test]
    fn what_is_too_much_goes_by_number_whatever_the_clock_said() {
        let dir = state_dir();
        let files = Files::lock(dir.path()).unwrap();
        let (mut database, _) = Database::open_or_begin(&files, BOOT).unwrap();
        let seconds = (1001..=1500).chain(1..=500);
        let batch = Batch {
            events: seconds.map(|second| event_at(second).into()).collect(),
            ..Batch::default()
        };
        database.write(&batch, BOOT).unwrap();
        let limits = Limits {
            max_age: FOR_EVER,
            max_bytes: used_bytes(&database.connection).unwrap() / 2,
        };
        trim(&database.connection, &limits, 0, 1 << 62).unwrap();
        let sql = "SELECT min(number), max(number), count(*) FROM event";
        let row = database.connection.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
        });
        let (first, last, count) = row.unwrap();
        assert_eq!(
            (last, last - first + 1),
            (1000, count),
            "the latest are left"
        );
        assert!(count < 900, "{count}");
    }

    #[test]
    fn what_is_too_much_goes_and_the_file_shrinks() {
        let dir = state_dir();
        let files = Files::lock(dir.path()).unwrap();
        let database = filled(&files, 2000);
        let before = used_bytes(&database.connection).unwrap();
        let limits = Limits {
            max_age: FOR_EVER,
            max_bytes: before / 2,
        };
        trim(&database.connection, &limits, i64::MAX, 0).unwrap();
        assert!(used_bytes(&database.connection).unwrap() <= before / 2);
        let (count, oldest) = left(&database);
        assert!((500..1500).contains(&count), "{count} of 2000 are left");
        assert_eq!(
            oldest,
            Some(2001 - count.cast_signed()),
            "the newest are left"
        );
        // The log is emptied into the file when the last connection is closed.
        drop(database);
        let size = std::fs::metadata(files.database()).unwrap().len();
        assert!(size <= before / 2 + 65536, "{size} bytes, {before} before");
    }

    #[test]
    fn a_limit_below_an_empty_store_is_no_endless_loop() {
        let dir = state_dir();
        let files = Files::lock(dir.path()).unwrap();
        let database = filled(&files, 5);
        let limits = Limits {
            max_age: FOR_EVER,
            max_bytes: 0,
        };
        trim(&database.connection, &limits, i64::MAX, 0).unwrap();
        assert_eq!(left(&database), (0, None));
    }
}
