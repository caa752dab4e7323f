//! The writer's thread: the only one that writes the file once the watcher runs.
//!
//! The thread tries a failed batch again until it is written or the daemon stops. The watcher's task never waits for
//! any of this. The thread moves a damaged file aside, begins a new one, and asks the watcher for all ledgers.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::info;

use super::{
    Batch, Limits, StoreError,
    cursors::Cursors,
    database,
    files::Files,
    handle::{Message, Shared},
};
use crate::{log::warn, store::database::Database};

/// Between two tries to write: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The same while the watcher stops.
const HURRIED_RETRY: Duration = Duration::from_millis(100);
/// Time until written events are safe from a power cut. A node that runs out of memory may be about to go down.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// The history is trimmed this long after the start, when the host is less busy...
const FIRST_TRIM: Duration = Duration::from_secs(5);
/// ...and again this often, or after [`TRIM_AFTER_EVENTS`] events.
const TRIM_EVERY: Duration = Duration::from_secs(3600);
const TRIM_AFTER_EVENTS: usize = 4096;

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer {
    database: Option<Database>,
    files: Files,
    boot_id: String,
    limits: Limits,
    shared: Arc<Shared>,
    cursors: Cursors,
    /// The last wait between two tries, while nothing can be written.
    failing: Option<Duration>,
    /// When the last writes are due for a sync.
    sync_at: Option<Instant>,
    trim_at: Instant,
    untrimmed: usize,
    checked: bool,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        files: Files,
        boot_id: &str,
        limits: Limits,
        shared: Arc<Shared>,
        cursors: Cursors,
    ) -> Self {
        Self {
            database: Some(database),
            files,
            boot_id: boot_id.to_owned(),
            limits,
            shared,
            cursors,
            failing: None,
            sync_at: None,
            trim_at: Instant::now() + FIRST_TRIM,
            untrimmed: 0,
            checked: false,
        }
    }

    /// Writes batches until there are no more.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let next = self.sync_at.unwrap_or(self.trim_at).min(self.trim_at);
            match messages.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Message::Batch(batch)) => self.take(&batch),
                // Before the cursors are looked at: a later move sends another message.
                Ok(Message::Cursors) => self.cursors.heard(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Close) => self.cursors.close(),
                // Closing the file syncs too.
                Err(RecvTimeoutError::Disconnected) => return self.save_cursors(),
            }
            self.save_cursors();
            self.do_what_is_due(Instant::now());
        }
    }

    fn save_cursors(&mut self) {
        if let Some(database) = &mut self.database {
            self.cursors.save(database);
        }
    }

    fn do_what_is_due(&mut self, now: Instant) {
        if self.sync_at.is_some_and(|due| due <= now) {
            self.sync_at = None;
            if let Some(database) = &self.database {
                database.sync();
            }
        }
        if self.trim_at <= now || self.untrimmed >= TRIM_AFTER_EVENTS {
            self.trim();
        }
    }

    fn take(&mut self, batch: &Batch) {
        let is_written = self.write_at_last(batch);
        if is_written {
            self.untrimmed += batch.events.len();
            if !batch.events.is_empty() {
                self.sync_at
                    .get_or_insert_with(|| Instant::now() + SYNC_AFTER);
            }
        } else {
            // The stored ledgers differ from the watcher's now.
            self.shared.wants_whole.store(true, Ordering::Release);
        }
        self.shared.done(is_written);
    }

    /// Writes a batch, however long it takes; gives up only when the daemon stops.
    fn write_at_last(&mut self, batch: &Batch) -> bool {
        loop {
            match self.write(batch) {
                Ok(()) => {
                    if self.failing.take().is_some() {
                        info!("the store takes writes again");
                    }
                    return true;
                }
                Err(error) => {
                    self.say_failing(&error);
                    if self.shared.stopping.load(Ordering::Acquire) {
                        return false;
                    }
                    self.wait_for_retry();
                }
            }
        }
    }

    fn say_failing(&self, error: &StoreError) {
        if self.failing.is_none() {
            warn!(%error, cause = cause(error), "cannot write the history for now: watching goes on");
        }
    }

    fn wait_for_retry(&mut self) {
        let mut wait = self
            .failing
            .map_or(FIRST_RETRY, |last| last.saturating_mul(2).min(LAST_RETRY));
        if self.shared.hurrying.load(Ordering::Acquire) {
            wait = HURRIED_RETRY;
        }
        self.failing = Some(wait);
        // Woken when the daemon stops.
        thread::park_timeout(wait);
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let written = match &mut self.database {
            Some(database) => database.write(batch, &self.boot_id),
            None => self.begin_anew(batch),
        };
        let written = match written {
            Err(error @ StoreError::Damaged { .. }) => {
                self.put_aside(&error)?;
                self.begin_anew(batch)
            }
            written => written,
        };
        self.cursors.stored(written?);
        Ok(())
    }

    fn put_aside(&mut self, error: &StoreError) -> Result<(), StoreError> {
        // Closed before it is renamed.
        self.database = None;
        let aside = database::move_aside(&self.files)?;
        warn!(
            %error, cause = cause(error), aside = %aside.display(),
            "the store is damaged: oomwatch moved it aside and began a new one"
        );
        Ok(())
    }

    fn begin_anew(&mut self, batch: &Batch) -> Result<i64, StoreError> {
        let (mut database, _) = Database::open_or_begin(&self.files, &self.boot_id)?;
        self.cursors.begin_anew(&mut database)?;
        database.begin_boot(&self.boot_id)?;
        let last = database.write(batch, &self.boot_id)?;
        self.database = Some(database);
        if !batch.is_whole {
            self.shared.wants_whole.store(true, Ordering::Release);
        }
        Ok(last)
    }

    /// Keeps the history within its limits; looks for damage the first time.
    fn trim(&mut self) {
        self.trim_at = Instant::now() + TRIM_EVERY;
        self.untrimmed = 0;
        let Some(database) = &mut self.database else {
            return;
        };
        let check = if std::mem::replace(&mut self.checked, true) {
            Ok(())
        } else {
            database.check()
        };
        let passed = self.cursors.passed();
        let trimmed = check.and_then(|()| database.trim(&self.limits, passed, &self.boot_id));
        match trimmed {
            Ok(()) => {}
            Err(error @ StoreError::Damaged { .. }) => {
                let begun = self
                    .put_aside(&error)
                    .and_then(|()| self.begin_anew(&Batch::default()));
                if let Err(error) = begun {
                    // The next batch tries again.
                    warn!(%error, cause = cause(&error), "cannot begin a new store for now");
                }
                self.shared.wanted.notify_one();
            }
            Err(error) => {
                warn!(%error, cause = cause(&error), "cannot trim the history for now");
            }
        }
    }
}

/// The message of SQLite or the system, for the log.
fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests;
