//! Victims without BTF: the thread id when it is marked, and the rest when that thread exits and
//! is `current`. Helpers only, no structure of the kernel is read.
//!
//! The mark comes from the classic tracepoint, whose record has the thread id at the same place
//! in every version (4.13 to 7.3), while what the raw one passes differs and cannot be told apart
//! here. A classic tracepoint may be skipped while a BPF program runs on this CPU; the counters,
//! which user space reads in this tier, make up for it.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, generated::bpf_get_current_cgroup_id,
    },
    programs::TracePointContext,
};
use oomwatch_common::record::{DROP_VICTIM, KIND_VICTIM, Victim, field};

use crate::{
    kernel,
    maps::{self, DEFERRED, RECORDS},
    victim::Deferred,
};

/// Offset of `pid` in the record of `oom:mark_victim`.
const PID_OFFSET: usize = 8;

/// `oom:mark_victim`.
#[inline(always)]
pub(crate) fn marked(ctx: &TracePointContext) {
    // SAFETY: the verifier holds the access against the size of the record.
    let tid = unsafe { *ctx.as_ptr().cast::<u8>().add(PID_OFFSET).cast::<u32>() };
    if DEFERRED.insert(tid, Deferred::now(tid), 0).is_err() {
        maps::count_drop(DROP_VICTIM);
    }
}

/// `sched_process_exit` of `current`.
#[inline(always)]
pub(crate) fn exited() {
    let current = bpf_get_current_pid_tgid();
    let tid = current as u32;
    // SAFETY: only this thread removes its own entry.
    let Some(mark) = (unsafe { DEFERRED.get(tid) }).copied() else {
        return;
    };
    let _ = DEFERRED.remove(tid);
    let Some(mut entry) = RECORDS.reserve::<Victim>(0) else {
        maps::count_drop(DROP_VICTIM);
        return;
    };
    // SAFETY: the ring gave the memory for one `Victim`. What is not written below is not
    // believed, for its bit is not set, and integers have no invalid bit patterns.
    let victim = unsafe { &mut *entry.as_mut_ptr() };
    victim.header = maps::header::<Victim>(KIND_VICTIM, mark.seq, mark.boottime_ns);
    victim.fields = field::AT_EXIT
        | field::TGID
        | field::COMM
        | field::UID
        | field::CGROUP
        | field::TRIGGER_COMM;
    victim.tid = tid;
    victim.tgid = (current >> 32) as u32;
    victim.comm = kernel::current_comm();
    victim.uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: the helper needs nothing.
    victim.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    mark.describe_trigger(victim);
    // The end of the chain.
    victim.chain[0].cgroup_id = 0;
    entry.submit(0);
}
