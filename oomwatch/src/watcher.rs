//! The watcher: starts the probe, owns the loop, and is the handle that programs hold.
//!
//! One task owns all state and runs a closed set of events; handles hold only senders. Start order: the steps that
//! may fail, attach, scan, read, ready. Stop order: detach, last drain, last audit, flush the publishers within the
//! time of grace, join.

mod audit;
#[cfg(test)]
pub(crate) mod contract;
#[cfg(any(feature = "api", feature = "metrics"))]
pub(crate) mod requests;
mod source;
mod task;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    cgroup::hierarchy::{CgroupError, Hierarchy, MemoryMode},
    containers::{
        by_path::{CgroupDiscovery, CgroupDiscovery as Discovery},
        registry::RegistryError,
        sighting::RuntimeSocket,
    },
    engine::{Totals, naming::Registered},
    event::OomEvent,
    id::{CgroupId, ContainerId, ContainerIdError},
    probe::{DEFAULT_RING_BYTES, ProbeError},
    publish::{Publisher, PublisherReport, stream::Events},
    store::Limits,
    tier::{Tier, TierChoice},
};

/// Most requests that wait for the watcher's task; callers wait beyond that.
const COMMAND_QUEUE: usize = 64;
/// Containers that are described at a time.
const DESCRIBED: usize = 256;
/// How long publishers may take at the end.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

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
    /// [`Handle::events`] missed.
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

/// Makes a [`Watcher`].
#[derive(Default)]
pub struct Builder {
    options: Options,
    publishers: Vec<Box<dyn Publisher>>,
    containers: Vec<(String, PathBuf)>,
}

/// Sees each event as it is published, before any queue.
type OnPublish = Box<dyn FnMut(&OomEvent) + Send>;

struct Options {
    discovery: Discovery,
    units: bool,
    sockets: Vec<RuntimeSocket>,
    possible_sockets: Vec<RuntimeSocket>,
    ring_bytes: u32,
    tier: TierChoice,
    node: Option<Arc<str>>,
    log_probe: bool,
    pin: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    limits: Limits,
    grace: Duration,
    on_publish: Option<OnPublish>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            discovery: CgroupDiscovery::Off,
            units: false,
            sockets: Vec::new(),
            possible_sockets: Vec::new(),
            ring_bytes: DEFAULT_RING_BYTES,
            tier: TierChoice::Auto,
            node: None,
            log_probe: false,
            pin: None,
            state_dir: None,
            limits: Limits::default(),
            grace: DEFAULT_GRACE,
            on_publish: None,
        }
    }
}

impl Builder {
    /// Adds a publisher.
    #[must_use]
    pub fn publisher(mut self, publisher: impl Publisher) -> Self {
        self.publishers.push(Box::new(publisher));
        self
    }

    /// Registers a container before the watcher is ready: id, and path of its cgroup's
    /// directory under the cgroup v2 mount.
    #[must_use]
    pub fn container(mut self, id: impl Into<String>, cgroup: impl Into<PathBuf>) -> Self {
        self.containers.push((id.into(), cgroup.into()));
        self
    }

    /// Which cgroups the watcher registers by itself; default none.
    #[must_use]
    pub fn discover_cgroups(mut self, discovery: CgroupDiscovery) -> Self {
        self.options.discovery = discovery;
        self
    }

    /// Registers systemd's services and scopes as containers, under their names; default is not to.
    #[must_use]
    pub fn discover_units(mut self, units: bool) -> Self {
        self.options.units = units;
        self
    }

    #[cfg(feature = "runtimes")]
    /// Follows the runtime at this socket. The runtime names its containers, and the watcher registers those that no
    /// path gives away. As long as the watcher runs, it retries a runtime that is down.
    #[must_use]
    pub fn runtime(mut self, socket: RuntimeSocket) -> Self {
        self.options.sockets.push(socket);
        self
    }

    #[cfg(feature = "runtimes")]
    /// As [`Self::runtime`], from when the socket is there. The watcher looks for the socket once a minute.
    #[must_use]
    pub fn runtime_if_present(mut self, socket: RuntimeSocket) -> Self {
        self.options.possible_sockets.push(socket);
        self
    }

