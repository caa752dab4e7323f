//! Victims: from a `mark_victim` to one [`Victim`] record.
//!
//! Newer kernels pass the task. Older ones pass a thread id, and the task is the first of these. First, the task that
//! the same `current` has just sent the OOM killer's SIGKILL. Then `current` itself, which was dying already. Then
//! the task that `oom_control` names. Then the task that exits later with this thread id.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_task, bpf_ktime_get_boot_ns},
    },
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use oomwatch_common::{
    config::MARK_VICTIM_TASK,
    record::{ChainLink, Charged, DROP_VICTIM, KIND_VICTIM, MAX_CHAIN, Victim, field},
};

use crate::{
    invocation,
    kernel::{self, Address, argument, config, known_fields},
    maps::{self, DEFERRED, LAST_COUNT, RECORDS, VICTIM_SEQUENCE},
    signal::{self, charged_css},
    state::Deferred,
};

/// Highest nesting of pid namespaces (`MAX_PID_NS_LEVEL`).
const MAX_PID_LEVEL: u32 = 32;

/// `mark_victim(task, uid)` or `mark_victim(pid)`.
#[inline(always)]
pub(crate) fn marked(ctx: &RawTracePointContext) {
    let (tid, task) = victim_of(argument(ctx, 0));
    let mut mark = Deferred::now(tid);
    mark.verdict = signal::judge(tid);
    signal::note_mark(task);
    if task != 0 {
        emit(task, &mark, 0);
    } else if DEFERRED.insert(tid, mark, 0).is_err() {
        // A full map loses the victim's identity, never the fact: that is counted.
        maps::count_drop(DROP_VICTIM);
    }
}

/// Logs what [`marked`] sees. A program of its own, which is not even loaded unless asked for.
#[inline(always)]
pub(crate) fn log_mark(ctx: &RawTracePointContext) {
    let (tid, task) = victim_of(argument(ctx, 0));
    debug!(ctx, "mark_victim tid={} task={:x}", tid, task);
}

/// Thread id and task that `mark_victim` passes, or at least the former.
#[inline(always)]
fn victim_of(first: u64) -> (u32, Address) {
    if config!(mark_victim_passes) == MARK_VICTIM_TASK {
        (kernel::read(first, config!(task_pid)), first)
    } else {
        (first as u32, find_task(first as u32))
    }
}

/// `sched_process_exit` of `current`.
#[inline(always)]
pub(crate) fn exited() {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: the value is copied before anything else can change it: only this thread
    // removes its own entry.
    let Some(mark) = (unsafe { DEFERRED.get(tid) }).copied() else {
        return;
    };
    let _ = DEFERRED.remove(tid);
    // SAFETY: the helper needs nothing.
    emit(unsafe { bpf_get_current_task() }, &mark, field::AT_EXIT);
}

/// The task with thread id `tid` that is being marked; 0 where nothing names it.
#[inline(always)]
fn find_task(tid: u32) -> Address {
    let signalled = signal::signalled_task(tid);
    if signalled != 0 {
        return signalled;
    }
    if bpf_get_current_pid_tgid() as u32 == tid {
        // SAFETY: the helper needs nothing.
        return unsafe { bpf_get_current_task() };
    }
    match invocation::current() {
        Some(invocation) => invocation.chosen(tid),
        None => 0,
    }
}

impl Deferred {
    #[inline(always)]
    pub(crate) fn now(tid: u32) -> Self {
        // SAFETY: the helpers need nothing.
        let (boottime_ns, trigger_cgroup_id) =
            unsafe { (bpf_ktime_get_boot_ns(), bpf_get_current_cgroup_id()) };
        Self {
            seq: maps::next_sequence(VICTIM_SEQUENCE),
            boottime_ns,
            verdict: 0,
            trigger_pid_tgid: bpf_get_current_pid_tgid(),
            trigger_cgroup_id,
            trigger_comm: kernel::current_comm(),
            trigger_uid: bpf_get_current_uid_gid() as u32,
            tid,
        }
    }

