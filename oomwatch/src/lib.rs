//! Tells, for every OOM kill on a Linux host, which container lost which process, whose
//! allocation caused it and which limit was hit.
//!
//! An eBPF program on the `oom:mark_victim` tracepoint sends each victim through a ring
//! buffer; user space names the container, holds the kill against the cgroup's `oom_kill`
//! counter, and publishes an [`OomEvent`]. Start with [`Watcher::builder`].
//!
//! Minimum kernel: 5.8 with cgroup v2; without BTF less is known ([`Tier`]). Needs root, or
//! `CAP_BPF`, `CAP_PERFMON` and `CAP_DAC_READ_SEARCH`; [`Tier::Counters`] needs neither. Installs no signal handler, runtime or logger.

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
mod api;
mod cgroup;
mod clock;
mod counters;
mod counts;
mod drill;
pub mod host;
mod metrics;
mod probe;
mod publish;
mod retry;
mod runtimes;
mod store;
mod watcher;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;

#[doc(hidden)]
pub use self::containers::path;
pub use self::{
    api::{
        Api, ApiPublisher, ControlAccess, ControlError, ControlSocket, ListenError, MetricsFuture,
        ReadOnlyListener, Serving,
    },
    cgroup::hierarchy::CgroupError,
    containers::{
        by_path::CgroupDiscovery,
        container::{Container, ContainerDetails},
        registry::RegistryError,
        sighting::RuntimeApi,
    },
    counts::{Counts, MAX_COUNTED_CONTAINERS},
    engine::{Totals, naming::Registered},
    event::{
        Attribution, Counter, Evidence, Group, Kind, Limit, OomEvent, Quality, SCHEMA, Scope,
        Trigger, Victim,
    },
    id::{CgroupId, ContainerId, ContainerIdError, MAX_CONTAINER_ID_BYTES, printable},
    memory_events::MemoryEventsError,
    metrics::{Metrics, MetricsFormat},
    probe::{
        DEFAULT_RING_BYTES, ProbeError,
        pin::{PinError, Unpinned, unpin},
    },
    publish::{
        Delivery, PUBLISHER_QUEUE, PublishError, PublishFuture, Publisher, PublisherReport,
        containerd::{ContainerdMode, ContainerdPublisher},
        journald::{JOURNAL_MESSAGE_ID, JournaldPublisher},
        kubernetes::{KubernetesError, KubernetesPublisher},
        otlp::{OtlpError, OtlpPublisher},
        stream::Events,
    },
    record::Constraint,
    runtimes::source::RuntimeSocket,
    store::{
        STORE_QUEUE, StoreError,
        history::{History, HistoryEntry, HistoryFilter},
    },
    tier::{Tier, TierChoice},
    watcher::{
        AddError, Builder, Handle, Lost, Report, SourceReport, StartError, Status, WatchError,
        Watcher,
    },
};
