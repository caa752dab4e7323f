//! The outbox: stored events as a publisher reads them, from where it was, whatever became of the daemon meanwhile.
//!
//! An event's number is one more than the number of the event before, also from one file to the next. A gap is
//! therefore events that were removed before they were sent. The outbox reads on a thread of the runtime, over a
//! connection that it closes again. The writer wakes it after each commit. It never writes: the writer stores how far
//! a publisher is ([`super::cursors`]).

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::params;
use tokio::sync::watch;
use tracing::debug;

use super::{StoreError, cursors::Nudge, history};
use crate::{
    event::OomEvent,
    log::warn,
    retry::{causes, delays},
};

/// Events read at a time.
const PAGE: usize = 64;

/// The next item of the outbox. The caller then moves the cursor, with [`Outbox::done`], in either case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OutboxRead {
    /// To be sent.
    Event(Arc<OomEvent>),
    /// This many events are no longer in the store, or cannot be read there.
    Lost(u64),
}

/// A row of the store.
type Row = (i64, String);

/// One publisher's way through the stored events.
#[derive(Debug)]
pub(crate) struct Outbox {
    database: PathBuf,
    /// Number of the last event that the writer stored.
    stored: watch::Receiver<i64>,
    /// Number of the last event that this publisher is done with.
    done: watch::Sender<i64>,
    writer: Nudge,
    page: VecDeque<Row>,
    /// Number of the last event that was given.
    given: i64,
    failing: bool,
}

impl Outbox {
    pub(super) fn new(
        database: PathBuf,
        stored: watch::Receiver<i64>,
        done: watch::Sender<i64>,
        writer: Nudge,
    ) -> Self {
        let given = *done.borrow();
        Self {
            database,
            stored,
            done,
            writer,
            page: VecDeque::new(),
            given,
            failing: false,
        }
    }

    /// The number of events that wait, for other readers.
    pub(crate) fn backlog(&self) -> Backlog {
        Backlog {
            stored: self.stored.clone(),
            done: self.done.subscribe(),
        }
    }

    /// Waits for the next item. `None` once the store is closed and nothing is left.
    pub(crate) async fn next(&mut self) -> Option<OutboxRead> {
        let mut delays = delays();
        let mut closed = false;
        loop {
            if let Some(row) = self.page.pop_front() {
                return Some(self.give(row));
            }
            let stored = *self.stored.borrow_and_update();
            if stored <= self.given {
                if closed {
                    return None;
                }
                closed = self.stored.changed().await.is_err();
                continue;
            }
            match self.read().await {
                Ok(page) if page.is_empty() => return Some(self.skip_to(stored)),
                Ok(page) => {
                    self.page = page;
                    self.failing = false;
                }
                Err(error) => {
                    self.say_failing(&error);
                    tokio::time::sleep(delays.next().unwrap_or_default()).await;
                }
            }
        }
    }

    /// Number of the last event that was given, or of the last one that was lost before it.
    pub(crate) fn given(&self) -> i64 {
        self.given
    }

    /// All that was given is done, up to this number.
    pub(crate) fn done(&self, number: i64) {
        let moved = self
            .done
            .send_if_modified(|done| number != std::mem::replace(done, number));
        if moved {
            self.writer.nudge();
        }
    }

    fn give(&mut self, (number, json): Row) -> OutboxRead {
        let before = number.saturating_sub(1);
        if before > self.given {
            self.page.push_front((number, json));
            return self.skip_to(before);
        }
        self.given = number;
        match OomEvent::from_json(&json) {
            Ok(event) => OutboxRead::Event(Arc::new(event)),
            Err(error) => {
                warn!(%error, number, "cannot read an event from the store: it is not published");
                OutboxRead::Lost(1)
            }
        }
    }

    fn skip_to(&mut self, number: i64) -> OutboxRead {
        let skipped = number.saturating_sub(self.given);
        self.given = number;
        OutboxRead::Lost(skipped.unsigned_abs())
    }

    /// Warns of the first failure in a row. The others are the same one.
    fn say_failing(&mut self, error: &StoreError) {
        let cause = causes(error);
        if std::mem::replace(&mut self.failing, true) {
            debug!(%error, cause, "the store still cannot be read");
        } else {
            warn!(%error, cause, "cannot read the store for now: events wait to be published");
        }
    }

    async fn read(&self) -> Result<VecDeque<Row>, StoreError> {
        let (path, after) = (self.database.clone(), self.given);
        let reading = tokio::task::spawn_blocking(move || read(&path, after));
        reading.await.unwrap_or_else(|error| {
            Err(StoreError::Thread {
                source: error.into(),
            })
        })
    }
}

fn read(path: &Path, after: i64) -> Result<VecDeque<Row>, StoreError> {
    let failed = |error| StoreError::new("read", path, error);
    let (connection, _) = history::connect(path).map_err(failed)?;
    let sql = "SELECT number, json FROM event WHERE number > ?1 ORDER BY number LIMIT ?2";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![after, limit], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// How many stored events a publisher is not done with.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    stored: watch::Receiver<i64>,
    done: watch::Receiver<i64>,
}

impl Backlog {
    pub(crate) fn len(&self) -> u64 {
        let (stored, done) = (*self.stored.borrow(), *self.done.borrow());
        u64::try_from(stored.saturating_sub(done)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
