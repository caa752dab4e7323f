//! Events: what oomwatch reports about the OOM killer, in the domain's own words.
//!
//! The engine makes events. [`json`] and [`text`] write one down, and [`json`] can read it again. Pure.

mod example;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod json;
mod missing;
pub(crate) mod text;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    containers::{container::Container, identity::Identity},
    id::CgroupId,
    record::Constraint,
    tier::Tier,
};

/// Name and version of the event schema.
pub const SCHEMA: &str = "oomwatch.oom/1";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The OOM killer killed a process.
    Kill,
    /// The OOM killer marked a process that was dying already. Never a kill.
    AlreadyExiting,
    /// The kernel counted kills that the tracepoint did not report.
    CounterOnly,
}

/// How a victim was matched to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attribution {
    /// The victim was in the container's own cgroup.
    Exact,
    /// The victim was in a cgroup below the container's.
    Ancestor,
    /// The container was registered after the kill.
    Late,
    /// No registered container is at or above the victim's cgroup.
    Unregistered,
}

/// Whose limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The container's own, or one inside it.
    Container,
    /// The container's parent's: under Kubernetes, the pod's.
    Pod,
    /// That of a cgroup further up; or, where no container is registered, of one above the victim's cgroup.
    Ancestor,
    /// The victim's own cgroup's, where no container is registered.
    Cgroup,
    /// No cgroup's: the node was out of memory.
    Node,
    /// Not known on this kernel.
    Unknown,
}

/// What an event rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// The `mark_victim` tracepoint.
    Tracepoint,
    /// A memory cgroup's `oom_kill` counter.
    Counter,
}

/// The call of the OOM killer that killed several processes (`memory.oom.group`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Group {
    /// The same for all members; unique while the probe is loaded.
    pub invocation: u64,
    /// Place among the members, from 0.
    pub index: u32,
    /// Number of members, where it was known when the event was made.
    pub size: Option<u32>,
}

/// The process that was killed. Ids are those of the initial namespaces; `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Victim {
    /// Process id (thread group id).
    pub pid: Option<u32>,
    /// Id of the thread that was marked.
    pub tid: Option<u32>,
    /// Name, printable.
    pub comm: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// Whether it was the init process of its pid namespace.
    pub is_init: Option<bool>,
    /// Start of the process, ns of `CLOCK_BOOTTIME`.
    pub start_boottime_ns: Option<u64>,
    /// Its cgroup on the v2 hierarchy.
    pub cgroup_id: Option<CgroupId>,
    /// Path of that cgroup, printable.
    pub cgroup_path: Option<String>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Virtual size.
    pub total_vm_bytes: Option<u64>,
    /// Anonymous resident memory. Approximate by some pages per CPU since v6.2.
    pub anon_rss_bytes: Option<u64>,
    /// File-backed resident memory.
    pub file_rss_bytes: Option<u64>,
    /// Shared resident memory.
    pub shmem_rss_bytes: Option<u64>,
    /// Page tables.
    pub pgtables_bytes: Option<u64>,
}

/// The task whose allocation, or write, ran the OOM killer. Often not the victim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trigger {
    /// Process id.
    pub pid: Option<u32>,
    /// Name, printable.
    pub comm: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// Its cgroup on the v2 hierarchy.
    pub cgroup_id: Option<CgroupId>,
    /// Path of that cgroup, printable.
    pub cgroup_path: Option<String>,
}

/// The limit that was hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limit {
    /// The cgroup with the limit; `None` where it was the node's memory, or is unknown.
    pub cgroup_id: Option<CgroupId>,
    /// Its path, printable.
    pub path: Option<String>,
    /// The limit; for the node, memory and swap that could be used.
    pub max_bytes: Option<u64>,
    /// What was in use.
    pub usage_bytes: Option<u64>,
    /// Order of the failed allocation: 2^order pages; -1 for sysrq.
    pub order: Option<i32>,
    /// `gfp_t` of the failed allocation.
    #[serde(default, with = "json::hex")]
    pub gfp_mask: Option<u32>,
}

