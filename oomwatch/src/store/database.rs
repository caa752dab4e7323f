//! One open SQLite file: reading what an earlier run left, and writing one batch. Blocks on the disk. Knows no thread
//! and no retry.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use tracing::debug;

use super::{
    Batch, Limits, Saved, StoreError,
    age::Age,
    files::Files,
    retention,
    schema::{self, MIGRATIONS, Version},
};
use crate::{
    clock,
    containers::identity::Word,
    event::OomEvent,
    id::{CgroupId, ContainerId, Css, printable},
    ledger::Ledger,
    log::warn,
};

/// The name in `meta` that marks the ledgers as complete.
const HAS_LEDGERS: &str = "has_ledgers";
/// More threads of a victim are marked within a moment, or never. So only this many events are searched for it.
const RECENT: i64 = 64;
/// Readers do not keep a writer waiting; whoever copies the file might.
const BUSY: Duration = Duration::from_millis(500);

/// `auto_vacuum` must come first, and is of effect only in a new file.
const SETTINGS: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -256;
    PRAGMA wal_autocheckpoint = 256;
    PRAGMA journal_size_limit = 1048576;
";

/// An open store.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    age: Age,
}

impl Database {
    /// Opens the store; moves it aside and begins a new one where it is damaged.
    pub(super) fn open_or_begin(files: &Files, boot_id: &str) -> Result<(Self, Saved), StoreError> {
        match Self::open(&files.database(), boot_id) {
            Err(StoreError::Damaged { path, source }) => {
                let aside = move_aside(files)?;
                warn!(
                    path = %path.display(), aside = %aside.display(), error = %source,
                    "the store is damaged: oomwatch moved it aside and began a new one"
                );
                Self::open(&files.database(), boot_id)
            }
            opened => opened,
        }
    }

    fn open(path: &Path, boot_id: &str) -> Result<(Self, Saved), StoreError> {
        let failed = |error| StoreError::opening(path, error);
        // The one thread that uses it need not lock it against others.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // Before anything is changed in it.
        if let Version::Newer(found) = schema::version(&connection, MIGRATIONS).map_err(failed)? {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
                known: schema::known(MIGRATIONS),
            });
        }
        connection.execute_batch(SETTINGS).map_err(failed)?;
        schema::migrate(&mut connection, MIGRATIONS).map_err(failed)?;
        let saved = load(&connection, boot_id).map_err(failed)?;
        check_cursors(&connection).map_err(failed)?;
        let age = Age::load(&connection, boot_id, clock::now().boottime_ns).map_err(failed)?;
        let path = path.to_owned();
        let database = Self {
            connection,
            path,
            age,
        };
        Ok((database, saved))
    }

    /// Writes a batch, or nothing of it.
    /// Returns the number of the last event that is stored.
    pub(super) fn write(&mut self, batch: &Batch, boot_id: &str) -> Result<i64, StoreError> {
        self.try_write(batch, boot_id)
            .map_err(|error| StoreError::new("write to", &self.path, error))
    }

    fn try_write(&mut self, batch: &Batch, boot_id: &str) -> Result<i64, rusqlite::Error> {
        let boottime_ns = clock::now().boottime_ns;
        let kept_ns = self.age.now(boottime_ns);
        let transaction = self.connection.transaction()?;
        insert_events(&transaction, &batch.events, kept_ns)?;
        if batch.is_whole {
            begin_boot(&transaction, boot_id, kept_ns)?;
        }
        self.age.save(&transaction, boot_id, boottime_ns)?;
        keep_ledgers(&transaction, batch)?;
        keep_registrations(&transaction, batch)?;
        keep_pending(&transaction, batch)?;
        keep_rings(&transaction, &batch.rings)?;
        for (key, value) in &batch.meta {
            let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
            transaction.execute(sql, params![key, value.cast_signed()])?;
        }
        let last = last_number(&transaction)?;
        transaction.commit()?;
        Ok(last)
    }

    /// Marks the content of this new file as of this boot.
    pub(super) fn begin_boot(&mut self, boot_id: &str) -> Result<(), StoreError> {
        let kept_ns = self.age.now(clock::now().boottime_ns);
        self.run("begin", |connection| {
            let transaction = connection.transaction()?;
            begin_boot(&transaction, boot_id, kept_ns)?;
            transaction.commit()
        })
    }

    /// The number of the last event that was ever stored here.
    pub(super) fn last_number(&self) -> Result<i64, StoreError> {
        last_number(&self.connection).map_err(|error| StoreError::opening(&self.path, error))
    }

    /// Keeps the history within its limits; see [`retention::trim`].
    pub(super) fn trim(
        &mut self,
        limits: &Limits,
        passed: i64,
        boot_id: &str,
    ) -> Result<(), StoreError> {
        let (age, boottime_ns) = (self.age, clock::now().boottime_ns);
        self.run("trim", |connection| {
            age.save(connection, boot_id, boottime_ns)?;
            retention::trim(connection, limits, passed, age.now(boottime_ns))
        })
    }

    /// Makes the last writes survive a power cut. A failure is left to the next time.
    pub(super) fn sync(&self) {
        let synced = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = synced {
            debug!(%error, "the store is not on its disk yet");
        }
    }

    /// Looks at every page. `Damaged` where one is.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let check = self
            .connection
            .pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0));
        match check {
            Ok(answer) if answer == "ok" => Ok(()),
            Ok(answer) => Err(StoreError::Damaged {
                path: self.path.clone(),
                source: answer.into(),
            }),
            Err(error) => Err(StoreError::new("check", &self.path, error)),
        }
    }

    /// Runs something on the connection.
    pub(super) fn run(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<(), rusqlite::Error>,
    ) -> Result<(), StoreError> {
        work(&mut self.connection).map_err(|error| StoreError::new(operation, &self.path, error))
    }
}

