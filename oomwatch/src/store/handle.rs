//! The store as the watcher's task has it. Batches go to the writer's thread by a channel. What both share shows the
//! outcome. Nothing here waits for the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::Thread,
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    Batch, Saved, StoreConfig, StoreError,
    cursors::{Cursors, Nudge},
    database::Database,
    files::Files,
    outbox::Outbox,
    writer::Writer,
};
use crate::log::warn;

/// Room for one batch at a time, cursors that moved, and the end.
const MESSAGES: usize = 4;

/// How long opening a store may take. A run does without a disk that hangs.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Messages to the writer's thread.
#[derive(Debug)]
pub(super) enum Message {
    Batch(Box<Batch>),
    /// A publisher is further than its cursor.
    Cursors,
    /// No batch follows.
    Close,
}

/// The state that the watcher's task and the writer's thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// `is_writing`: a batch is with the writer. `events`: its events. `was_written`: whether the last one was
    /// written.
    pub(super) is_writing: AtomicBool,
    pub(super) events: AtomicUsize,
    pub(super) was_written: AtomicBool,
    pub(super) lost_events: AtomicU64,
    /// The stored ledgers differ from the engine's. Only a batch with all ledgers repairs that.
    pub(super) wants_whole: AtomicBool,
    pub(super) wanted: Notify,
    /// `hurrying`: the watcher stops and has some time. `stopping`: it has none.
    pub(super) hurrying: AtomicBool,
    pub(super) stopping: AtomicBool,
}

/// The store, as the watcher's task has it. Nothing here waits for the disk.
#[derive(Debug)]
pub(crate) struct Store {
    messages: SyncSender<Message>,
    outboxes: Vec<(Arc<str>, Outbox)>,
    shared: Arc<Shared>,
    thread: Thread,
    done: oneshot::Receiver<()>,
    is_overflowing: bool,
}

impl Store {
    /// As [`Self::open`], on another thread. Gives up after [`OPEN_LIMIT`] where the disk hangs.
    pub(crate) fn open_in_time(
        config: StoreConfig,
        boot_id: Arc<str>,
    ) -> Result<(Self, Saved), StoreError> {
        let path = config.dir.clone();
        let (sender, opened) = sync_channel(1);
        std::thread::Builder::new()
            .name("oomwatch-open".into())
            .spawn(move || {
                // If it is too late, the store is closed again.
                let _ = sender.send(Self::open(config, &boot_id));
            })
            .map_err(|source| StoreError::Thread { source })?;
        match opened.recv_timeout(OPEN_LIMIT) {
            Ok(opened) => opened,
            Err(_) => Err(StoreError::Hangs {
                path,
                limit: OPEN_LIMIT,
            }),
        }
    }

