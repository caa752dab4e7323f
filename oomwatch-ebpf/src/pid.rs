//! Victims without BTF: the thread id when the victim is marked, and the rest when that thread exits and is
//! `current`. Uses helpers only, and reads no structure of the kernel.
//!
//! The mark comes from the classic tracepoint, because tracefs says where its record has the thread id. The arguments
//! of the raw tracepoint differ from version to version, and this program cannot tell which it gets. The kernel may
//! skip a classic tracepoint while a BPF program runs on this CPU. The counters, which user space reads in this tier,
//! make up for it.
//!
//! The exit is watched twice. Since 7.x a raw tracepoint may be preempted, and the kernel skips its program for every
//! task that exits on that CPU meanwhile (`recursion_misses` in the program's `fdinfo`). A classic tracepoint is not
//! preempted. Whichever program comes first for a task takes the mark.
//!
//! A task that marks itself is described at once. Another victim is marked right after it was sent SIGKILL. Since
//! 6.17 the tracepoint of its exit comes before the lock that the OOM killer holds. So the victim may be past that
//! tracepoint before it is marked. So a thread that the kernel sends SIGKILL to is a suspect, and leaves its identity
//! at its exit. Exit and mark each write first and look for the other afterwards; whichever takes the mark sends the
//! record.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns},
    },
    programs::TracePointContext,
};
use oomwatch_common::record::{COMM_LEN, DROP_VICTIM, KIND_VICTIM, Victim, field};

use crate::{
    kernel::{self, config},
    maps::{self, MARKED, RECORDS, SUSPECTS},
    signal::SIGKILL,
    state::{Deferred, Suspect},
};

/// `si_code` of a signal that the kernel sent.
const SI_KERNEL: u32 = 0x80;

/// A mark older than 60 s waits for no exit any more. The thread was past the tracepoint before the mark, and its id
/// may be another thread's.
const MARK_LASTS_NS: u64 = 60_000_000_000;

impl Suspect {
    /// A suspect that `current` has sent the signal to.
    #[inline(always)]
    fn of_current() -> Self {
        Self {
            sender: bpf_get_current_pid_tgid(),
            cgroup_id: 0,
            pid_tgid: 0,
            comm: [0; COMM_LEN],
            uid: 0,
            has_exited: 0,
        }
    }

    /// `current` itself.
    #[inline(always)]
    fn current(sender: u64) -> Self {
        Self {
            sender,
            // SAFETY: the helper needs nothing.
            cgroup_id: unsafe { bpf_get_current_cgroup_id() },
            pid_tgid: bpf_get_current_pid_tgid(),
            comm: kernel::current_comm(),
            uid: bpf_get_current_uid_gid() as u32,
            has_exited: 1,
        }
    }
}

/// A number in the record of a classic tracepoint; 0 where it cannot be read. The helper reads it, because the
/// verifier allows no access to a context at an offset that the program has added.
#[inline(always)]
fn number_at(ctx: &TracePointContext, offset: u32) -> u32 {
    // SAFETY: the helper reads nothing that is not there.
    unsafe { ctx.read_at(offset as usize) }.unwrap_or(0)
}

/// `signal:signal_generate`.
#[inline(always)]
pub(crate) fn signalled(ctx: &TracePointContext) {
    let is_kill = u64::from(number_at(ctx, config!(signal_generate_sig))) == SIGKILL;
    if is_kill && number_at(ctx, config!(signal_generate_code)) == SI_KERNEL {
        let suspect = Suspect::of_current();
        let _ = SUSPECTS.insert(number_at(ctx, config!(signal_generate_pid)), suspect, 0);
    }
}

/// `oom:mark_victim`.
#[inline(always)]
pub(crate) fn marked(ctx: &TracePointContext) {
    let tid = number_at(ctx, config!(mark_victim_pid));
    let mark = Deferred::now(tid);
    let current = bpf_get_current_pid_tgid();
    if tid == current as u32 {
        return emit(tid, &Suspect::current(current), &mark);
    }
    if MARKED.insert(tid, mark, 0).is_err() {
        maps::count_drop(DROP_VICTIM);
        return;
    }
    // SAFETY: the value is copied at once.
    let suspect = unsafe { SUSPECTS.get(tid) }.copied();
    if let Some(gone) = suspect
        && gone.has_exited != 0
        && gone.sender == current
        && MARKED.remove(tid).is_ok()
    {
        emit(tid, &gone, &mark);
    }
}

/// `sched_process_exit` of `current`.
#[inline(always)]
pub(crate) fn exited() {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: the value is copied at once.
    if let Some(suspect) = unsafe { SUSPECTS.get(tid) }.copied() {
        let _ = SUSPECTS.insert(tid, Suspect::current(suspect.sender), 0);
    }
    // SAFETY: as above.
    let Some(mark) = unsafe { MARKED.get(tid) }.copied() else {
        return;
    };
    // SAFETY: the helper needs nothing.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    if MARKED.remove(tid).is_ok() && now_ns - mark.boottime_ns < MARK_LASTS_NS {
        emit(tid, &Suspect::current(0), &mark);
    }
}

/// Sends the record of one victim.
#[inline(always)]
fn emit(tid: u32, gone: &Suspect, mark: &Deferred) {
    let _ = SUSPECTS.remove(tid);
    let Some(mut entry) = RECORDS.reserve::<Victim>(0) else {
        maps::count_drop(DROP_VICTIM);
        return;
    };
    // SAFETY: the ring gave the memory for one `Victim`. A field that is not written below is not believed, because
    // its bit is not set. Integers have no invalid bit patterns.
    let victim = unsafe { &mut *entry.as_mut_ptr() };
    victim.header = maps::header::<Victim>(KIND_VICTIM, mark.seq, mark.boottime_ns);
    victim.fields = field::AT_EXIT
        | field::TGID
        | field::COMM
        | field::UID
        | field::CGROUP
        | field::TRIGGER_COMM;
    victim.tid = tid;
    victim.tgid = (gone.pid_tgid >> 32) as u32;
    victim.comm = gone.comm;
    victim.uid = gone.uid;
    victim.cgroup_id = gone.cgroup_id;
    mark.describe_trigger(victim);
    // The end of the chain.
    victim.chain[0].cgroup_id = 0;
    entry.submit(u64::from(config!(submit_flags)));
}
