//! The records in the ring buffer: fixed width, native endian, explicit padding.
//!
//! Every record starts with a [`Header`]. A reader checks [`WIRE_VERSION`], the
//! kind and the length before it believes anything else, because a pinned ring
//! may have been filled by another build.

use core::mem::{align_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the layouts in this module. Changes with any of them.
pub const WIRE_VERSION: u16 = 3;

/// Kind of [`Victim`].
pub const KIND_VICTIM: u16 = 1;
/// Kind of [`CgroupChange`] for a cgroup that was created.
pub const KIND_CGROUP_CREATED: u16 = 2;
/// Kind of [`CgroupChange`] for a cgroup that was removed.
pub const KIND_CGROUP_REMOVED: u16 = 3;
/// Kind of [`InvocationEnd`].
pub const KIND_INVOCATION_END: u16 = 4;
/// Kind of [`DoubleCount`].
pub const KIND_DOUBLE_COUNT: u16 = 5;

/// Bytes of a task's name, as `TASK_COMM_LEN`.
pub const COMM_LEN: usize = 16;
/// Bytes kept of a cgroup's name: `NAME_MAX` and its NUL.
pub const NAME_LEN: usize = 256;
/// Memory cgroups kept of a victim's chain, from the one that owns its memory up.
pub const MAX_CHAIN: usize = 16;

/// Index of the drop counter for victims, double counts and invocation ends.
pub const DROP_VICTIM: u32 = 0;
/// Index of the drop counter for cgroup changes.
pub const DROP_CGROUP: u32 = 1;
/// Number of drop counters.
pub const DROP_KINDS: u32 = 2;

/// Bits of [`Victim::fields`] and [`DoubleCount::fields`]: set where the field was read.
pub mod field {
    /// `tgid`.
    pub const TGID: u64 = 1 << 0;
    /// `ns_tgid`.
    pub const NS_TGID: u64 = 1 << 1;
    /// `comm`.
    pub const COMM: u64 = 1 << 2;
    /// `uid`.
    pub const UID: u64 = 1 << 3;
    /// `start_boottime_ns`.
    pub const START: u64 = 1 << 4;
    /// `oom_score_adj`.
    pub const OOM_SCORE_ADJ: u64 = 1 << 5;
    /// `total_vm_pages`.
    pub const TOTAL_VM: u64 = 1 << 6;
    /// `anon_rss_pages`, `file_rss_pages` and `shmem_rss_pages`.
    pub const RSS: u64 = 1 << 7;
    /// `pgtables_bytes`.
    pub const PGTABLES: u64 = 1 << 8;
    /// `cgroup_id`.
    pub const CGROUP: u64 = 1 << 9;
    /// `chain`, of which the first is the owner of the memory.
    pub const CHAIN: u64 = 1 << 10;
    /// `invocation` and `index`: `out_of_memory()` was seen for this mark.
    pub const INVOCATION: u64 = 1 << 12;
    /// `limit_memcg_id`; 0 there means no memory cgroup's limit.
    pub const LIMIT: u64 = 1 << 13;
    /// `limit_usage_pages` and `limit_max_pages`.
    pub const LIMIT_USAGE: u64 = 1 << 14;
    /// `constraint`, `order`, `gfp_mask`, `total_pages`.
    pub const OOM_CONTROL: u64 = 1 << 15;
    /// The trigger's `comm`.
    pub const TRIGGER_COMM: u64 = 1 << 16;
    /// The chain goes on beyond [`super::MAX_CHAIN`].
    pub const CHAIN_TRUNCATED: u64 = 1 << 17;
    /// The chain is in a v1 memory hierarchy: its ids are not v2 ids.
    pub const CHAIN_V1: u64 = 1 << 18;
    /// The chain's `oom`.
    pub const OOM_COUNTER: u64 = 1 << 11;
    /// The chain's `oom_group_kill`.
    pub const GROUP_COUNTER: u64 = 1 << 23;
    /// `oom_groups`.
    pub const OOM_GROUPS: u64 = 1 << 19;
    /// The kernel counted this victim: it had sent it SIGKILL right before the mark.
    pub const COUNTED: u64 = 1 << 21;
    /// The kernel did not count this victim: the task was dying already, or its process was marked and counted
    /// before.
    pub const NOT_COUNTED: u64 = 1 << 22;
    /// `charged`, except its `inode`.
    pub const CHARGED: u64 = 1 << 24;
    /// The `inode` of `charged`, where it is not 0.
    pub const CSS_INODE: u64 = 1 << 25;
    /// What is read of the victim's `mm`.
    pub const OF_MM: u64 = TOTAL_VM | PGTABLES | RSS;
    /// What is read of the victim's memory cgroups.
    pub const OF_CHAIN: u64 = CHAIN | OOM_COUNTER | GROUP_COUNTER | OOM_GROUPS;
    /// What is read of the memory cgroup that the kill was charged to.
    pub const OF_CHARGED: u64 = CHARGED | CSS_INODE;
    /// What is read of a call of `out_of_memory()`.
    pub const OF_INVOCATION: u64 = LIMIT | LIMIT_USAGE | OOM_CONTROL;
    /// What is read of the victim itself.
    pub const OF_TASK: u64 = TGID | NS_TGID | COMM | UID | START | OOM_SCORE_ADJ | CGROUP;
    /// The record was completed when the victim exited, not when it was marked.
    pub const AT_EXIT: u64 = 1 << 20;
}

/// What every record starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// [`WIRE_VERSION`].
    pub version: u16,
    /// One of the `KIND_*`.
    pub kind: u16,
    /// Bytes of the whole record.
    pub size: u32,
    /// Sequence number, from 1. Victims, double counts and invocation ends share one sequence (all happen under
    /// `oom_lock`). Cgroup changes have another (under `cgroup_mutex`). A record that found no room uses up a number
    /// too, so a gap is a loss.
    pub seq: u64,
    /// `CLOCK_BOOTTIME` in ns.
    pub boottime_ns: u64,
}

