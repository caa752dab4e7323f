//! Reading the history, with or without a running daemon, and never in its way. Opens the file for reading only, and
//! takes no lock.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params_from_iter, types::Value,
};

use super::{
    StoreError, files,
    schema::{self, MIGRATIONS, Version},
};

/// Entries read at a time. Between two pages the daemon can empty its write-ahead log, even with a slow reader.
const PAGE: usize = 256;
const BUSY: Duration = Duration::from_secs(2);

/// The wanted part of the history. Everything, by default.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HistoryFilter {
    /// Not before this time, ns since 1970.
    pub since_unix_time_ns: Option<i128>,
    /// Only of this container: its id, the first digits of a hexadecimal one, its name, or its key `runtime/realm/id`.
    pub container: Option<String>,
    /// Only of this Kubernetes pod.
    pub pod: Option<String>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// At most this many, the latest ones.
    pub limit: Option<u64>,
}

/// One event of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// [`crate::event::OomEvent::id`].
    pub id: String,
    /// When it happened, ns since 1970.
    pub unix_time_ns: i128,
    /// [`crate::event::Kind::as_str`].
    pub kind: String,
    /// Number of kills it stands for.
    pub count: u64,
    /// The event as it was published, one line of JSON.
    pub json: String,
    /// The event as one line of text, without colours.
    pub text: String,
}

/// The history in a state directory.
///
/// ```no_run
/// use oomwatch::{History, HistoryFilter};
///
/// let history = History::open("/var/lib/oomwatch")?;
/// for entry in history.entries(&HistoryFilter::default())? {
///     println!("{}", entry.text);
/// }
/// # Ok::<(), oomwatch::StoreError>(())
/// ```
#[derive(Debug)]
pub struct History {
    connection: Connection,
    path: PathBuf,
}

/// A place between two entries.
type Place = (i64, i64);
const BEGINNING: Place = (i64::MIN, i64::MIN);