/// Moves a damaged store aside, under a name with the time.
pub(super) fn move_aside(files: &Files) -> Result<PathBuf, StoreError> {
    let seconds = clock::now().unix_time_ns / 1_000_000_000;
    files.move_aside(u64::try_from(seconds).unwrap_or(0))
}

fn load(connection: &Connection, boot_id: &str) -> Result<Saved, rusqlite::Error> {
    let sql = "SELECT id FROM boot";
    let boot: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    // Cgroup ids mean nothing in another boot.
    if boot.is_none_or(|boot| boot != boot_id) {
        return Ok(Saved::default());
    }
    let meta = load_meta(connection)?;
    let ledgers = match meta.contains_key(HAS_LEDGERS) {
        true => Some(load_ledgers(connection)?),
        false => None,
    };
    Ok(Saved {
        ledgers,
        by_hand: load_registrations(connection)?,
        meta,
        pending: load_pending(connection)?,
        recent: load_recent(connection)?,
        rings: load_rings(connection)?,
    })
}

/// Events that waited. Logs and leaves out one that cannot be read.
fn load_pending(connection: &Connection) -> Result<Vec<OomEvent>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT json FROM pending ORDER BY seq")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut events = Vec::new();
    for json in rows {
        match OomEvent::from_json(&json?) {
            Ok(event) => events.push(event),
            Err(error) => {
                warn!(%error, "cannot read a waiting event from the store: it is not published");
            }
        }
    }
    Ok(events)
}

/// The last events that were published, as far as they can be read.
fn load_recent(connection: &Connection) -> Result<Vec<OomEvent>, rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT json FROM event ORDER BY number DESC LIMIT ?1")?;
    let rows = statement.query_map([RECENT], |row| row.get::<_, String>(0))?;
    let events = rows.filter_map(|json| OomEvent::from_json(&json.ok()?).ok());
    Ok(events.collect())
}

fn load_rings(connection: &Connection) -> Result<Vec<(u32, u64)>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT id, bytes FROM ring")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    rows.collect()
}