/// One memory cgroup on the way from the victim's to the root.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ChainLink {
    /// Id of the cgroup: the inode number of its directory.
    pub cgroup_id: u64,
    /// Serial number of the css: another one means the counters started again.
    pub serial: u64,
    /// Its counters.
    pub counters: Counters,
}

/// Hierarchical counters of a memory cgroup, in the order in which the kernel keeps them. Only `oom_kill` is always
/// there.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counters {
    /// `oom`.
    pub oom: u64,
    /// `oom_kill`, already raised by the kill of this record.
    pub oom_kill: u64,
    /// `oom_group_kill`; since v5.17.
    pub oom_group_kill: u64,
}

/// The memory cgroup that kills are charged to, with its own counter: descendants' kills are not in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Charged {
    /// Id of the cgroup.
    pub cgroup_id: u64,
    /// Inode number of its `memory.events.local`; each css has another one. 0 where it has no such file: in a v1
    /// hierarchy, and in a removal, because the file goes before it.
    pub inode: u64,
    /// Serial number of the css.
    pub serial: u64,
    /// Its local `oom_kill`, already raised by the event of this record.
    pub oom_kill: u64,
}

/// One `mark_victim`: the OOM killer marked a task.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Victim {
    /// Kind [`KIND_VICTIM`].
    pub header: Header,
    /// Bits of [`field`].
    pub fields: u64,
    /// The victim's cgroup on the v2 hierarchy.
    pub cgroup_id: u64,
    /// When the victim's process started, `CLOCK_BOOTTIME` in ns.
    pub start_boottime_ns: u64,
    /// Virtual size in pages.
    pub total_vm_pages: u64,
    /// Anonymous resident pages.
    pub anon_rss_pages: u64,
    /// File-backed resident pages.
    pub file_rss_pages: u64,
    /// Shared-memory resident pages.
    pub shmem_rss_pages: u64,
    /// Page tables in bytes.
    pub pgtables_bytes: u64,
    /// Cgroup of the task that ran the OOM killer.
    pub trigger_cgroup_id: u64,
    /// Number of this call of `out_of_memory()` since load.
    pub invocation: u64,
    /// Memory cgroup whose limit was hit; 0 where none was.
    pub limit_memcg_id: u64,
    /// Its usage in pages.
    pub limit_usage_pages: u64,
    /// Its limit in pages.
    pub limit_max_pages: u64,
    /// `oom_control.totalpages`: what the killer had to share out.
    pub total_pages: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Process id in the victim's own pid namespace.
    pub ns_tgid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Thread id of the trigger.
    pub trigger_tid: u32,
    /// Process id of the trigger.
    pub trigger_tgid: u32,
    /// User id of the trigger.
    pub trigger_uid: u32,
    /// `enum oom_constraint`.
    pub constraint: u32,
    /// Order of the failed allocation; -1 from sysrq.
    pub order: i32,
    /// `gfp_t` of the failed allocation.
    pub gfp_mask: u32,
    /// Place of this mark in its invocation, from 0.
    pub index: u32,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
    /// `memory.oom.group` of each cgroup of the chain, 0 or 1.
    pub oom_groups: [u8; MAX_CHAIN],
    /// The victim's name.
    pub comm: [u8; COMM_LEN],
    /// The trigger's name.
    pub trigger_comm: [u8; COMM_LEN],
    /// What the kill was charged to: the first of `chain`, when the mark was made.
    pub charged: Charged,
    /// Memory cgroups from the owner of the victim's memory up; ends where an id is 0.
    pub chain: [ChainLink; MAX_CHAIN],
}