impl History {
    /// Opens the history in a state directory.
    ///
    /// # Errors
    /// When there is none, it is damaged, of another version, or may not be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = files::database(dir.as_ref());
        match path.try_exists() {
            Ok(false) => return Err(StoreError::Missing { path }),
            Ok(true) => {}
            Err(error) => {
                return Err(StoreError::Database {
                    operation: "open",
                    path,
                    source: Box::new(error),
                });
            }
        }
        let (connection, version) =
            connect(&path).map_err(|error| StoreError::new("open", &path, error))?;
        match version {
            Version::Current => Ok(Self { connection, path }),
            Version::Older(found) => Err(StoreError::Older { path, found }),
            Version::Newer(found) => Err(StoreError::Newer {
                path,
                found,
                known: schema::known(MIGRATIONS),
            }),
        }
    }

    /// All wanted entries, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn entries(&self, filter: &HistoryFilter) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut entries = Vec::new();
        self.each(filter, |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// Calls `each` for one wanted entry after the other, the oldest first, until it breaks off.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each(
        &self,
        filter: &HistoryFilter,
        mut each: impl FnMut(HistoryEntry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let failed = |error| StoreError::new("read", &self.path, error);
        let mut place = self.start(filter).map_err(failed)?;
        while let Some(after) = place {
            let page = self.page(filter, after).map_err(failed)?;
            place = page
                .last()
                .filter(|_| page.len() == PAGE)
                .map(|(place, _)| *place);
            for (_, entry) in page {
                if each(entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The keys `runtime/realm/id` of the containers whose events are wanted, at most `limit`. More than one says that
    /// the filter's container is ambiguous. Containers without a key are not among them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn keys(&self, filter: &HistoryFilter, limit: usize) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT container_key FROM event
             WHERE container_key IS NOT NULL AND {WANTED} ORDER BY container_key LIMIT ?7"
        );
        let keys = || {
            let mut statement = self.connection.prepare(&sql)?;
            let wanted = wanted(filter, BEGINNING, limit);
            let rows = statement.query_map(params_from_iter(wanted), |row| row.get(0))?;
            rows.collect::<Result<_, _>>()
        };
        keys().map_err(|error| StoreError::new("read", &self.path, error))
    }

    /// The place before the first wanted entry; `None` if there is none.
    fn start(&self, filter: &HistoryFilter) -> Result<Option<Place>, rusqlite::Error> {
        let Some(limit) = filter.limit else {
            return Ok(Some(BEGINNING));
        };
        let Some(skipped) = limit.checked_sub(1) else {
            return Ok(None);
        };
        let sql = format!(
            "SELECT time_ns, number FROM event WHERE {WANTED}
             ORDER BY time_ns DESC, number DESC LIMIT 1 OFFSET ?7"
        );
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let first = self.connection.query_row(
            &sql,
            params_from_iter(wanted(filter, BEGINNING, skipped)),
            |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.saturating_sub(1))),
        );
        // Fewer than the limit: all of them.
        Ok(Some(first.optional()?.unwrap_or(BEGINNING)))
    }

    fn page(
        &self,
        filter: &HistoryFilter,
        after: Place,
    ) -> Result<Vec<(Place, HistoryEntry)>, rusqlite::Error> {
        let sql = format!(
            "SELECT time_ns, number, id, kind, count, json, text FROM event WHERE {WANTED}
             ORDER BY time_ns, number LIMIT ?7"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(wanted(filter, after, PAGE)), entry)?;
        rows.collect()
    }
}

/// A short form is the beginning of a hexadecimal id, as container tools make them. Any other id is matched whole:
/// otherwise `web-1` would have the kills of `web-10`.
const WANTED: &str = "
    superseded = 0
    AND time_ns >= ?1
    AND (?2 IS NULL OR container_id = ?2 OR container_name = ?2 OR container_key = ?2
         OR (length(container_id) = 64 AND container_id NOT GLOB '*[^0-9a-f]*'
             AND ?2 <> '' AND substr(container_id, 1, length(?2)) = ?2))
    AND (?3 IS NULL OR pod = ?3)
    AND (?4 IS NULL OR namespace = ?4)
    AND (time_ns, number) > (?5, ?6)";

/// The parameters of [`WANTED`], and a number of rows.
fn wanted(filter: &HistoryFilter, after: Place, rows: usize) -> [Value; 7] {
    let since = filter.since_unix_time_ns;
    [
        since.map_or(i64::MIN, schema::stored_time).into(),
        filter.container.clone().into(),
        filter.pod.clone().into(),
        filter.namespace.clone().into(),
        after.0.into(),
        after.1.into(),
        i64::try_from(rows).unwrap_or(i64::MAX).into(),
    ]
}

fn entry(row: &Row<'_>) -> Result<(Place, HistoryEntry), rusqlite::Error> {
    let time_ns: i64 = row.get(0)?;
    let entry = HistoryEntry {
        id: row.get(2)?,
        unix_time_ns: time_ns.into(),
        kind: row.get(3)?,
        count: row.get::<_, i64>(4)?.cast_unsigned(),
        json: row.get(5)?,
        text: row.get(6)?,
    };
    Ok(((time_ns, row.get(1)?), entry))
}

pub(super) fn connect(path: &Path) -> Result<(Connection, Version), rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = try_connect(path, flags);
    match opened {
        // On a read-only disk SQLite cannot make the file that its readers share. It needs none if the write-ahead
        // log is empty.
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(failure.code, ErrorCode::CannotOpen | ErrorCode::ReadOnly)
                && !has_write_ahead_log(path) =>
        {
            let uri = immutable_uri(path);
            try_connect(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        opened => opened,
    }
}

fn try_connect(path: &Path, flags: OpenFlags) -> Result<(Connection, Version), rusqlite::Error> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    let version = schema::version(&connection, MIGRATIONS)?;
    Ok((connection, version))
}

fn has_write_ahead_log(path: &Path) -> bool {
    fs::metadata(files::write_ahead_log(path)).is_ok_and(|found| found.len() > 0)
}

/// The path in the form that takes options.
fn immutable_uri(path: &Path) -> String {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02x}");
        }
    }
    uri.push_str("?immutable=1");
    uri
}

#[cfg(test)]
mod tests;
