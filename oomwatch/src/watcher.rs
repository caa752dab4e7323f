//! The watcher: starts the probe, owns the loop, and is the handle that programs hold.
//!
//! One task owns all state and runs a closed set of events; handles hold only senders. Start order: the steps that
//! may fail, attach, scan, read, ready. Stop order: detach, last drain, last audit, flush the publishers within the
//! time of grace, join.

mod audit;
#[cfg(test)]
pub(crate) mod contract;
mod options;
mod report;
#[cfg(any(feature = "api", feature = "metrics"))]
pub(crate) mod requests;
mod source;
mod task;

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::DropGuard;

use self::options::{OnPublish, Options};
pub use self::{
    options::Builder,
    report::{Lost, Report, SourceReport, Status, WatchError},
};
use crate::{
    cgroup::hierarchy::{CgroupError, Hierarchy, MemoryMode},
    containers::registry::RegistryError,
    engine::naming::Registered,
    id::{CgroupId, ContainerId, ContainerIdError},
    probe::ProbeError,
    publish::stream::Events,
};

/// Most requests that wait for the watcher's task; callers wait beyond that.
const COMMAND_QUEUE: usize = 64;
/// Containers that are described at a time.
const DESCRIBED: usize = 256;

/// Why a watcher did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The eBPF side.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The cgroup hierarchy.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The tier that reads counters only, on a host that has none to read.
    #[error(
        "tier counters is not possible on this host: {reason} (cgroup v2 is mounted at {})",
        mount.display()
    )]
    NoCounters {
        /// Where the hierarchy is mounted.
        mount: PathBuf,
        /// Why not, and what would help.
        reason: &'static str,
    },
    /// Watching the counters' files.
    #[error("cannot watch the counters of cgroups")]
    Watch(#[source] io::Error),
    /// The first scan of the hierarchy.
    #[error("cannot scan the cgroup hierarchy at {}", mount.display())]
    Scan {
        /// Where it is mounted.
        mount: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread that follows container runtimes.
    #[error("cannot start the thread that follows container runtimes")]
    Sources(#[source] io::Error),
    /// A container that was to be there from the start.
    #[error(transparent)]
    Add(#[from] AddError),
}

/// Why a container was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The id.
    #[error(transparent)]
    Id(#[from] ContainerIdError),
    /// The path.
    #[error(transparent)]
    Path(#[from] CgroupError),
    /// It is in use.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The watcher is not running any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The watcher is not running any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watcher has stopped")]
pub struct Stopped;

/// Something that the watcher's task is asked for.
enum Command {
    Add {
        id: String,
        cgroup: PathBuf,
        answer: oneshot::Sender<Result<(), AddError>>,
    },
    Remove {
        id: ContainerId,
        answer: oneshot::Sender<Result<(), AddError>>,
    },
    Subscribe {
        answer: oneshot::Sender<Events>,
    },
    Status {
        answer: oneshot::Sender<Status>,
    },
    Cgroups {
        answer: oneshot::Sender<Vec<CgroupId>>,
    },
    Describe {
        cgroups: Vec<CgroupId>,
        answer: oneshot::Sender<Vec<Registered>>,
    },
}

/// Talks to a running watcher; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// A running watcher. Dropping it stops it; [`Watcher::shutdown`] does so in order.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let watcher = oomwatch::Watcher::builder().start().await?;
/// watcher.add("web-1", "/sys/fs/cgroup/web-1").await?;
/// let mut events = watcher.events().await?;
/// while let Some(event) = events.next().await {
///     println!("{}", event.to_text(false));
/// }
/// let report = watcher.shutdown().await?;
/// println!("{} kills", report.totals.kills);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watcher {
    handle: Handle,
    task: JoinHandle<Result<Report, WatchError>>,
    /// How the task ended, once somebody waited for that.
    outcome: Option<Result<Report, WatchError>>,
    stop: DropGuard,
}

impl Watcher {
    /// Makes a watcher.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A handle that outlives borrows of this watcher.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// See [`Handle::add`].
    ///
    /// # Errors
    /// As [`Handle::add`].
    pub async fn add(&self, id: &str, cgroup: impl AsRef<Path>) -> Result<(), AddError> {
        self.handle.add(id, cgroup).await
    }

    /// See [`Handle::remove`].
    ///
    /// # Errors
    /// As [`Handle::remove`].
    pub async fn remove(&self, id: &str) -> Result<(), AddError> {
        self.handle.remove(id).await
    }

    /// See [`Handle::events`].
    ///
    /// # Errors
    /// As [`Handle::events`].
    pub async fn events(&self) -> Result<Events, Stopped> {
        self.handle.events().await
    }

    /// See [`Handle::containers`].
    ///
    /// # Errors
    /// As [`Handle::containers`].
    pub async fn containers(&self) -> Result<Vec<Registered>, Stopped> {
        self.handle.containers().await
    }

    /// See [`Handle::status`].
    ///
    /// # Errors
    /// As [`Handle::status`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.handle.status().await
    }

    /// Waits until the watcher ends by itself. It does so only if it fails, and [`Self::shutdown`] returns the error.
    /// Whoever runs a watcher for long waits for this too, or the watcher may end unnoticed.
    pub async fn ended(&mut self) {
        if self.outcome.is_none() {
            let ended = (&mut self.task).await;
            self.outcome = Some(ended.unwrap_or(Err(WatchError::Panicked)));
        }
    }

    /// Detaches, drains the ring a last time, flushes the publishers, and returns the report.
    ///
    /// # Errors
    /// When the watcher had failed before.
    pub async fn shutdown(mut self) -> Result<Report, WatchError> {
        drop(self.stop);
        match self.outcome.take() {
            Some(outcome) => outcome,
            None => self.task.await.unwrap_or(Err(WatchError::Panicked)),
        }
    }
}

impl Handle {
    /// Registers a container: from now on it owns the kills in its cgroup and below.
    ///
    /// With [`Builder::state_dir`] the registration outlives the watcher, within one boot. Registering it again is
    /// then no error, once.
    ///
    /// # Errors
    /// When the id or the path is bad or in use, or the watcher has stopped.
    pub async fn add(&self, id: &str, cgroup: impl AsRef<Path>) -> Result<(), AddError> {
        let (id, cgroup) = (id.to_owned(), cgroup.as_ref().to_owned());
        self.ask(|answer| Command::Add { id, cgroup, answer })
            .await?
    }

    /// Unregisters a container; later kills there are unregistered.
    ///
    /// # Errors
    /// When no such container is registered, or the watcher has stopped.
    pub async fn remove(&self, id: &str) -> Result<(), AddError> {
        let id = ContainerId::new(id)?;
        self.ask(|answer| Command::Remove { id, answer }).await?
    }

    /// All events from now on.
    ///
    /// # Errors
    /// When the watcher has stopped.
    pub async fn events(&self) -> Result<Events, Stopped> {
        self.ask(|answer| Command::Subscribe { answer }).await
    }

    /// How the watcher works and what it saw.
    ///
    /// # Errors
    /// When the watcher has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(|answer| Command::Status { answer }).await
    }

    /// All containers that are registered and exist, in no order that means anything.
    ///
    /// The watcher describes 256 at a time, so that kills are not kept waiting. A container that comes or goes
    /// meanwhile may be missing.
    ///
    /// # Errors
    /// When the watcher has stopped.
    pub async fn containers(&self) -> Result<Vec<Registered>, Stopped> {
        let all = self.ask(|answer| Command::Cgroups { answer }).await?;
        let mut containers = Vec::with_capacity(all.len());
        for some in all.chunks(DESCRIBED) {
            let cgroups = some.to_vec();
            let described = self.ask(|answer| Command::Describe { cgroups, answer });
            containers.append(&mut described.await?);
        }
        Ok(containers)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

/// Whether this host has counters to reconcile with.
fn has_counters(hierarchy: &Hierarchy) -> bool {
    hierarchy.mode() == MemoryMode::Unified
}