/// Bits of [`CgroupChange::fields`].
pub mod change_field {
    /// `parent_id`.
    pub const PARENT: u64 = 1 << 0;
    /// `name`.
    pub const NAME: u64 = 1 << 1;
    /// The counters of `last`.
    pub const COUNTERS: u64 = 1 << 2;
    /// `charged`, except its `inode`.
    pub const CHARGED: u64 = 1 << 3;
    /// The `inode` of `charged`, where it is not 0.
    pub const CSS_INODE: u64 = 1 << 4;
}

/// A cgroup of the v2 hierarchy was created or removed.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CgroupChange {
    /// Kind [`KIND_CGROUP_CREATED`] or [`KIND_CGROUP_REMOVED`].
    pub header: Header,
    /// Bits of [`change_field`].
    pub fields: u64,
    /// Id of the parent.
    pub parent_id: u64,
    /// Id and final hierarchical counters; only the id in a creation, or where the
    /// memory controller is off.
    pub last: ChainLink,
    /// Its own counter: in a removal the final one, in a creation the key by which it is known later. Not set where
    /// the memory controller is off.
    pub charged: Charged,
    /// Name of the directory, NUL-terminated.
    pub name: [u8; NAME_LEN],
}

/// The kernel counted a process that was marked before. As a rule that is the first victim of a group kill, which the
/// kernel meets again among the members.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DoubleCount {
    /// Kind [`KIND_DOUBLE_COUNT`].
    pub header: Header,
    /// Bits of [`field`]: `TGID`, `START` and `CSS_INODE`. The rest of `charged` is always there.
    pub fields: u64,
    /// Number of the call, as in [`Victim::invocation`]; 0 where it is not known.
    pub invocation: u64,
    /// When the process started, `CLOCK_BOOTTIME` in ns.
    pub start_boottime_ns: u64,
    /// What it was charged to.
    pub charged: Charged,
    /// The memory cgroup above the charged one; 0 where there is none.
    pub parent_id: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Zero.
    pub padding: u32,
}

/// A call of `out_of_memory()` that may have killed a group is over.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InvocationEnd {
    /// Kind [`KIND_INVOCATION_END`].
    pub header: Header,
    /// Number of the call, as in [`Victim::invocation`].
    pub invocation: u64,
    /// Marks made in this call, whether their records found room or not.
    pub marks: u32,
    /// Zero.
    pub padding: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<ChainLink>() == 40);
    assert!(size_of::<Charged>() == 32);
    assert!(size_of::<Victim>() == 904);
    assert!(size_of::<CgroupChange>() == 368);
    assert!(size_of::<DoubleCount>() == 96);
    assert!(size_of::<InvocationEnd>() == 40);
    // The ring aligns records to 8 bytes and no more.
    assert!(align_of::<Victim>() == 8);
    assert!(align_of::<CgroupChange>() == 8);
    assert!(align_of::<DoubleCount>() == 8);
    assert!(align_of::<InvocationEnd>() == 8);
};