    /// Writes who ran the OOM killer.
    #[inline(always)]
    pub(crate) fn describe_trigger(&self, victim: &mut Victim) {
        victim.trigger_tid = self.trigger_pid_tgid as u32;
        victim.trigger_tgid = (self.trigger_pid_tgid >> 32) as u32;
        victim.trigger_uid = self.trigger_uid;
        victim.trigger_cgroup_id = self.trigger_cgroup_id;
        victim.trigger_comm = self.trigger_comm;
    }
}

/// Sends the record of one victim.
#[inline(always)]
fn emit(task: Address, mark: &Deferred, flags: u64) {
    if !maps::has_room_beside_ends() {
        return lost(flags);
    }
    let Some(mut entry) = RECORDS.reserve::<Victim>(0) else {
        return lost(flags);
    };
    // SAFETY: the ring gave the memory for one `Victim`. All of it but the end of the chain is
    // written below, and integers have no invalid bit patterns.
    let victim = unsafe { &mut *entry.as_mut_ptr() };
    victim.header = maps::header::<Victim>(KIND_VICTIM, mark.seq, mark.boottime_ns);
    victim.fields = flags | mark.verdict | field::TRIGGER_COMM | known_fields(field::OF_TASK);
    victim.tid = mark.tid;
    mark.describe_trigger(victim);
    describe_task(task, victim);
    let mm = kernel::read(task, config!(task_mm));
    describe_memory(mm, victim);
    let first = describe_chain(task, mm, victim);
    clear_call(victim);
    // A record made at the victim's exit is in no call of the OOM killer, and its counter may have moved for other
    // kills.
    if flags & field::AT_EXIT == 0 {
        describe_charged(first, victim);
        if let Some(invocation) = invocation::current() {
            invocation.describe(victim);
            invocation.note_group(any_group(victim));
        }
    }
    entry.submit(u64::from(config!(submit_flags)));
}

/// Counts a record that found no room; its place in the call is taken all the same.
#[inline(always)]
fn lost(flags: u64) {
    maps::count_drop(DROP_VICTIM);
    if flags & field::AT_EXIT == 0
        && let Some(invocation) = invocation::current()
    {
        invocation.missed();
    }
}

/// Writes who the victim is. A field that the layout does not allow is read from anywhere, and its bit is not set.
#[inline(always)]
fn describe_task(task: Address, victim: &mut Victim) {
    let cred = kernel::read(task, config!(task_cred));
    let signal = kernel::read(task, config!(task_signal));
    // The process's start is its leader's; a thread has one of its own.
    let leader = kernel::read(task, config!(task_group_leader));
    let css_set = kernel::read(task, config!(task_cgroups));
    let cgroup = kernel::read(css_set, config!(css_set_dfl_cgrp));
    victim.oom_score_adj = i32::from(kernel::read::<i16>(signal, config!(signal_oom_score_adj)));
    victim.ns_tgid = namespace_tgid(leader);
    let kn = kernel::read(cgroup, config!(cgroup_kn));
    // SAFETY: made from references.
    unsafe {
        kernel::read_into(&raw mut victim.tgid, task, config!(task_tgid));
        kernel::read_into(&raw mut victim.comm, task, config!(task_comm));
        kernel::read_into(&raw mut victim.uid, cred, config!(cred_uid));
        let start = &raw mut victim.start_boottime_ns;
        kernel::read_into(start, leader, config!(task_start_boottime));
        kernel::read_into(&raw mut victim.cgroup_id, kn, config!(kernfs_id));
    }
}

/// The process id in the process's own pid namespace: 1 is that namespace's init.
#[inline(always)]
fn namespace_tgid(leader: Address) -> u32 {
    let pid: Address = kernel::read(leader, config!(task_thread_pid));
    let level: u32 = kernel::read(pid, config!(pid_level));
    // No multiplication by an absent member's value.
    let upid = u64::from(level % MAX_PID_LEVEL) * u64::from(config!(upid_size) & 0xff);
    kernel::read(
        pid + upid + u64::from(config!(pid_numbers)),
        config!(upid_nr),
    )
}

