//! How a watcher is made: the builder, and the options that it collects.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{COMMAND_QUEUE, Handle, StartError, Watcher, task};
use crate::{
    containers::{by_path::CgroupDiscovery, sighting::RuntimeSocket},
    event::OomEvent,
    probe::DEFAULT_RING_BYTES,
    publish::Publisher,
    store::Limits,
    tier::TierChoice,
};

/// How long publishers may take at the end.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// Makes a [`Watcher`].
#[derive(Default)]
pub struct Builder {
    options: Options,
    publishers: Vec<Box<dyn Publisher>>,
    containers: Vec<(String, PathBuf)>,
}

/// Sees each event as it is published, before any queue.
pub(super) type OnPublish = Box<dyn FnMut(&OomEvent) + Send>;

pub(super) struct Options {
    pub(super) discovery: CgroupDiscovery,
    pub(super) units: bool,
    pub(super) sockets: Vec<RuntimeSocket>,
    pub(super) possible_sockets: Vec<RuntimeSocket>,
    pub(super) ring_bytes: u32,
    pub(super) tier: TierChoice,
    pub(super) node: Option<Arc<str>>,
    pub(super) log_probe: bool,
    pub(super) pin: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) grace: Duration,
    pub(super) on_publish: Option<OnPublish>,
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