/// Counters of the container's cgroup, or else of the victim's memory cgroup. Descendants are included. They are read
/// right after the kernel counted this event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counter {
    /// The cgroup whose counters these are.
    pub cgroup_id: Option<CgroupId>,
    /// `oom_kill` of `memory.events`.
    pub oom_kill: Option<u64>,
    /// `oom` of `memory.events`.
    pub oom: Option<u64>,
    /// `oom_group_kill` of `memory.events`; the kernel raises it after its group kill.
    pub oom_group_kill: Option<u64>,
    /// Double counts of the kernel in `oom_kill`, as far as seen: `oom_kill` less these is the number of kills. A
    /// double count that the kernel makes after the last member of a group kill is in the next event.
    pub recounts: Option<u64>,
}

/// Where a victim of no container was: in the cgroup of a pod or an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Place {
    /// What the cgroup is.
    pub kind: PlaceKind,
    /// Whose it is: the id of the sandbox, the container or the build.
    pub id: Option<String>,
    /// Runtime or engine, where the path names it.
    pub runtime: Option<String>,
    /// As a container's.
    pub realm: Option<String>,
    /// Kubernetes pod UID.
    pub pod_uid: Option<String>,
}

/// What a cgroup is that is no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlaceKind {
    /// A pod, outside of its containers.
    Pod,
    /// A pod's sandbox.
    Sandbox,
    /// A step of an image build.
    Build,
    /// The process that watches over a container.
    Monitor,
    /// What a virtual machine needs beside its pod.
    Overhead,
}

/// How good the event is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quality {
    /// How the probe worked.
    pub tier: Tier,
    /// How the container was found.
    pub attribution: Attribution,
    /// Names of what should be known and is not.
    pub missing: Vec<&'static str>,
}

/// One action of the OOM killer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OomEvent {
    /// Unique: `<boot id>-<ns since boot>`. The same kill has the same id if it is reported
    /// again after a restart.
    pub id: String,
    /// Number of this event in this run of the daemon, from 1.
    pub seq: u64,
    /// Wall-clock time of the kill, ns since 1970.
    pub unix_time_ns: i128,
    /// Time of the kill, ns of `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// What happened.
    pub kind: Kind,
    /// Number of kills that this event stands for; more than 1 only for
    /// [`Kind::CounterOnly`], 0 for [`Kind::AlreadyExiting`].
    pub count: u64,
    /// Number of the event of this run that this event replaces: the same kill, without its container, which was
    /// registered later. Count the kill once.
    pub supersedes: Option<u64>,
    /// Whether it happened while no daemon ran.
    pub while_down: bool,
    /// What the event rests on.
    pub evidence: Vec<Evidence>,
    /// Whose limit was hit.
    pub scope: Scope,
    /// What confined the allocation.
    pub constraint: Constraint,
    /// Set for members of a group kill.
    pub group: Option<Group>,
    /// Who was killed.
    pub victim: Victim,
    /// Whose allocation it was.
    pub trigger: Trigger,
    /// Which limit.
    pub limit: Limit,
    /// The counters.
    pub counter: Counter,
    /// The container, if one is registered.
    pub container: Option<Arc<Container>>,
    /// Where the victim was, if no container is registered and the place is known.
    pub place: Option<Box<Place>>,
    /// Name of the node: the configured name, or else the host name.
    pub node: Option<Arc<str>>,
    /// Time from the kernel's time stamp to the hand-over to the publishers, in ns.
    pub delivered_ns: Option<u64>,
    /// How good the event is.
    pub quality: Quality,
}

impl OomEvent {
    /// The container that answers for the kill: the one that it is in, where it is only claimed to be one.
    #[must_use]
    pub fn answerable(&self) -> Option<&Arc<Container>> {
        self.container.as_ref()?.answerable()
    }

    /// On what evidence the container has its name.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let container = self.container.as_ref();
        container.map_or(Identity::Unknown, |container| container.identity)
    }
}

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) boottime_ns: u64,
    pub(crate) unix_time_ns: i128,
}

impl Now {
    /// Wall-clock time of a moment on the boot-time clock, by today's difference of both.
    pub(crate) fn unix_time_of(&self, boottime_ns: u64) -> i128 {
        self.unix_time_ns - i128::from(self.boottime_ns) + i128::from(boottime_ns)
    }
}