/// Writes what memory the victim had. Its `mm` is gone when the record is made at exit.
#[inline(always)]
fn describe_memory(mm: Address, victim: &mut Victim) {
    // `enum`: MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES (5.10 to 7.3). The values
    // of per-CPU counters are approximate and can be below 0 for a moment.
    let rss = config!(mm_rss_stat);
    let stride = u64::from(config!(mm_rss_stride));
    // SAFETY: made from references.
    unsafe {
        kernel::read_into(&raw mut victim.total_vm_pages, mm, config!(mm_total_vm));
        let pgtables = &raw mut victim.pgtables_bytes;
        kernel::read_into(pgtables, mm, config!(mm_pgtables_bytes));
        kernel::read_into(&raw mut victim.file_rss_pages, mm, rss);
        kernel::read_into(&raw mut victim.anon_rss_pages, mm + stride, rss);
        kernel::read_into(&raw mut victim.shmem_rss_pages, mm + stride * 3, rss);
    }
    if mm != 0 {
        kernel::add_bits(&mut victim.fields, known_fields(field::OF_MM));
    }
}

/// Clears what is not known outside of a call of the OOM killer.
#[inline(always)]
fn clear_call(victim: &mut Victim) {
    victim.charged = Charged {
        cgroup_id: 0,
        inode: 0,
        serial: 0,
        oom_kill: 0,
    };
    victim.invocation = 0;
    victim.index = 0;
    victim.limit_memcg_id = 0;
    victim.limit_usage_pages = 0;
    victim.limit_max_pages = 0;
    victim.total_pages = 0;
    victim.constraint = 0;
    victim.order = 0;
    victim.gfp_mask = 0;
}

/// Writes the memory cgroups that this kill was charged to, with their counters. Returns the first one's css.
#[inline(always)]
fn describe_chain(task: Address, mm: Address, victim: &mut Victim) -> Address {
    let first = charged_css(task, mm);
    copy_chain(first, victim);
    if first == 0 {
        return 0;
    }
    kernel::add_bits(&mut victim.fields, known_fields(field::OF_CHAIN));
    if kernel::hierarchy_id(kernel::css_cgroup(first)) != 0 {
        kernel::add_bits(&mut victim.fields, field::CHAIN_V1);
    }
    first
}

/// Not 0 if `memory.oom.group` is set anywhere in the chain.
#[inline(always)]
fn any_group(victim: &Victim) -> u64 {
    let groups = u128::from_ne_bytes(victim.oom_groups);
    groups as u64 | (groups >> 64) as u64
}

/// Writes the first memory cgroup with its own counter, as [`signal::note_mark`] has just read it.
#[inline(always)]
fn describe_charged(first: Address, victim: &mut Victim) {
    if first == 0 {
        return;
    }
    if let Some(last) = LAST_COUNT.get_ptr_mut(0) {
        // SAFETY: a map value, written under `oom_lock`.
        victim.charged = unsafe { (*last).charged };
        kernel::add_bits(&mut victim.fields, known_fields(field::OF_CHARGED));
    }
}

/// Copies the chain from `first` up. Beyond the root there is nothing to read, and the links stay 0. Leaving early
/// would have the verifier go through all that follows once for every length of the chain.
#[inline(always)]
fn copy_chain(first: Address, victim: &mut Victim) {
    let mut css = first;
    // SAFETY: `place` is below the length of both arrays.
    unsafe {
        let chain = (&raw mut victim.chain).cast::<ChainLink>();
        let oom_groups = (&raw mut victim.oom_groups).cast::<u8>();
        for place in 0..MAX_CHAIN {
            kernel::write_chain_link(chain.add(place), css);
            let memcg = kernel::css_memcg(css);
            kernel::read_into(oom_groups.add(place), memcg, config!(memcg_oom_group));
            // Without a condition. Up to v6.1 the verifier takes a loop for one without end ("back-edge from insn")
            // if its last helper call may be jumped over.
            css = kernel::read(css, config!(css_parent));
        }
    }
    if css != 0 {
        kernel::add_bits(&mut victim.fields, field::CHAIN_TRUNCATED);
    }
}