fn load_ledgers(connection: &Connection) -> Result<Vec<(CgroupId, Ledger)>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT cgroup_id, parent_id, inode, serial, base, counter, reported, double_counts, below
         FROM ledger",
    )?;
    let rows = statement.query_map([], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let maybe = |column| {
            let value: Option<i64> = row.get(column)?;
            Ok::<_, rusqlite::Error>(value.map(i64::cast_unsigned))
        };
        let ledger = Ledger {
            parent: maybe(1)?.map(CgroupId),
            css: Css {
                inode: maybe(2)?,
                serial: maybe(3)?,
            },
            base: number(4)?,
            counter: number(5)?,
            reported: number(6)?,
            double_counts: number(7)?,
            below: number(8)?,
        };
        Ok((CgroupId(number(0)?), ledger))
    })?;
    rows.collect()
}

/// Stands for a container that was taken out: no id is empty.
const TAKEN_OUT: &str = "";

/// Only a changed file has an id that is none.
fn load_registrations(connection: &Connection) -> Result<Vec<(CgroupId, Word)>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT cgroup_id, container_id FROM registration")?;
    let rows = statement.query_map([], |row| {
        let cgroup = CgroupId(row.get::<_, i64>(0)?.cast_unsigned());
        Ok((cgroup, word(&row.get::<_, String>(1)?)))
    })?;
    let known = rows.filter_map(|row| {
        let valid = row.map(|(cgroup, word)| Some((cgroup, word?)));
        valid.transpose()
    });
    known.collect()
}

fn word(id: &str) -> Option<Word> {
    match id {
        TAKEN_OUT => Some(Word::TakenOut),
        id => ContainerId::new(id).ok().map(Word::Is),
    }
}

fn load_meta(connection: &Connection) -> Result<HashMap<String, u64>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT key, value FROM meta")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    rows.collect()
}

/// From here on the file holds the data of this boot. Events that waited when another boot ended wait no longer.
fn begin_boot(
    transaction: &Transaction<'_>,
    boot_id: &str,
    kept_ns: u64,
) -> Result<(), rusqlite::Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM boot WHERE id <> ?1)";
    let is_another: bool = transaction.query_row(sql, [boot_id], |row| row.get(0))?;
    if is_another {
        let left = load_pending(transaction)?.into_iter().map(Arc::new);
        insert_events(transaction, &left.collect::<Vec<_>>(), kept_ns)?;
    }
    transaction.execute_batch(
        "DELETE FROM ledger; DELETE FROM registration; DELETE FROM pending; DELETE FROM ring",
    )?;
    let sql = "DELETE FROM meta WHERE NOT EXISTS (SELECT 1 FROM boot WHERE id = ?1)";
    transaction.execute(sql, [boot_id])?;
    let sql = "INSERT OR REPLACE INTO boot (one, id) VALUES (1, ?1)";
    transaction.execute(sql, [boot_id])?;
    Ok(())
}

fn keep_pending(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), rusqlite::Error> {
    let mut delete = transaction.prepare("DELETE FROM pending WHERE seq = ?1")?;
    for seq in &batch.gone {
        delete.execute([seq.cast_signed()])?;
    }
    let sql = "INSERT OR REPLACE INTO pending (seq, json) VALUES (?1, ?2)";
    let mut insert = transaction.prepare(sql)?;
    for event in &batch.pending {
        insert.execute(params![event.seq.cast_signed(), event.to_json()])?;
    }
    Ok(())
}

/// Rings that are not named any more are gone.
fn keep_rings(transaction: &Transaction<'_>, rings: &[(u32, u64)]) -> Result<(), rusqlite::Error> {
    if rings.is_empty() {
        return Ok(());
    }
    transaction.execute("DELETE FROM ring", [])?;
    for (id, bytes) in rings {
        let sql = "INSERT INTO ring (id, bytes) VALUES (?1, ?2)";
        transaction.execute(sql, params![id, bytes.cast_signed()])?;
    }
    Ok(())
}

