//! Tells, for every OOM kill on a Linux host, which container lost which process, whose
//! allocation caused it and which limit was hit.
//!
//! An eBPF program on the `oom:mark_victim` tracepoint sends each victim through a ring
//! buffer; user space names the container, holds the kill against the cgroup's `oom_kill`
//! counter, and publishes an [`OomEvent`]. Start with [`Watcher::builder`].
//!
//! Minimum kernel: 5.8 with cgroup v2; without BTF less is known ([`Tier`]). Needs root, or
//! `CAP_BPF`, `CAP_PERFMON` and `CAP_DAC_READ_SEARCH`; [`Tier::Counters`] needs neither. Installs no signal handler, runtime or logger.

mod id;
mod log;
mod record;

mod probe;

mod cgroup;
mod counters;
mod registry;

mod attribute;
mod event;
mod late;
mod ledger;
mod node;
mod reconcile;
mod recount;

mod engine;

mod api;
mod clock;
mod containerd;
mod discover;
mod drill;
mod grpc;
mod metrics;
mod publish;
mod store;
mod watcher;

pub mod host;

#[cfg(test)]
mod seed;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;

#[doc(hidden)]
pub use self::discover::path;
pub use self::{
    api::{
        Api, ApiPublisher, ControlAccess, ControlError, ControlSocket, ListenError, MetricsFuture,
        ReadOnlyListener, Serving,
    },
    attribute::{Attribution, Scope},
    cgroup::{hierarchy::CgroupError, memory_events::MemoryEventsError},
    discover::{
        cgroup::CgroupDiscovery,
        source::{RuntimeApi, RuntimeSocket},
    },
    engine::{Totals, naming::Registered},
    event::{Counter, Evidence, Group, Kind, Limit, OomEvent, Quality, SCHEMA, Trigger, Victim},
    id::{CgroupId, ContainerId, ContainerIdError, MAX_CONTAINER_ID_BYTES, printable},
    metrics::{
        Metrics, MetricsFormat,
        counts::{Counts, MAX_COUNTED_CONTAINERS},
    },
    probe::{
        DEFAULT_RING_BYTES, ProbeError,
        pin::{PinError, Unpinned, unpin},
        tier::{Tier, TierChoice},
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
    registry::{Container, ContainerDetails, RegistryError},
    store::{
        STORE_QUEUE, StoreError,
        history::{History, HistoryEntry, HistoryFilter},
    },
    watcher::{
        AddError, Builder, Handle, Lost, Report, SourceReport, StartError, Status, WatchError,
        Watcher,
    },
};
