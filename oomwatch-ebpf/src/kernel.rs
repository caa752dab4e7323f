//! Reading kernel memory: the one funnel, and the few structures walked with it.
//!
//! Nothing here returns an `Option`, and a read that fails gives 0. LLVM tests the undefined
//! payload of a `None` before its tag where that is shorter, for which the verifier rejects the
//! program; and every branch doubles what the verifier has to walk through at each start.
//! Whether a value is known is told by the offset, which the verifier takes for a constant, and
//! by the object's address, which is tested once.
//!
//! Facts checked with loaded programs on 5.10.218, 6.1, 6.12, 6.18 and 7.3.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_raw_tracepoint_args,
    helpers::generated::{bpf_get_current_comm, bpf_probe_read_kernel},
};
use oomwatch_common::{
    config::ABSENT,
    record::{COMM_LEN, ChainLink, NO_COUNTER},
};

/// Address of a kernel object; 0 where it is unknown, which nothing can be read from.
pub(crate) type Address = u64;

/// The value of one member of [`crate::CONFIG`].
macro_rules! config {
    ($name:ident) => {
        $crate::kernel::config_value(&$crate::CONFIG.$name)
    };
}
pub(crate) use config;

/// The bit `$bit` where this kernel has all of the members, else 0.
macro_rules! known {
    ($bit:expr, $($name:ident),+) => {
        if $($crate::kernel::config!($name) != oomwatch_common::config::ABSENT)&&+ {
            $bit
        } else {
            0
        }
    };
}
pub(crate) use known;

/// Volatile, because user space rewrites the configuration after compilation.
#[inline(always)]
pub(crate) fn config_value(member: &'static u32) -> u32 {
    // SAFETY: a reference to a plain integer.
    unsafe { core::ptr::read_volatile(member) }
}

/// Types of which every bit pattern, all zeros too, is a value.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i16 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for u64 {}
impl Plain for i64 {}

/// Reads the `T` at `base + offset`; 0 where that is not possible.
#[inline(always)]
pub(crate) fn read<T: Plain>(base: Address, offset: u32) -> T {
    if offset == ABSENT {
        // SAFETY: all zeros is a `T`.
        return unsafe { MaybeUninit::zeroed().assume_init() };
    }
    read_present(base, offset)
}

/// As [`read`], of a member that every tier demands.
#[inline(always)]
pub(crate) fn read_present<T: Plain>(base: Address, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address, and writes zeros where it fails; so the value is
    // written either way, and every bit pattern is a `T`.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const _,
        );
        value.assume_init()
    }
}

/// Reads the bytes at `base + offset` into a record; zeros where that is not possible. Not by way
/// of the stack, which would be cleared and copied byte by byte.
#[inline(always)]
pub(crate) fn read_bytes<const N: usize>(into: &mut [u8; N], base: Address, offset: u32) {
    // SAFETY: as in `read_present`. Of an absent member this reads nothing that means anything,
    // and its bit is not set.
    unsafe {
        bpf_probe_read_kernel(
            into.as_mut_ptr().cast(),
            N as u32,
            (base + u64::from(offset)) as *const _,
        )
    };
}

/// The name of `current`.
#[inline(always)]
pub(crate) fn current_comm() -> [u8; COMM_LEN] {
    let mut comm = MaybeUninit::<[u8; COMM_LEN]>::uninit();
    // SAFETY: the helper writes all of it, zeros where it fails.
    unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LEN as u32);
        comm.assume_init()
    }
}

/// Sets `bits` in a record. Volatile, to go through memory: in a register the verifier would know
/// the value, and walk through all that follows once for every combination of bits.
#[inline(always)]
pub(crate) fn add_bits(fields: &mut u64, bits: u64) {
    let fields: *mut u64 = fields;
    // SAFETY: made from a reference.
    unsafe { fields.write_volatile(fields.read_volatile() | bits) }
}

/// Argument `n` of a raw tracepoint.
#[inline(always)]
pub(crate) fn argument(ctx: &impl EbpfContext, n: usize) -> u64 {
    let args = ctx.as_ptr() as *const bpf_raw_tracepoint_args;
    // SAFETY: the verifier knows how many arguments this tracepoint has.
    unsafe { *(*args).args.as_ptr().add(n) }
}

/// `cgroup->kn->id`: the inode number of the cgroup's directory. Never 0.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: Address) -> u64 {
    read(read(cgroup, config!(cgroup_kn)), config!(kernfs_id))
}

/// `css->cgroup`.
#[inline(always)]
pub(crate) fn css_cgroup(css: Address) -> Address {
    read(css, config!(css_cgroup))
}

/// The memory `css` of a task's cgroups: its nearest cgroup with the controller on.
#[inline(always)]
pub(crate) fn task_memory_css(task: Address) -> Address {
    read(read(task, config!(task_cgroups)), config!(css_set_memory))
}

/// Id of the hierarchy that a cgroup is in; 0 is v2.
#[inline(always)]
pub(crate) fn hierarchy_id(cgroup: Address) -> i32 {
    read(
        read(cgroup, config!(cgroup_root)),
        config!(root_hierarchy_id),
    )
}

/// The `mem_cgroup` that a memory css is part of.
#[inline(always)]
pub(crate) fn css_memcg(css: Address) -> Address {
    css - memcg_css()
}

/// Offset of `css` in `mem_cgroup`: 0 on every kernel so far, but BTF decides.
#[inline(always)]
pub(crate) fn memcg_css() -> u64 {
    match config!(memcg_css) {
        ABSENT => 0,
        offset => u64::from(offset),
    }
}

/// One counter of the events array at `events` in a `mem_cgroup`.
#[inline(always)]
pub(crate) fn event_counter(memcg: Address, events: u32, event: u32) -> u64 {
    if events == ABSENT || event == ABSENT {
        return u64::from(NO_COUNTER);
    }
    read(memcg, events + event)
}

/// Id and hierarchical counters of one memory cgroup; id 0 where it cannot be read.
#[inline(always)]
pub(crate) fn chain_link(css: Address) -> ChainLink {
    let memcg = css_memcg(css);
    let events = config!(memcg_events);
    ChainLink {
        cgroup_id: cgroup_id(css_cgroup(css)),
        oom_kill: event_counter(memcg, events, config!(event_oom_kill)) as u32,
        serial: read::<u64>(css, config!(css_serial_nr)) as u32,
        oom: event_counter(memcg, events, config!(event_oom)) as u32,
        oom_group_kill: event_counter(memcg, events, config!(event_oom_group_kill)) as u32,
    }
}
