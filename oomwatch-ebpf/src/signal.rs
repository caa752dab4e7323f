//! The judge: the SIGKILL that the OOM killer sends right before it marks a victim that it counts.
//!
//! `__oom_kill_process()` raises the counter, sends the signal and marks the victim. It then sends the signal to
//! processes that share the victim's `mm`, which it does not count (5.8 to 7.3). So a mark was not counted if no
//! signal of the same `current` came before it: the task was dying already. A signal to a process that was marked
//! before is a further count if the counter moved. Otherwise it is the signal to a sharer. There may be several
//! further counts. A group kill met a process with threads three times, and marked another thread of it the last time
//! (6.1, 6.12; twice on 7.3).
//!
//! All of this happens under `oom_lock`. If entry and return of `out_of_memory()` are hooked, no signal outside of a
//! call is taken for one of the OOM killer's. If they are not, a kernel signal by the task that made the last mark
//! may be taken for one. It must then differ from that mark in its counter.
//!
//! The program runs at each signal of the whole host, with interrupts off. So it first drops everything that is not a
//! SIGKILL of the kernel's own.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    programs::RawTracePointContext,
};
use oomwatch_common::record::{DROP_VICTIM, DoubleCount, KIND_DOUBLE_COUNT, field};

use crate::{
    invocation::{self, OUTSIDE, UNHOOKED},
    kernel::{self, Address, argument, config, known_fields},
    maps::{self, LAST_COUNT, RECORDS, SIGNALLED, VICTIM_SEQUENCE},
    state::{LastCount, Signalled},
};

pub(crate) const SIGKILL: u64 = 9;
/// `SEND_SIG_PRIV`: a signal from the kernel itself.
const SEND_SIG_PRIV: u64 = 1;

/// `signal_generate(sig, info, task, group, result)`.
#[inline(always)]
pub(crate) fn generated(ctx: &RawTracePointContext) {
    if argument(ctx, 0) != SIGKILL || argument(ctx, 1) != SEND_SIG_PRIV {
        return;
    }
    let call = invocation::number();
    if call == OUTSIDE {
        return;
    }
    let (Some(slot), Some(last)) = (SIGNALLED.get_ptr_mut(0), LAST_COUNT.get_ptr_mut(0)) else {
        return;
    };
    let sender = bpf_get_current_pid_tgid();
    let task = argument(ctx, 2);
    let signal = kernel::read(task, config!(task_signal));
    let marked_before: Address = kernel::read(signal, config!(signal_oom_mm));
    let css = charged_css(task, kernel::read(task, config!(task_mm)));
    // SAFETY: a per-CPU value, and one that is written under `oom_lock`.
    unsafe {
        let marks_go_on = call != UNHOOKED || (*last).marked_by == sender;
        (*slot).sender = sender;
        (*slot).call = call;
        (*slot).task = task;
        (*slot).tid = u64::from(kernel::read::<u32>(task, config!(task_pid)));
        (*slot).counted = 0;
        if marked_before == 0 {
            let is_sharer = call == UNHOOKED && marks_go_on && !has_moved(last, css);
            if !is_sharer {
                (*slot).counted = field::COUNTED;
            }
        } else if marks_go_on && known_fields(field::CHARGED) != 0 && has_moved(last, css) {
            kernel::write_charged(&raw mut (*last).charged, css);
            counted_again(task, css, call, last);
        }
    }
}

/// Whether a memory cgroup's counter is not the one that was counted last, or has moved since.
///
/// # Safety
/// `last` is the map's value.
#[inline(always)]
unsafe fn has_moved(last: *const LastCount, css: Address) -> bool {
    let serial: u64 = kernel::read(css, config!(css_serial_nr));
    let oom_kill: u64 = kernel::read(kernel::css_memcg(css), config!(memcg_local_oom_kill));
    // SAFETY: as this function's own.
    let last = unsafe { &(*last).charged };
    serial != last.serial || oom_kill != last.oom_kill
}

/// Sends the record of a double count.
///
/// # Safety
/// `last` is the map's value, and is of this count.
#[inline(always)]
unsafe fn counted_again(task: Address, css: Address, call: u64, last: *const LastCount) {
    let seq = maps::next_sequence(VICTIM_SEQUENCE);
    let Some(mut entry) = RECORDS.reserve::<DoubleCount>(0) else {
        maps::count_drop(DROP_VICTIM);
        return;
    };
    let leader = kernel::read(task, config!(task_group_leader));
    let count = entry.as_mut_ptr();
    // SAFETY: the ring gave the memory for one `DoubleCount`, and every field is written.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        (*count).header = maps::header::<DoubleCount>(KIND_DOUBLE_COUNT, seq, now);
        (*count).fields = known_fields(field::TGID | field::START | field::CSS_INODE);
        (*count).invocation = call;
        let start = &raw mut (*count).start_boottime_ns;
        kernel::read_into(start, leader, config!(task_start_boottime));
        (*count).charged = (*last).charged;
        let above = kernel::css_cgroup(kernel::read(css, config!(css_parent)));
        let above = kernel::read(above, config!(cgroup_kn));
        kernel::read_into(&raw mut (*count).parent_id, above, config!(kernfs_id));
        kernel::read_into(&raw mut (*count).tgid, task, config!(task_tgid));
        (*count).padding = 0;
    }
    entry.submit(u64::from(config!(submit_flags)));
}

/// The task that `current` has just sent the signal, if its thread id is `tid`; else 0.
#[inline(always)]
pub(crate) fn signalled_task(tid: u32) -> Address {
    let Some(slot) = SIGNALLED.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU value.
    let signalled = unsafe { &*slot };
    if signalled.is_of_current(tid) {
        signalled.task
    } else {
        0
    }
}

/// Whether the kernel counted the thread that is being marked, as a bit of [`field`]. Each signal
/// is good for one mark.
#[inline(always)]
pub(crate) fn judge(tid: u32) -> u64 {
    let Some(slot) = SIGNALLED.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU value.
    let signalled = unsafe { &mut *slot };
    let is_counted = signalled.is_of_current(tid) && signalled.counted != 0;
    let verdict = if is_counted {
        field::COUNTED
    } else {
        field::NOT_COUNTED
    };
    // By way of memory, as in `kernel::add_bits`.
    let counted = &raw mut signalled.counted;
    // SAFETY: made from a reference.
    unsafe {
        counted.write_volatile(verdict);
        let verdict = counted.read_volatile();
        counted.write_volatile(0);
        verdict
    }
}

impl Signalled {
    #[inline(always)]
    fn is_of_current(&self, tid: u32) -> bool {
        self.sender == bpf_get_current_pid_tgid()
            && self.tid == u64::from(tid)
            && self.call == invocation::number()
    }
}

/// Keeps what a mark was charged to, whether its record finds room or not. The next signal or mark is judged by it.
#[inline(always)]
pub(crate) fn note_mark(task: Address) {
    let Some(last) = LAST_COUNT.get_ptr_mut(0) else {
        return;
    };
    let css = charged_css(task, kernel::read(task, config!(task_mm)));
    // SAFETY: a map value, written under `oom_lock`.
    unsafe {
        (*last).marked_by = bpf_get_current_pid_tgid();
        kernel::write_charged(&raw mut (*last).charged, css);
    }
}

/// The memory css that a kill is charged to: that of the `mm`'s owner. The owner is another task only where processes
/// share an `mm` across cgroups.
#[inline(always)]
pub(crate) fn charged_css(task: Address, mm: Address) -> Address {
    let owner: Address = kernel::read(mm, config!(mm_owner));
    kernel::task_memory_css(if owner == 0 { task } else { owner })
}
