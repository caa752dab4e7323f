//! Reports every OOM kill on a Linux host: which container lost which process, whose allocation caused it, and which
//! limit was hit.
//!
//! An eBPF program on the `oom:mark_victim` tracepoint sends each victim through a ring buffer. User space names the
//! container, checks the kill against the cgroup's `oom_kill` counter, and publishes an [`OomEvent`]. Start with
//! [`Watcher::builder`].
//!
//! Features: the bare library has the probe, the engine, the watcher, publishers of one's own, text and JSON.
//! `runtimes`, `store`, `metrics`, `api`, `containerd`, `kubernetes`, `otlp` and `probe-log` add the parts of their
//! names. `command` is for the command.
//!
//! Minimum kernel: 5.8 with cgroup v2. Without BTF less is known ([`Tier`]). Needs root, or `CAP_BPF`, `CAP_PERFMON`
//! and `CAP_DAC_READ_SEARCH`; [`Tier::Counters`] needs neither. Installs no signal handler, runtime or logger.

#![cfg_attr(docsrs, feature(doc_cfg))]

// Decides: no files, no clock, no async.
mod attribute;
mod containers;
mod engine;
mod event;
mod id;
mod ledger;
mod log;
mod memory_events;
mod reconcile;
mod record;
mod tier;
mod topology;

// Does I/O.
#[cfg(feature = "api")]
mod api;
mod cgroup;
mod clock;
mod counters;
#[cfg(feature = "metrics")]
mod counts;
mod drill;
pub mod host;
mod lock;
#[cfg(feature = "metrics")]
mod metrics;
mod probe;
mod publish;
mod retry;
#[cfg(feature = "runtimes")]
mod runtimes;
mod store;
mod watcher;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;

/// What the fuzz targets call: a parser each, on any bytes, and what must hold for its result.
#[cfg(fuzzing)]
pub mod fuzz {
    /// Paths of cgroups, from the kernel and from whoever names cgroups.
    pub fn cgroup_path(bytes: &[u8]) {
        crate::containers::path::invariants::check(bytes);
    }
}

#[cfg(feature = "api")]
pub use self::api::{
    Api, ApiPublisher, ControlAccess, ControlError, ControlSocket, ListenError, MetricsFuture,
    ReadOnlyListener, Serving,
};
#[cfg(feature = "metrics")]
pub use self::counts::{Counts, MAX_COUNTED_CONTAINERS};
#[cfg(feature = "metrics")]
pub use self::metrics::{Metrics, MetricsFormat};
#[cfg(feature = "containerd")]
pub use self::publish::containerd::{ContainerdMode, ContainerdPublisher};
#[cfg(feature = "kubernetes")]
pub use self::publish::kubernetes::{KubernetesError, KubernetesPublisher};
#[cfg(feature = "otlp")]
pub use self::publish::otlp::{OtlpError, OtlpPublisher};
#[cfg(feature = "store")]
pub use self::store::{
    StoreError,
    history::{History, HistoryEntry, HistoryFilter},
};
pub use self::{
    cgroup::hierarchy::CgroupError,
    containers::{
        by_path::CgroupDiscovery,
        container::{Container, ContainerDetails},
        identity::Identity,
        registry::RegistryError,
        sighting::{RuntimeApi, RuntimeSocket},
    },
    engine::{Totals, naming::Registered},
    event::{
        Attribution, Counter, Evidence, Group, Kind, Limit, OomEvent, Place, PlaceKind, Quality,
        SCHEMA, Scope, Trigger, Victim, json::read::ReadError,
    },
    id::{CgroupId, ContainerId, ContainerIdError, MAX_CONTAINER_ID_BYTES, printable},
    memory_events::MemoryEventsError,
    probe::{
        DEFAULT_RING_BYTES, ProbeError,
        pin::{PinError, Unpinned, unpin},
    },
    publish::{
        Delivery, PUBLISHER_QUEUE, PublishError, PublishFuture, Publisher, PublisherReport,
        journald::{JOURNAL_MESSAGE_ID, JournaldPublisher},
        stream::Events,
    },
    record::Constraint,
    store::STORE_QUEUE,
    tier::{Tier, TierChoice},
    watcher::{
        AddError, Builder, Handle, Lost, Report, SourceReport, StartError, Status, Stopped,
        WatchError, Watcher,
    },
};
