#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "aya's macros wrap each program in a public function without documentation"
)]
//! The kernel side of oomwatch: one record per `mark_victim`, per cgroup created
//! and per cgroup removed, in one ring buffer and so in kernel order.
//!
//! Every program here is O(1): it copies ids and numbers and leaves all meaning to
//! user space. `current` is the task that ran the OOM killer (the trigger), never
//! assumed to be the victim.
//!
//! Invariant: no structure layout of the kernel is compiled in. Offsets come from
//! the running kernel's BTF by way of [`kernel::CONFIG`].

mod cgroup;
mod invocation;
mod kernel;
mod maps;
mod pid;
mod signal;
mod state;
mod victim;

use aya_ebpf::{
    macros::{fentry, fexit, raw_tracepoint, tracepoint},
    programs::{FEntryContext, FExitContext, RawTracePointContext, TracePointContext},
};

/// `oom:mark_victim`: the OOM killer marked a task.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> u32 {
    victim::marked(&ctx);
    0
}

/// `oom:mark_victim` once more, for the log.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim_log(ctx: RawTracePointContext) -> u32 {
    victim::log_mark(&ctx);
    0
}

/// `signal:signal_generate`: keeps the task that the OOM killer has just sent SIGKILL to, because that is the task it
/// counts. On kernels whose `mark_victim` passes a pid only, this task also identifies the victim.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> u32 {
    signal::generated(&ctx);
    0
}

/// `sched:sched_process_exit`: completes a victim that could not be found when it was
/// marked. Here `current` is the victim.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(_ctx: RawTracePointContext) -> u32 {
    victim::exited();
    0
}

/// `oom:mark_victim`, where there is no BTF.
#[tracepoint(category = "oom", name = "mark_victim")]
pub fn mark_victim_pid(ctx: TracePointContext) -> u32 {
    pid::marked(&ctx);
    0
}

/// `signal:signal_generate`, where there is no BTF: a victim was sent SIGKILL before its mark.
#[tracepoint(category = "signal", name = "signal_generate")]
pub fn signal_generate_pid(ctx: TracePointContext) -> u32 {
    pid::signalled(&ctx);
    0
}

/// `sched:sched_process_exit`, where there is no BTF: `current` may be a victim.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit_pid(_ctx: RawTracePointContext) -> u32 {
    pid::exited();
    0
}

/// The same in the classic tracepoint. The kernel skips the two for different causes: see [`pid`].
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn sched_process_exit_too(_ctx: TracePointContext) -> u32 {
    pid::exited();
    0
}

/// Entry of `out_of_memory()`: keeps its `struct oom_control` for the marks to come.
#[fentry(function = "out_of_memory")]
pub fn out_of_memory_entry(ctx: FEntryContext) -> u32 {
    invocation::begin(ctx.arg(0));
    0
}

/// Return of `out_of_memory()`: closes a group kill.
#[fexit(function = "out_of_memory")]
pub fn out_of_memory_exit(_ctx: FExitContext) -> u32 {
    invocation::end();
    0
}

/// `cgroup:cgroup_mkdir`.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> u32 {
    cgroup::created(ctx.arg(0));
    0
}

/// `cgroup:cgroup_rmdir`: the memory counters can still be read here.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: RawTracePointContext) -> u32 {
    cgroup::removed(ctx.arg(0));
    0
}

/// GPL-compatible, as the helpers demand; the source is `MIT OR Apache-2.0`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