    /// Opens the store, or begins one, and starts its thread. Returns what an earlier run of this
    /// boot left.
    pub(crate) fn open(config: StoreConfig, boot_id: &str) -> Result<(Self, Saved), StoreError> {
        let files = Files::lock(&config.dir)?;
        let (mut database, saved) = Database::open_or_begin(&files, boot_id)?;
        let shared = Arc::new(Shared::default());
        // The first batch of a run has all ledgers. Ledgers of another boot, or of removed containers, go with it.
        shared.wants_whole.store(true, Ordering::Relaxed);
        let (messages, receiver) = sync_channel(MESSAGES);
        let (end, done) = oneshot::channel();
        let mut cursors = Cursors::new(database.last_number()?);
        let nudge = Nudge {
            messages: messages.clone(),
            nudged: cursors.nudged(),
        };
        let mut outboxes = Vec::new();
        let mut names = config.publishers;
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some((stored, done)) = cursors.add(&name, &mut database)? {
                let outbox = Outbox::new(files.database(), stored, done, nudge.clone());
                outboxes.push((name, outbox));
            }
        }
        let (limits, shared_too) = (config.limits, Arc::clone(&shared));
        let writer = Writer::new(database, files, boot_id, limits, shared_too, cursors);
        let handle = std::thread::Builder::new()
            .name("oomwatch-store".into())
            .spawn(move || {
                writer.run(&receiver);
                // Nobody may be waiting for the end any more.
                let _ = end.send(());
            })
            .map_err(|source| StoreError::Thread { source })?;
        let store = Self {
            messages,
            outboxes,
            shared,
            thread: handle.thread().clone(),
            done,
            is_overflowing: false,
        };
        Ok((store, saved))
    }

    /// The outbox of a publisher that was named when the store was opened; once.
    pub(crate) fn take_outbox(&mut self, publisher: &str) -> Option<Outbox> {
        let mut outboxes = self.outboxes.iter();
        let index = outboxes.position(|(name, _)| &**name == publisher)?;
        Some(self.outboxes.swap_remove(index).1)
    }

    /// Whether the next batch must have all ledgers.
    pub(crate) fn wants_whole(&self) -> bool {
        self.shared.wants_whole.load(Ordering::Acquire)
    }

    /// Waits until the writer is done with a batch, or needs one with all ledgers.
    pub(crate) async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }

    /// Whether a batch is with the writer: the next one waits.
    pub(crate) fn is_writing(&self) -> bool {
        self.shared.is_writing.load(Ordering::Acquire)
    }

    /// Whether the last batch that the writer was done with is in the file.
    pub(crate) fn was_written(&self) -> bool {
        self.shared.was_written.load(Ordering::Acquire)
    }

    /// Hands a batch over. None may be with the writer.
    pub(crate) fn write(&mut self, batch: Batch) {
        let (events, is_whole) = (batch.events.len(), batch.is_whole);
        self.is_overflowing = false;
        self.shared.events.store(events, Ordering::Release);
        self.shared.is_writing.store(true, Ordering::Release);
        if is_whole {
            // Before the handover: the writer may ask anew as soon as it has the batch.
            self.shared.wants_whole.store(false, Ordering::Release);
        }
        if self
            .messages
            .try_send(Message::Batch(Box::new(batch)))
            .is_err()
        {
            // The thread is gone. The stored ledgers differ from the watcher's now.
            self.shared.wants_whole.store(true, Ordering::Release);
            self.shared.done(false);
        }
    }

    /// Counts an event that no batch has room for.
    pub(crate) fn lose(&mut self, events: usize) {
        self.shared.lose(events);
        if !std::mem::replace(&mut self.is_overflowing, true) {
            warn!(
                lost = self.lost_events(),
                "the store is too slow: events are lost to the history"
            );
        }
    }

    /// Events that are in no history.
    pub(crate) fn lost_events(&self) -> u64 {
        self.shared.lost_events.load(Ordering::Acquire)
    }

    /// The watcher stops: a failed write is tried again soon.
    pub(crate) fn hurry(&self) {
        self.shared.hurrying.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// No batch follows. Outboxes end after the last one. Events that cannot be written now are lost.
    pub(crate) fn close(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.thread.unpark();
        // There is room for it.
        let _ = self.messages.try_send(Message::Close);
    }

    /// Waits until the rest is written, cursors too, not longer than `until`. Returns the number of events lost in
    /// all. Outboxes must be dropped before.
    pub(crate) async fn finish(self, until: Instant) -> u64 {
        self.close();
        drop(self.messages);
        drop(self.outboxes);
        let is_over = timeout_at(until, self.done).await.is_ok();
        if !is_over && self.shared.is_writing.load(Ordering::Acquire) {
            self.shared.done(false);
            warn!(
                lost = self.shared.lost_events.load(Ordering::Acquire),
                "the store did not stop in time: events are lost to the history"
            );
        }
        self.shared.lost_events.load(Ordering::Acquire)
    }
}

impl Shared {
    /// The writer is done with a batch, or will not be.
    pub(super) fn done(&self, is_written: bool) {
        let events = self.events.swap(0, Ordering::AcqRel);
        if !is_written {
            self.lose(events);
        }
        self.was_written.store(is_written, Ordering::Release);
        self.is_writing.store(false, Ordering::Release);
        self.wanted.notify_one();
    }

    pub(super) fn lose(&self, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.lost_events.fetch_add(events, Ordering::AcqRel);
    }
}
