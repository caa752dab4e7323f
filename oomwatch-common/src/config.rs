//! The configuration that user space writes into the programs' read-only data
//! before load: where the running kernel keeps what the probe reads.
//!
//! rustc emits no CO-RE relocations, so every offset is resolved from the
//! running kernel's BTF in user space. The verifier knows the read-only data,
//! so code behind an [`ABSENT`] offset is removed and costs nothing.

use zerocopy::{Immutable, IntoBytes};

/// The value of an offset that this kernel does not have, or that did not pass
/// its check. The field that needs it is then reported as unknown.
pub const ABSENT: u32 = u32::MAX;

/// Name of the global that holds [`Config`].
pub const CONFIG_SYMBOL: &str = "CONFIG";

/// `mark_victim` passes `(struct task_struct *, uid_t)`: since v6.9 and in stable
/// branches from 5.10.235, 5.15.179, 6.1.130 and 6.6.80 on.
pub const MARK_VICTIM_TASK: u32 = 1;
/// `mark_victim` passes `(int pid)`.
pub const MARK_VICTIM_PID: u32 = 2;

/// The kernel wakes the ring's reader if the consumer position has reached the record.
pub const WAKE_WHERE_READ: u32 = 0;
/// `BPF_RB_FORCE_WAKEUP`: the kernel wakes the reader at each record. For a reader that keeps the consumer position
/// back until it has handed over what it read.
pub const WAKE_ALWAYS: u32 = 2;

macro_rules! config {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Offsets in bytes and a few numbers, all `u32`; [`ABSENT`] where unknown.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
        pub struct Config {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Config {
            /// Nothing known: every field [`ABSENT`].
            pub const UNKNOWN: Self = Self { $($name: ABSENT,)* };
        }
    };
}

config! {
    /// Bits of [`crate::record::field`]: what this kernel's layout allows to read.
    known_fields,
    /// [`MARK_VICTIM_TASK`] or [`MARK_VICTIM_PID`].
    mark_victim_passes,
    /// Flags of `bpf_ringbuf_submit`: [`WAKE_WHERE_READ`] or [`WAKE_ALWAYS`].
    submit_flags,
    /// Offset of `pid` in the record of the classic `oom:mark_victim`; without BTF.
    mark_victim_pid,
    /// The same of `sig` in `signal:signal_generate`.
    signal_generate_sig,
    /// The same of `code`.
    signal_generate_code,
    /// The same of `pid`.
    signal_generate_pid,
    /// `task_struct.pid`: the thread id.
    task_pid,
    /// `task_struct.tgid`: the process id.
    task_tgid,
    /// `task_struct.comm`.
    task_comm,
    /// `task_struct.cgroups`, a `css_set *`.
    task_cgroups,
    /// `task_struct.cred`.
    task_cred,
    /// `task_struct.signal`.
    task_signal,
    /// `task_struct.mm`.
    task_mm,
    /// `task_struct.start_boottime`, ns.
    task_start_boottime,
    /// `task_struct.group_leader`.
    task_group_leader,
    /// `task_struct.thread_pid`, a `struct pid *`.
    task_thread_pid,
    /// `pid.level`.
    pid_level,
    /// `pid.numbers`, an array of `struct upid`.
    pid_numbers,
    /// Size of `struct upid`.
    upid_size,
    /// `upid.nr`.
    upid_nr,
    /// `cred.uid`.
    cred_uid,
    /// `signal_struct.oom_score_adj`, a `short`.
    signal_oom_score_adj,
    /// `signal_struct.oom_mm`: not 0 once a thread of the process was marked.
    signal_oom_mm,
    /// `mm_struct.owner`.
    mm_owner,
    /// `mm_struct.total_vm`, pages.
    mm_total_vm,
    /// `mm_struct.pgtables_bytes`.
    mm_pgtables_bytes,
    /// `mm_struct.rss_stat`, at its first counter's value.
    mm_rss_stat,
    /// Bytes from one `rss_stat` counter to the next.
    mm_rss_stride,
    /// `css_set.dfl_cgrp`.
    css_set_dfl_cgrp,
    /// `css_set.subsys[memory_cgrp_id]`.
    css_set_memory,
    /// `cgroup.kn`.
    cgroup_kn,
    /// `cgroup.root`.
    cgroup_root,
    /// `cgroup.self`, the cgroup's own `cgroup_subsys_state`.
    cgroup_self,
    /// `cgroup.subsys[memory_cgrp_id]`.
    cgroup_memory,
    /// `cgroup_root.hierarchy_id`; 0 is the v2 hierarchy.
    root_hierarchy_id,
    /// `cgroup_subsys_state.cgroup`.
    css_cgroup,
    /// `cgroup_subsys_state.parent`.
    css_parent,
    /// `cgroup_subsys_state.serial_nr`.
    css_serial_nr,
    /// `kernfs_node.id`.
    kernfs_id,
    /// `kernfs_node.name`.
    kernfs_name,
    /// `mem_cgroup.css`.
    memcg_css,
    /// `mem_cgroup.memory_events`, one long before `oom_kill`: at `oom`, as a rule.
    memcg_counters,
    /// `oom_kill` in `mem_cgroup.memory_events_local`.
    memcg_local_oom_kill,
    /// `mem_cgroup.events_local_file`, at its `kn`: the file `memory.events.local`.
    memcg_events_local_kn,
    /// 1 where `oom` is right before `oom_kill`, as on every kernel so far.
    counts_oom,
    /// 1 where `oom_group_kill` is right after it, as on every kernel so far; since v5.17.
    counts_group_kill,
    /// `mem_cgroup.memory`, at its `usage`.
    memcg_usage,
    /// `mem_cgroup.memory`, at its `max`.
    memcg_max,
    /// `mem_cgroup.oom_group`.
    memcg_oom_group,
    /// `oom_control.memcg`.
    oc_memcg,
    /// `oom_control.gfp_mask`.
    oc_gfp_mask,
    /// `oom_control.order`.
    oc_order,
    /// `oom_control.totalpages`.
    oc_totalpages,
    /// `oom_control.chosen`.
    oc_chosen,
    /// `oom_control.constraint`.
    oc_constraint,
}