fn insert_events(
    transaction: &Transaction<'_>,
    events: &[Arc<OomEvent>],
    kept_ns: u64,
) -> Result<(), rusqlite::Error> {
    if events.is_empty() {
        return Ok(());
    }
    // A kill that is reported again has the same id. A repetition after a restart is skipped; a claim by a container
    // is stored. No insertion may fail, or its number would be missing.
    let mut supersede =
        transaction.prepare("UPDATE event SET superseded = 1 WHERE id = ?1 AND superseded = 0")?;
    let mut insert = transaction.prepare(
        "INSERT INTO event
         (id, time_ns, kind, count, container_id, container_name, pod, namespace, json, text,
          superseded, kept_ns, container_key)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?12
         WHERE NOT EXISTS (SELECT 1 FROM event WHERE id = ?1 AND superseded = 0)",
    )?;
    for event in events {
        if event.supersedes.is_some() {
            supersede.execute([&event.id])?;
        }
        let container = event.container.as_deref();
        let details = container.map(|container| &container.details);
        // As in the JSON, which is where a person takes them from.
        let text = |value: Option<&Option<String>>| {
            value
                .and_then(Option::as_ref)
                .map(|value| printable(value.as_bytes()))
        };
        insert.execute(params![
            event.id,
            schema::stored_time(event.unix_time_ns),
            event.kind.as_str(),
            event.count.cast_signed(),
            container.map(|container| container.id.as_str()),
            text(details.map(|details| &details.name)),
            text(details.map(|details| &details.pod)),
            text(details.map(|details| &details.namespace)),
            event.to_json(),
            event.to_text(false),
            kept_ns.cast_signed(),
            container.and_then(|container| container.key()),
        ])?;
    }
    Ok(())
}

fn keep_ledgers(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), rusqlite::Error> {
    if batch.is_whole {
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, 1)";
        transaction.execute(sql, [HAS_LEDGERS])?;
    }
    if batch.ledgers.is_empty() {
        return Ok(());
    }
    let mut delete = transaction.prepare("DELETE FROM ledger WHERE cgroup_id = ?1")?;
    let mut insert = transaction.prepare(
        "INSERT OR REPLACE INTO ledger
         (cgroup_id, parent_id, inode, serial, base, counter, reported, double_counts, below)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for (cgroup, ledger) in &batch.ledgers {
        let cgroup = cgroup.0.cast_signed();
        match ledger {
            None => delete.execute([cgroup])?,
            Some(ledger) => insert.execute(params![
                cgroup,
                ledger.parent.map(|parent| parent.0.cast_signed()),
                ledger.css.inode.map(u64::cast_signed),
                ledger.css.serial.map(u64::cast_signed),
                ledger.base.cast_signed(),
                ledger.counter.cast_signed(),
                ledger.reported.cast_signed(),
                ledger.double_counts.cast_signed(),
                ledger.below.cast_signed(),
            ])?,
        };
    }
    Ok(())
}

fn keep_registrations(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), rusqlite::Error> {
    if batch.registrations.is_empty() {
        return Ok(());
    }
    let mut delete = transaction.prepare("DELETE FROM registration WHERE cgroup_id = ?1")?;
    let mut insert = transaction
        .prepare("INSERT OR REPLACE INTO registration (cgroup_id, container_id) VALUES (?1, ?2)")?;
    for (cgroup, word) in &batch.registrations {
        let cgroup = cgroup.0.cast_signed();
        match word {
            None => delete.execute([cgroup])?,
            Some(Word::Is(container)) => insert.execute(params![cgroup, container.as_str()])?,
            Some(Word::TakenOut) => insert.execute(params![cgroup, TAKEN_OUT])?,
        };
    }
    Ok(())
}

/// Whether there are cursors to be read.
fn check_cursors(connection: &Connection) -> Result<(), rusqlite::Error> {
    let sql = "SELECT publisher, number FROM cursor";
    connection.prepare(sql).map(drop)
}

/// The number of the last event that was ever stored.
fn last_number(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'event'";
    let last = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(last.unwrap_or(0))
}
