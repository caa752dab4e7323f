//! Publishers: where events go.
//!
//! Each has a bounded queue and a task of its own, so a slow or dead one delays neither the
//! probe nor another publisher. What does not fit its queue is counted, never waited for.

pub(crate) mod containerd;
pub(crate) mod otlp;
pub(crate) mod stream;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{debug, warn};

use crate::OomEvent;

/// Events that wait for one publisher at most.
pub const PUBLISHER_QUEUE: usize = 4096;

/// What a publisher's work comes to.
pub type PublishFuture<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + 'a>>;

/// A place that events are sent to.
///
/// Called for one event at a time, in order, on a task of its own.
///
/// ```
/// use std::sync::Arc;
/// use oomwatch::{OomEvent, Publisher, PublishFuture};
///
/// struct Count(u64);
///
/// impl Publisher for Count {
///     fn name(&self) -> &str {
///         "count"
///     }
///     fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
///         self.0 += event.count;
///         Box::pin(async { Ok(()) })
///     }
/// }
/// ```
pub trait Publisher: Send + 'static {
    /// Name in logs and metrics.
    fn name(&self) -> &str;

    /// Called once, before the first event.
    ///
    /// # Errors
    /// After [`PublishError::Closed`] the publisher is not called again; another is logged.
    fn open(&mut self) -> PublishFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Sends one event on.
    ///
    /// # Errors
    /// [`PublishError::Failed`] and [`PublishError::Refused`] lose this event, which is counted; after
    /// [`PublishError::Closed`] the publisher is not called again.
    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_>;

    /// Sends on what is still held back, before the end.
    fn flush(&mut self) -> PublishFuture<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// Why an event was not sent on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// This event could not be sent.
    #[error("the event could not be published")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This event was refused, and would be again.
    #[error("the event was refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing can be sent any more.
    #[error("the publisher is closed")]
    Closed,
}

/// A publisher's queue, as the watcher sees it.
pub(crate) struct Queue {
    name: Arc<str>,
    sender: mpsc::Sender<Arc<OomEvent>>,
    task: JoinHandle<()>,
    overflowed: u64,
    /// Events that the publisher failed to send so far.
    failed: Arc<AtomicU64>,
}

impl Queue {
    /// Starts the publisher's task.
    pub(crate) fn start(publisher: Box<dyn Publisher>) -> Self {
        let (sender, receiver) = mpsc::channel(PUBLISHER_QUEUE);
        let failed = Arc::<AtomicU64>::default();
        Self {
            name: publisher.name().into(),
            sender,
            task: tokio::spawn(deliver(publisher, receiver, Arc::clone(&failed))),
            overflowed: 0,
            failed,
        }
    }

    /// Hands one event over, or counts it as lost.
    pub(crate) fn push(&mut self, event: &Arc<OomEvent>) {
        use mpsc::error::TrySendError;
        match self.sender.try_send(Arc::clone(event)) {
            // A publisher that closed itself has said so.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.overflowed += 1;
                if self.overflowed.is_power_of_two() {
                    warn!(publisher = %self.name, lost = self.overflowed, "a publisher is too slow: events lost");
                }
            }
        }
    }

    /// Events lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.overflowed + self.failed.load(Ordering::Relaxed)
    }

    /// Waits for the rest to be sent; returns the number of events lost in all.
    pub(crate) async fn finish(self) -> u64 {
        drop(self.sender);
        // One that panicked has failed to send what it counted.
        let _ = self.task.await;
        self.overflowed + self.failed.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("overflowed", &self.overflowed)
            .finish_non_exhaustive()
    }
}

async fn deliver(
    mut publisher: Box<dyn Publisher>,
    mut events: mpsc::Receiver<Arc<OomEvent>>,
    failed: Arc<AtomicU64>,
) {
    match publisher.open().await {
        Ok(()) => {}
        Err(PublishError::Closed) => return,
        Err(error) => warn!(publisher = publisher.name(), %error, "publisher not opened"),
    }
    while let Some(event) = events.recv().await {
        match publisher.publish(event).await {
            Ok(()) => {}
            Err(PublishError::Closed) => {
                debug!(publisher = publisher.name(), "publisher closed");
                return;
            }
            Err(error) => {
                failed.fetch_add(1, Ordering::Relaxed);
                warn!(publisher = publisher.name(), %error, "event not published");
            }
        }
    }
    if let Err(error) = publisher.flush().await {
        debug!(publisher = publisher.name(), %error, "publisher not flushed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::event_at;

    /// Fails to send, and tells when it is asked to.
    struct Failing(mpsc::UnboundedSender<()>);

    impl Publisher for Failing {
        fn name(&self) -> &'static str {
            "failing"
        }

        fn publish(&mut self, _: Arc<OomEvent>) -> PublishFuture<'_> {
            let _ = self.0.send(());
            Box::pin(async { Err(PublishError::Failed("no".into())) })
        }
    }

    #[tokio::test]
    async fn what_is_lost_is_known_at_once_and_told_once() {
        let (asked, mut sent) = mpsc::unbounded_channel();
        let mut queue = Queue::start(Box::new(Failing(asked)));
        // Its task has no turn meanwhile.
        for second in 0..PUBLISHER_QUEUE as u64 + 3 {
            queue.push(&Arc::new(event_at(second)));
        }
        assert_eq!(queue.lost(), 3);
        for _ in 0..2 {
            sent.recv().await.unwrap();
        }
        assert!(queue.lost() > 3, "{}", queue.lost());
        assert_eq!(queue.finish().await, PUBLISHER_QUEUE as u64 + 3);
    }
}
