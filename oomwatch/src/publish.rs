//! Publishers: where events go.
//!
//! Each has a bounded queue and a task of its own, so a slow or dead one delays neither the
//! probe nor another publisher. What does not fit its queue is counted, never waited for. One that
//! is to miss nothing reads the store instead, if there is one, and is behind for as long as need be.

#[cfg(feature = "containerd")]
pub(crate) mod containerd;
mod deliver;
pub(crate) mod journald;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
mod progress;
pub(crate) mod queue;
pub(crate) mod stream;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::event::OomEvent;

/// Events that wait in memory for one publisher at most.
pub const PUBLISHER_QUEUE: usize = 4096;

/// What a publisher's work comes to.
pub type PublishFuture<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + 'a>>;

/// What a publisher is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Events in order, each once. What does not fit its queue of [`PUBLISHER_QUEUE`] events, or
    /// fails, is lost, and counted.
    #[default]
    BestEffort,
    /// The same, and an event that failed is tried again, after 250 ms and up to every 30 s, until it
    /// is accepted or refused; those behind it wait.
    ///
    /// With [`crate::watcher::Builder::state_dir`] they wait in the store, through a restart and `kill -9` too:
    /// some may come again then, under the same [`OomEvent::id`]. What the limits of the history
    /// remove meanwhile is lost, and counted. A publisher whose name is new there begins with what
    /// comes from now on. Without a store they wait in the queue.
    AtLeastOnce,
}

impl Delivery {
    /// The name in the log and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best_effort",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

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
    /// Name in logs and metrics; and with [`Delivery::AtLeastOnce`], what the store knows it by from
    /// one run to the next.
    fn name(&self) -> &str;

    /// What it is promised. Always the same.
    fn delivery(&self) -> Delivery {
        Delivery::BestEffort
    }

    /// Called once, before the first event.
    ///
    /// # Errors
    /// After [`PublishError::Closed`] the publisher is not called again; another is logged.
    fn open(&mut self) -> PublishFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Sends one event on. With [`Delivery::AtLeastOnce`], `Ok` says that it has arrived.
    ///
    /// # Errors
    /// [`PublishError::Failed`] loses this event, which is counted, or has it tried again with
    /// [`Delivery::AtLeastOnce`]; [`PublishError::Refused`] loses it in any case. After
    /// [`PublishError::Closed`] the publisher is not called again.
    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_>;

    /// Sends on what is still held back, before the end, for which there is
    /// [`crate::watcher::Builder::grace`].
    fn flush(&mut self) -> PublishFuture<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// Why an event was not sent on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// This event could not be sent now.
    #[error("the event could not be published")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This event will never be accepted.
    #[error("the event is refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing can be sent any more.
    #[error("the publisher is closed")]
    Closed,
}

/// What became of the events of one publisher in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherReport {
    /// [`Publisher::name`].
    pub name: String,
    /// [`Publisher::delivery`].
    pub delivery: Delivery,
    /// Whether its events come from the store.
    pub from_store: bool,
    /// Events that it accepted.
    pub published: u64,
    /// Times that an event failed and was to be tried again.
    pub retries: u64,
    /// Events that wait: in its queue, or in the store.
    pub waiting: u64,
    /// Events that never came to it: they did not fit its queue, were left in it at the end, or are
    /// not in the store, or not any more.
    pub lost_in_queue: u64,
    /// Events that it refused, or failed to send.
    pub lost_by_publisher: u64,
}
