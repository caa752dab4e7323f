//! Publishers: where events go.
//!
//! Each has a bounded queue and a task of its own, so a slow or dead one delays neither the probe nor another
//! publisher. An event without room in the queue is counted, never waited for. A publisher that must miss nothing
//! reads the store instead, if there is one. It may then be behind for any time.

#[cfg(feature = "containerd")]
pub(crate) mod containerd;
mod deliver;
pub(crate) mod journald;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
mod lanes;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
mod progress;
pub(crate) mod queue;
pub(crate) mod stream;
mod tries;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::event::OomEvent;

/// Events that wait in memory for one publisher at most.
pub const PUBLISHER_QUEUE: usize = 4096;

/// The outcome of a publisher's call.
pub type PublishFuture<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + 'a>>;

/// The delivery that a publisher is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Events in order, each once. An event without room in the queue of [`PUBLISHER_QUEUE`] events is lost, and
    /// counted. So is an event that fails.
    #[default]
    BestEffort,
    /// Events in order. A failed event is tried again until it is accepted or refused, and the events behind it wait.
    /// The first retry comes after 250 ms, later ones up to every 30 s. Where a publisher has several destinations,
    /// this holds for each ([`Publisher::destination`]).
    ///
    /// With [`crate::watcher::Builder::state_dir`] events wait in the store, through a restart and `kill -9` too.
    /// Some may then come again, under the same [`OomEvent::id`]. Events that the limits of the history remove
    /// meanwhile are lost, and counted. A publisher whose name is new there begins with the next event. Without a
    /// store events wait in the queue.
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
/// Called for one event at a time, in order, on a task of its own. With several destinations there is a task for each.
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
    /// Name in logs and metrics. With [`Delivery::AtLeastOnce`], the store knows the publisher by it from one run to
    /// the next.
    fn name(&self) -> &str;

    /// The promised delivery. Always the same.
    fn delivery(&self) -> Delivery {
        Delivery::BestEffort
    }

    /// Called once, before the first event.
    ///
    /// # Errors
    /// After [`PublishError::Closed`] the publisher is not called again. Another error is logged.
    fn open(&mut self) -> PublishFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Sends one event on. With [`Delivery::AtLeastOnce`], `Ok` means that it has arrived.
    ///
    /// # Errors
    /// [`PublishError::Failed`] loses this event, and counts it. With [`Delivery::AtLeastOnce`] the event is tried
    /// again instead, and so is one with [`PublishError::Unreachable`]. [`PublishError::Refused`] loses it in any case.
    /// After [`PublishError::Closed`] the publisher is not called again.
    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_>;

    /// The name of the destination that an event goes to, where a publisher has several that fail by themselves. One
    /// that fails then delays no other.
    ///
    /// Each destination gets a publisher of its own from [`Self::only_to`]. Up to 64 destinations have up to 64
    /// waiting events each. Further events for a destination that fails are lost, and counted. While nothing can be
    /// reached ([`PublishError::Unreachable`]) they wait instead.
    fn destination(&self, event: &OomEvent) -> Option<String> {
        let _ = event;
        None
    }

    /// A publisher for the events of one destination. It has a task of its own.
    fn only_to(&self, destination: &str) -> Option<Box<dyn Publisher>> {
        let _ = destination;
        None
    }

    /// Sends the events that are still held back, before the end. It has [`crate::watcher::Builder::grace`] for that.
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
    /// No event could be sent now, to any destination.
    #[error("events cannot be published for now")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This event will never be accepted.
    #[error("the event is refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing can be sent any more.
    #[error("the publisher is closed")]
    Closed,
}

/// The outcome of one publisher's events in this run.
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
    /// Events that never reached it. They did not fit its queue, were left in it at the end, or are not or no longer
    /// in the store.
    pub lost_in_queue: u64,
    /// Events that it refused, or failed to send. Events of a destination that fails and has no room for more.
    pub lost_by_publisher: u64,
}