    /// Size of the ring buffer in bytes: a power of two of pages.
    #[must_use]
    pub fn ring_bytes(mut self, ring_bytes: u32) -> Self {
        self.options.ring_bytes = ring_bytes;
        self
    }

    /// How victims are found; default the best way that this host allows.
    #[must_use]
    pub fn tier(mut self, tier: TierChoice) -> Self {
        self.options.tier = tier;
        self
    }

    /// Name of this node in events; default the host name.
    #[must_use]
    pub fn node(mut self, node: impl Into<Arc<str>>) -> Self {
        self.options.node = Some(node.into());
        self
    }

    #[cfg(feature = "probe-log")]
    /// Lets the eBPF programs log to the `log` crate, for debugging the probe.
    #[must_use]
    pub fn log_probe(mut self, log: bool) -> Self {
        self.options.log_probe = log;
        self
    }

    /// Pins the programs and their ring in this directory of a BPF file system, such as `/sys/fs/bpf/oomwatch`. They
    /// keep running when the watcher stops, however it stops. The next watcher reports the kills in between with all
    /// details and `while_down`. It replaces another version's programs after it has read their ring. With
    /// [`Self::state_dir`] each kill is reported once, however a watcher ends; without, at least once after a crash.
    /// [`crate::probe::pin::unpin`] removes the pins.
    ///
    /// If oomwatch did not make what is in the directory, the watcher logs that and runs without pins. It does the
    /// same in [`Tier::Pid`] and [`Tier::Counters`].
    #[must_use]
    pub fn pin(mut self, dir: impl Into<PathBuf>) -> Self {
        self.options.pin = Some(dir.into());
        self
    }

    #[cfg(feature = "store")]
    /// Keeps the history and the ledgers in this directory; default is not to. Kills while no watcher runs are then
    /// reported as [`crate::event::Kind::CounterOnly`], with `while_down`. If the directory cannot be used, the
    /// watcher logs that and runs without it. Read it with [`crate::store::history::History`].
    #[must_use]
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.options.state_dir = Some(dir.into());
        self
    }

    #[cfg(feature = "store")]
    /// Keeps no older history; default 30 days. The age counts time that is known to have passed while the host ran,
    /// and no wall clock. Age alone removes no event that an at-least-once publisher has yet to send.
    #[must_use]
    pub fn history_max_age(mut self, max_age: Duration) -> Self {
        self.options.limits.max_age = max_age;
        self
    }

    #[cfg(feature = "store")]
    /// Keeps no more bytes of history; default 64 MiB. SQLite's log beside it takes up to a few MiB more.
    #[must_use]
    pub fn history_max_bytes(mut self, max_bytes: u64) -> Self {
        self.options.limits.max_bytes = max_bytes;
        self
    }

    /// How long [`Watcher::shutdown`] waits for publishers; default 5 s. An event not published by then stays in the
    /// store for the next start ([`crate::publish::Delivery::AtLeastOnce`]), or is counted as lost.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }

    #[cfg(feature = "metrics")]
    /// Enters every event into these numbers as it is published, before any queue; default is not to.
    #[must_use]
    pub fn counts(mut self, counts: &crate::counts::Counts) -> Self {
        let counts = counts.clone();
        self.options.on_publish = Some(Box::new(move |event| counts.enter(event)));
        self
    }

    /// Loads and attaches the probe, scans the cgroups, and starts watching.
    ///
    /// Returns only after that: a kill that happens later is reported. Must be called in a
    /// tokio runtime with I/O and time enabled; the watcher's task runs there.
    ///
    /// Minimum kernel: 5.8, as root or with `CAP_BPF`, `CAP_PERFMON` and `CAP_DAC_READ_SEARCH`;
    /// [`Tier::Counters`] needs neither if it is asked for.
    ///
    /// # Errors
    /// When no tier that was asked for is possible, or no cgroup v2 is mounted. When one of the containers cannot be
    /// registered. When the pin directory is in use, or on no BPF file system.
    pub async fn start(self) -> Result<Watcher, StartError> {
        let task = task::Task::start(self.options, self.publishers, &self.containers)?;
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let stop = CancellationToken::new();
        Ok(Watcher {
            handle: Handle { commands },
            task: tokio::spawn(task.run(receiver, stop.clone())),
            outcome: None,
            stop: stop.drop_guard(),
        })
    }
}

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
