//! What a watcher came to, how a running one works, and how it fails.

use std::{io, sync::Arc};

use crate::{
    containers::sighting::RuntimeSocket, engine::Totals, publish::PublisherReport, tier::Tier,
};

/// What a watcher came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What was seen.
    pub totals: Totals,
    /// Kills that the node counted (`oom_kill` of `/proc/vmstat`) and that neither a record nor a container's counter
    /// showed, as of the last audit.
    pub residual: u64,
    /// What was lost, by stage.
    pub lost: Lost,
    /// Lost events that were left when the watcher stopped: they did not come out within the time of grace.
    pub lost_while_stopping: u64,
    /// Each publisher by itself.
    pub publishers: Vec<PublisherReport>,
}

/// What was lost, by stage. The stages are those of the metric `oomwatch_lost_total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Records of victims that found no room in the ring. Ledgers report those kills by number.
    pub ring: u64,
    /// Records of cgroups that found no room in the ring. A scan makes up for them.
    pub ring_cgroups: u64,
    /// Records that could not be decoded.
    pub decode: u64,
    /// Events that never came to a publisher: [`PublisherReport::lost_in_queue`], and the events that slow readers of
    /// [`super::Handle::events`] missed.
    pub queue: u64,
    /// Events that publishers refused, or failed to send: [`PublisherReport::lost_by_publisher`].
    pub publisher: u64,
    /// Events that are not in the history.
    pub store: u64,
}

impl Lost {
    /// Events that some publisher or the history did not get.
    pub(crate) fn events(&self) -> u64 {
        self.queue + self.publisher + self.store
    }
}

/// How a watcher failed after it had started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The kernel's records cannot be waited for any more.
    #[error("what the kernel says cannot be read any more: start oomwatch again")]
    Ring {
        /// The error of the system.
        #[source]
        source: io::Error,
        /// What was seen until then. All of it was published.
        report: Box<Report>,
    },
    /// A defect of oomwatch.
    #[error(
        "the watcher ended by a defect of oomwatch, which its log names: start it again, and report it"
    )]
    Panicked,
}

/// How a running watcher works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// How victims are found.
    pub tier: Tier,
    /// Whether events say which limit was hit.
    pub sees_limits: bool,
    /// Whether the host has counters to reconcile with.
    pub has_counters: bool,
    /// Cgroups that exist.
    pub cgroups: usize,
    /// Containers that are registered and exist.
    pub containers: usize,
    /// Name of the node in events.
    pub node: Option<Arc<str>>,
    /// The runtimes that are followed.
    pub sources: Vec<SourceReport>,
    /// What was seen so far.
    pub report: Report,
}

/// A runtime that is followed for the names of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// Where.
    pub socket: RuntimeSocket,
    /// Whether it has reported its containers and still reports changes. Otherwise the watcher tries again and again,
    /// and knows new containers of it by the paths of their cgroups alone.
    pub connected: bool,
}
