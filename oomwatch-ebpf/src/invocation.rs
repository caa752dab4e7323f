//! One call of `out_of_memory()`: its `struct oom_control`, its number, and the marks made in it. Exists only where
//! fentry can be attached.
//!
//! Every mark is made inside `out_of_memory()` by the task that called it, under `oom_lock`. So one slot checked
//! against `current` can neither be stale nor mixed up.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns};
use oomwatch_common::{
    config::ABSENT,
    record::{DROP_VICTIM, InvocationEnd, KIND_INVOCATION_END, Victim, field},
};

use crate::{
    kernel::{self, Address, config, known_fields},
    maps::{self, RECORDS, VICTIM_SEQUENCE},
    state::Invocation,
};

/// What [`number`] returns where `out_of_memory()` is not hooked, or was not entered since.
pub(crate) const UNHOOKED: u64 = 0;
/// What [`number`] returns where `current` is in no call.
pub(crate) const OUTSIDE: u64 = u64::MAX;

/// `out_of_memory(oc)` was entered.
#[inline(always)]
pub(crate) fn begin(oom_control: Address) {
    let Some(slot) = maps::INVOCATION.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a map value, written under `oom_lock`.
    let invocation = unsafe { &mut *slot };
    invocation.caller = bpf_get_current_pid_tgid();
    invocation.oom_control = oom_control;
    invocation.number += 1;
    invocation.marks = 0;
    invocation.group = 0;
}

/// The call that `current` is in.
#[inline(always)]
pub(crate) fn current() -> Option<&'static mut Invocation> {
    let slot = maps::INVOCATION.get_ptr_mut(0)?;
    // SAFETY: a map value, written under `oom_lock`.
    let invocation = unsafe { &mut *slot };
    // The caller of the idle task's pid 0 never runs the OOM killer.
    (invocation.caller != 0 && invocation.caller == bpf_get_current_pid_tgid())
        .then_some(invocation)
}

/// Number of the call that `current` is in, or [`UNHOOKED`], or [`OUTSIDE`].
#[inline(always)]
pub(crate) fn number() -> u64 {
    let Some(slot) = maps::INVOCATION.get_ptr_mut(0) else {
        return UNHOOKED;
    };
    // SAFETY: a map value; who is not in the call may read it while it changes, and never finds
    // itself there.
    let (number, caller) = unsafe { ((*slot).number, (*slot).caller) };
    if number == UNHOOKED || caller == bpf_get_current_pid_tgid() {
        number
    } else {
        OUTSIDE
    }
}

impl Invocation {
    /// The task that the killer chose, if its thread id is `tid`; else 0.
    #[inline(always)]
    pub(crate) fn chosen(&self, tid: u32) -> Address {
        let chosen = kernel::read(self.oom_control, config!(oc_chosen));
        let chosen_tid: u32 = kernel::read(chosen, config!(task_pid));
        if config!(oc_chosen) != ABSENT && chosen_tid == tid {
            chosen
        } else {
            0
        }
    }

    /// Takes the place of one mark in this call and fills in its context.
    #[inline(always)]
    pub(crate) fn describe(&mut self, victim: &mut Victim) {
        victim.invocation = self.number;
        victim.index = self.marks;
        self.marks += 1;
        let oc = self.oom_control;
        let memcg: Address = kernel::read(oc, config!(oc_memcg));
        // SAFETY: made from references.
        unsafe {
            kernel::read_into(&raw mut victim.constraint, oc, config!(oc_constraint));
            kernel::read_into(&raw mut victim.order, oc, config!(oc_order));
            kernel::read_into(&raw mut victim.gfp_mask, oc, config!(oc_gfp_mask));
            kernel::read_into(&raw mut victim.total_pages, oc, config!(oc_totalpages));
            kernel::read_into(
                &raw mut victim.limit_usage_pages,
                memcg,
                config!(memcg_usage),
            );
            kernel::read_into(&raw mut victim.limit_max_pages, memcg, config!(memcg_max));
        }
        kernel::add_bits(
            &mut victim.fields,
            field::INVOCATION | known_fields(field::OF_INVOCATION),
        );
        if memcg != 0 {
            let css = memcg + u64::from(config!(memcg_css));
            victim.limit_memcg_id = kernel::cgroup_id(kernel::css_cgroup(css));
        }
    }

    /// Takes the place of a mark whose record found no room.
    #[inline(always)]
    pub(crate) fn missed(&mut self) {
        self.marks += 1;
    }

    /// Notes whether a victim's group may be killed with it: not 0 where it may.
    #[inline(always)]
    pub(crate) fn note_group(&mut self, oom_groups: u64) {
        self.group |= oom_groups;
    }
}

/// `out_of_memory()` returned.
#[inline(always)]
pub(crate) fn end() {
    let Some(invocation) = current() else {
        return;
    };
    invocation.caller = 0;
    if invocation.group == 0 && invocation.marks <= 1 {
        return;
    }
    let seq = maps::next_sequence(VICTIM_SEQUENCE);
    let Some(mut entry) = RECORDS.reserve::<InvocationEnd>(0) else {
        maps::count_drop(DROP_VICTIM);
        return;
    };
    // SAFETY: the helper needs nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    entry.write(InvocationEnd {
        header: maps::header::<InvocationEnd>(KIND_INVOCATION_END, seq, now),
        invocation: invocation.number,
        marks: invocation.marks,
        padding: 0,
    });
    entry.submit(u64::from(config!(submit_flags)));
}
