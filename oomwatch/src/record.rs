//! The kernel's records, in the domain's own words: what the probe's decoder makes of them.
//!
//! Plain data. Unknown is `None`, sizes are bytes, text is already printable.

#[cfg(test)]
pub(crate) mod fixture;

use crate::id::{CgroupId, Css};

/// One record of the probe, in kernel order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Victim(Box<VictimRecord>),
    CgroupCreated(CgroupChanged),
    CgroupRemoved(CgroupChanged),
    DoubleCount(DoubleCount),
    GroupEnd(GroupEnd),
}

/// A task marked by the OOM killer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VictimRecord {
    pub(crate) seq: u64,
    pub(crate) boottime_ns: u64,
    pub(crate) victim: Task,
    pub(crate) is_init: Option<bool>,
    pub(crate) start_boottime_ns: Option<u64>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) memory: Memory,
    pub(crate) trigger: Task,
    /// Memory cgroups that the kill was charged to, from the owner of the memory up.
    pub(crate) chain: Vec<Memcg>,
    /// The first of them, with its own counter.
    pub(crate) charged: Option<Charged>,
    /// The chain is in a v1 hierarchy, so its ids mean nothing on v2.
    pub(crate) chain_is_v1: bool,
    pub(crate) invocation: Option<Invocation>,
    pub(crate) limit: Option<LimitHit>,
    pub(crate) allocation: Option<Allocation>,
    /// Whether the kernel counted the victim: it sends SIGKILL right before it marks a victim that it counts. `None`
    /// where that cannot be seen.
    pub(crate) counted: Option<bool>,
    /// Made when the victim exited: its memory was gone and its counters may have moved.
    pub(crate) at_exit: bool,
}

/// A task, in the initial namespaces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Task {
    pub(crate) tid: u32,
    pub(crate) pid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) cgroup_id: Option<CgroupId>,
}

/// What memory the victim had.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) total_vm_bytes: Option<u64>,
    pub(crate) anon_rss_bytes: Option<u64>,
    pub(crate) file_rss_bytes: Option<u64>,
    pub(crate) shmem_rss_bytes: Option<u64>,
    pub(crate) pgtables_bytes: Option<u64>,
}

/// A memory cgroup and its hierarchical counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memcg {
    pub(crate) cgroup_id: CgroupId,
    /// Changes when the controller was switched off and on, which zeroes the counters.
    pub(crate) serial: u32,
    pub(crate) oom_kill: Option<u64>,
    pub(crate) oom: Option<u64>,
    pub(crate) oom_group_kill: Option<u64>,
}

/// The memory cgroup that an increment was charged to, with its own counter, descendants apart
/// (`memory.events.local`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charged {
    pub(crate) cgroup_id: CgroupId,
    pub(crate) css: Css,
    /// Local `oom_kill`, with the increment of this record.
    pub(crate) oom_kill: u64,
}

/// The call of the OOM killer that a mark belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Invocation {
    pub(crate) number: u64,
    /// Place of the mark among those of the call, from 0.
    pub(crate) index: u32,
    /// `memory.oom.group` is set where it counts.
    pub(crate) kills_group: bool,
}

/// Whose limit was hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LimitHit {
    Memcg {
        cgroup_id: CgroupId,
        max_bytes: Option<u64>,
        usage_bytes: Option<u64>,
    },
    /// No memory cgroup's: the node, or a part of it, was out of memory.
    Node { total_bytes: Option<u64> },
}

/// The allocation that failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allocation {
    pub(crate) constraint: Constraint,
    /// -1 for sysrq.
    pub(crate) order: i32,
    pub(crate) gfp_mask: u32,
}

/// What confined the allocation that failed (`enum oom_constraint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Constraint {
    /// Nothing: the node is out of memory.
    None,
    /// The memory nodes of a cpuset.
    Cpuset,
    /// A NUMA memory policy.
    MemoryPolicy,
    /// A memory cgroup's limit.
    Memcg,
    /// Not known, or a value that this version does not know.
    Unknown,
}

impl Constraint {
    pub(crate) fn from_kernel(value: u32) -> Self {
        match value {
            0 => Self::None,
            1 => Self::Cpuset,
            2 => Self::MemoryPolicy,
            3 => Self::Memcg,
            _ => Self::Unknown,
        }
    }
}

impl Record {
    /// When it was made, `CLOCK_BOOTTIME`.
    pub(crate) fn boottime_ns(&self) -> u64 {
        match self {
            Self::Victim(victim) => victim.boottime_ns,
            Self::CgroupCreated(change) | Self::CgroupRemoved(change) => change.boottime_ns,
            Self::DoubleCount(count) => count.boottime_ns,
            Self::GroupEnd(end) => end.boottime_ns,
        }
    }

    /// Makes the numbers of calls differ between generations: programs that were loaded later number their calls from
    /// 1 again.
    pub(crate) fn set_generation(&mut self, generation: u64) {
        let before = generation.saturating_sub(1) << 32;
        match self {
            Self::Victim(victim) => {
                if let Some(call) = &mut victim.invocation {
                    call.number += before;
                }
            }
            Self::DoubleCount(count) => {
                if let Some(number) = &mut count.invocation {
                    *number += before;
                }
            }
            Self::GroupEnd(end) => end.invocation += before,
            Self::CgroupCreated(_) | Self::CgroupRemoved(_) => {}
        }
    }
}

/// A cgroup that was created or removed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CgroupChanged {
    pub(crate) seq: u64,
    pub(crate) boottime_ns: u64,
    pub(crate) cgroup_id: CgroupId,
    pub(crate) parent_id: Option<CgroupId>,
    pub(crate) name: Option<Box<[u8]>>,
    /// Final counters of a removed cgroup; `None` where the memory controller was off.
    pub(crate) counters: Option<Memcg>,
    /// Its own counter. A removed cgroup has the final one, without the inode, because its files are gone by then. A
    /// created cgroup has the key of both kinds.
    pub(crate) charged: Option<Charged>,
}

/// The kernel counted a process that it had marked before. That mark was counted too, unless the process was dying
/// already.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DoubleCount {
    pub(crate) seq: u64,
    pub(crate) boottime_ns: u64,
    pub(crate) invocation: Option<u64>,
    pub(crate) pid: Option<u32>,
    pub(crate) start_boottime_ns: Option<u64>,
    pub(crate) charged: Charged,
    /// The memory cgroup above the charged one.
    pub(crate) parent_id: Option<CgroupId>,
}

/// A group kill is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupEnd {
    pub(crate) seq: u64,
    pub(crate) boottime_ns: u64,
    pub(crate) invocation: u64,
    /// Marks made, received or not.
    pub(crate) marks: u32,
}
