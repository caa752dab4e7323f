//! Cursors: how far each publisher is in the stored events, kept by the writer's thread.
//!
//! A cursor is a publisher's name and the number of the last event that it is done with. The writer stores it after
//! that, never before. So after `kill -9` some events are sent once more, and none is left out. A new publisher
//! begins with the next event. A publisher that was absent for some runs continues where it was.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::SyncSender,
};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::watch;

use super::{StoreError, database::Database, handle::Message};
use crate::log::warn;

/// Makes the writer look at the cursors.
#[derive(Clone, Debug)]
pub(super) struct Nudge {
    pub(super) messages: SyncSender<Message>,
    /// One message is enough, however many cursors moved.
    pub(super) nudged: Arc<AtomicBool>,
}

impl Nudge {
    pub(super) fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::AcqRel) {
            // There is room for it, and the writer looks at its end in any case.
            let _ = self.messages.try_send(Message::Cursors);
        }
    }
}

/// A publisher, as the writer sees it.
#[derive(Debug)]
struct Cursor {
    publisher: String,
    done: watch::Receiver<i64>,
    written: i64,
}

/// How far the writer is, and how far the publisher.
type Ends = (watch::Receiver<i64>, watch::Sender<i64>);

/// All cursors, and the number up to which the writer has stored events.
#[derive(Debug)]
pub(super) struct Cursors {
    cursors: Vec<Cursor>,
    /// `None` once nothing more is stored.
    stored: Option<watch::Sender<i64>>,
    nudged: Arc<AtomicBool>,
    failing: bool,
}

impl Cursors {
    /// For a store whose last event has this number.
    pub(super) fn new(stored: i64) -> Self {
        Self {
            cursors: Vec::new(),
            stored: Some(watch::Sender::new(stored)),
            nudged: Arc::default(),
            failing: false,
        }
    }

    /// Finds or makes a publisher's cursor; returns the two ends of it that the publisher has.
    pub(super) fn add(
        &mut self,
        publisher: &str,
        database: &mut Database,
    ) -> Result<Option<Ends>, StoreError> {
        let Some(stored) = &self.stored else {
            return Ok(None);
        };
        let mut number = *stored.borrow();
        database.run("read the cursors of", |connection| {
            number = find_or_make(connection, publisher, number)?;
            Ok(())
        })?;
        let done = watch::Sender::new(number);
        self.cursors.push(Cursor {
            publisher: publisher.to_owned(),
            done: done.subscribe(),
            written: number,
        });
        Ok(Some((stored.subscribe(), done)))
    }

    pub(super) fn nudged(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.nudged)
    }

    /// The writer stored events up to this one.
    pub(super) fn stored(&self, number: i64) {
        if let Some(stored) = &self.stored {
            stored.send_if_modified(|last| number > std::mem::replace(last, number));
        }
    }

    /// Nothing more is stored.
    pub(super) fn close(&mut self) {
        self.stored = None;
    }

    /// A new file takes the place of a damaged one. Its numbers continue, so the lost events are a gap.
    pub(super) fn begin_anew(&mut self, database: &mut Database) -> Result<(), StoreError> {
        let last = self.stored.as_ref().map_or(0, |stored| *stored.borrow());
        database.run("number the events of", |connection| {
            go_on_from(connection, last)
        })?;
        for cursor in &mut self.cursors {
            cursor.written = i64::MIN;
        }
        Ok(())
    }

    /// The number of the last event that all publishers are done with; without any, of the last there can be.
    pub(super) fn passed(&self) -> i64 {
        let done = self.cursors.iter().map(|cursor| *cursor.done.borrow());
        done.min().unwrap_or(i64::MAX)
    }

    /// A publisher's message has come. From here on there is room for the next one, and no more.
    pub(super) fn heard(&self) {
        self.nudged.store(false, Ordering::Release);
    }

    /// Writes the cursors that moved. A failure is left to the next time.
    pub(super) fn save(&mut self, database: &mut Database) {
        let moved: Vec<(usize, i64)> = self.moved().collect();
        if moved.is_empty() {
            return;
        }
        let cursors = &self.cursors;
        let saved = database.run("write the cursors to", |connection| {
            let transaction = connection.transaction()?;
            for &(index, number) in &moved {
                if let Some(cursor) = cursors.get(index) {
                    write(&transaction, &cursor.publisher, number)?;
                }
            }
            transaction.commit()
        });
        match saved {
            Ok(()) => {
                self.failing = false;
                for (index, number) in moved {
                    if let Some(cursor) = self.cursors.get_mut(index) {
                        cursor.written = number;
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, "cannot store the publishers' cursors for now: a restart may publish events again");
                }
            }
        }
    }

    fn moved(&self) -> impl Iterator<Item = (usize, i64)> {
        let numbered = self.cursors.iter().enumerate();
        numbered.filter_map(|(index, cursor)| {
            let done = *cursor.done.borrow();
            (done != cursor.written).then_some((index, done))
        })
    }
}

fn go_on_from(connection: &Connection, last: i64) -> Result<(), rusqlite::Error> {
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'event'", [])?;
    let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?1)";
    connection.execute(sql, [last]).map(drop)
}

fn find_or_make(
    connection: &Connection,
    publisher: &str,
    from: i64,
) -> Result<i64, rusqlite::Error> {
    let sql = "SELECT number FROM cursor WHERE publisher = ?1";
    let found = connection.query_row(sql, [publisher], |row| row.get::<_, i64>(0));
    match found.optional()? {
        Some(number) => Ok(number.min(from)),
        None => write(connection, publisher, from).map(|()| from),
    }
}

fn write(connection: &Connection, publisher: &str, number: i64) -> Result<(), rusqlite::Error> {
    let sql = "INSERT OR REPLACE INTO cursor (publisher, number) VALUES (?1, ?2)";
    connection
        .execute(sql, params![publisher, number])
        .map(drop)
}
