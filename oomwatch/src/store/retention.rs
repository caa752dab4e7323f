//! How much history is kept: not older, and not more bytes, than the limits say. The oldest goes
//! first; books are never counted out.

use rusqlite::{Connection, params};

use super::Limits;

/// Trims the history.
pub(super) fn trim(
    connection: &Connection,
    limits: &Limits,
    unix_time_ns: i128,
) -> Result<(), rusqlite::Error> {
    let max_age_ns = i128::try_from(limits.max_age.as_nanos()).unwrap_or(i128::MAX);
    let oldest = unix_time_ns.saturating_sub(max_age_ns);
    let oldest = i64::try_from(oldest).unwrap_or(i64::MIN);
    connection.execute("DELETE FROM event WHERE time_ns < ?1", [oldest])?;
    while used_bytes(connection)? > limits.max_bytes {
        // An eighth at a time: between too few and too many statements.
        let trimmed = connection.execute(
            "DELETE FROM event WHERE number IN (
                 SELECT number FROM event ORDER BY time_ns, number
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
