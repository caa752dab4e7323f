//! A publisher as the watcher's task sees it: a queue for events, and numbers to read.
//!
//! Nothing here waits. Behind it is the publisher's own task ([`super::deliver`]). Its events come from a bounded
//! queue, or from the store's outbox.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Delivery, PUBLISHER_QUEUE, Publisher, PublisherReport,
    deliver::{Feed, deliver},
    progress::{Progress, add, get},
};
use crate::{
    event::OomEvent,
    log::warn,
    store::outbox::{Backlog, Outbox},
};

/// Where events wait.
enum QueueKind {
    /// `None` once nothing more comes.
    Memory(Option<mpsc::Sender<Arc<OomEvent>>>),
    Store(Backlog),
}

/// A publisher's queue.
pub(crate) struct Queue {
    name: Arc<str>,
    delivery: Delivery,
    way: QueueKind,
    counts: Arc<Progress>,
    task: JoinHandle<()>,
}

impl Queue {
    /// Starts the publisher's task. With an outbox, its events come from there. The task notifies `progress` after
    /// each event.
    pub(crate) fn start(
        publisher: Box<dyn Publisher>,
        outbox: Option<Outbox>,
        progress: Option<Arc<Notify>>,
    ) -> Self {
        let (name, delivery) = (publisher.name().into(), publisher.delivery());
        let (way, feed) = match outbox {
            Some(outbox) => (
                QueueKind::Store(outbox.backlog()),
                Feed::Store(Box::new(outbox)),
            ),
            None => {
                let (sender, receiver) = mpsc::channel(PUBLISHER_QUEUE);
                (QueueKind::Memory(Some(sender)), Feed::memory(receiver))
            }
        };
        let counts = Arc::<Progress>::default();
        let task = tokio::spawn(deliver(publisher, feed, Arc::clone(&counts), progress));
        Self {
            name,
            delivery,
            way,
            counts,
            task,
        }
    }

    /// Hands one event over, or counts it as lost.
    pub(crate) fn push(&mut self, event: &Arc<OomEvent>) {
        use mpsc::error::TrySendError;
        let QueueKind::Memory(Some(sender)) = &self.way else {
            return;
        };
        match sender.try_send(Arc::clone(event)) {
            Ok(()) => {
                add(&self.counts.queued, 1);
            }
            // A publisher that closed itself has logged so.
            Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                let lost = add(&self.counts.lost_in_queue, 1);
                if lost.is_power_of_two() {
                    warn!(publisher = %self.name, lost, "a publisher is too slow and lost events");
                }
            }
        }
    }

    /// The current numbers. Events that the store lost are missing in the outbox too.
    pub(crate) fn report(&self, lost_by_store: u64) -> PublisherReport {
        let counts = &self.counts;
        let from_store = matches!(self.way, QueueKind::Store(_));
        let lost_before = if from_store { lost_by_store } else { 0 };
        PublisherReport {
            name: self.name.to_string(),
            delivery: self.delivery,
            from_store,
            published: get(&counts.published),
            retries: get(&counts.retries),
            waiting: match &self.way {
                QueueKind::Memory(_) => self.queued(),
                QueueKind::Store(backlog) => {
                    backlog.len().saturating_sub(get(&counts.settled_ahead))
                }
            },
            lost_in_queue: get(&counts.lost_in_queue).saturating_add(lost_before),
            lost_by_publisher: get(&counts.lost_by_publisher),
        }
    }

    /// Whether no event in memory is open any more. Never true if the task ended before that.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.way, QueueKind::Store(_)) || self.left() == 0
    }

    /// Events in memory without an outcome yet.
    fn queued(&self) -> u64 {
        if self.task.is_finished() {
            return 0;
        }
        self.left()
    }

    /// The same, also where they will never have an outcome.
    fn left(&self) -> u64 {
        if self.counts.is_unwanted.load(Ordering::Relaxed) {
            return 0;
        }
        let dealt_with = get(&self.counts.published) + get(&self.counts.lost_by_publisher);
        get(&self.counts.queued).saturating_sub(dealt_with)
    }

    /// Nothing more comes.
    pub(crate) fn close(&mut self) {
        if let QueueKind::Memory(sender) = &mut self.way {
            *sender = None;
        }
    }

    /// Waits until the rest is sent, not longer than `until`. Events left then stay in the store, or are lost.
    pub(crate) async fn finish(&mut self, until: Instant) {
        self.close();
        let is_over = timeout_at(until, &mut self.task).await.is_ok();
        let left = match &self.way {
            QueueKind::Memory(_) => self.left(),
            QueueKind::Store(backlog) => backlog.len(),
        };
        if !is_over {
            self.task.abort();
            // Its outbox is dropped with it.
            let _ = (&mut self.task).await;
        } else if left == 0 || matches!(self.way, QueueKind::Store(_)) {
            return;
        }
        match self.way {
            QueueKind::Memory(_) if left > 0 => {
                add(&self.counts.lost_in_queue, left);
                warn!(publisher = %self.name, lost = left, "a publisher did not stop in time and lost events");
            }
            QueueKind::Memory(_) => {
                warn!(publisher = %self.name, "a publisher did not stop in time");
            }
            QueueKind::Store(_) => {
                warn!(publisher = %self.name, left, "a publisher did not stop in time: its events stay in the store until the next start");
            }
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
