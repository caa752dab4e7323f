//! Reading kernel memory: the one funnel, and the few structures walked with it.
//!
//! Nothing here returns an `Option`, and a read that fails gives 0. LLVM tests the undefined payload of a `None`
//! before its tag where that is shorter. The verifier rejects the program for that. Every branch also doubles what
//! the verifier walks through at each start. Reads do not ask whether this kernel has the member. An absent member
//! gives any value, safely. User space computes [`known_fields`], which says that the value means nothing.
//!
//! Facts checked with loaded programs on 5.10.218, 6.1, 6.12, 6.18 and 7.3.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_raw_tracepoint_args,
    helpers::generated::{bpf_get_current_comm, bpf_probe_read_kernel},
};
use oomwatch_common::{
    config::Config,
    record::{COMM_LEN, ChainLink, Charged, Counters, field},
};

/// Address of a kernel object; 0 where it is unknown, and a read from 0 fails.
pub(crate) type Address = u64;

/// Where this kernel keeps what the probe reads; written by user space before load.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config::UNKNOWN;

/// The value of one member of [`CONFIG`].
macro_rules! config {
    ($name:ident) => {
        $crate::kernel::config_value(&$crate::kernel::CONFIG.$name)
    };
}
pub(crate) use config;

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
impl Plain for Counters {}
impl<const N: usize> Plain for [u8; N] {}

/// Those of `fields` that this kernel's layout allows the program to read.
#[inline(always)]
pub(crate) fn known_fields(fields: u64) -> u64 {
    u64::from(config!(known_fields)) & fields
}

/// Reads the `T` at `base + offset`; 0 where that is not possible. For an absent member the value means nothing.
#[inline(always)]
pub(crate) fn read<T: Plain>(base: Address, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `read_into` writes all of it, and every bit pattern is a `T`.
    unsafe {
        read_into(value.as_mut_ptr(), base, offset);
        value.assume_init()
    }
}

/// Reads the `T` at `base + offset` into a record; zeros where that is not possible. Not by way
/// of the stack, which would be cleared and copied.
///
/// # Safety
/// `into` points to memory of its own.
#[inline(always)]
pub(crate) unsafe fn read_into<T: Plain>(into: *mut T, base: Address, offset: u32) {
    // SAFETY: the helper checks the source, and writes zeros where it fails.
    unsafe {
        bpf_probe_read_kernel(
            into.cast(),
            size_of::<T>() as u32,
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

/// Sets `bits` in a record. Volatile, to go through memory: in a register the verifier would know the value. It would
/// then walk through all that follows once for every combination of bits.
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

/// A memory cgroup's hierarchical `oom_kill`; 0 where there is none.
#[inline(always)]
pub(crate) fn sum_of_kills(css: Address) -> u64 {
    if css == 0 || known_fields(field::CHAIN) == 0 {
        return 0;
    }
    read::<Counters>(css_memcg(css), config!(memcg_counters)).oom_kill
}

/// The `mem_cgroup` that a memory css is part of.
#[inline(always)]
pub(crate) fn css_memcg(css: Address) -> Address {
    css - u64::from(config!(memcg_css))
}

/// Writes id and hierarchical counters of one memory cgroup; zeros where it cannot be read. Without
/// a detour over the stack.
///
/// # Safety
/// `into` points to memory of its own.
#[inline(always)]
pub(crate) unsafe fn write_chain_link(into: *mut ChainLink, css: Address) {
    let cgroup = read(css, config!(css_cgroup));
    let kn = read(cgroup, config!(cgroup_kn));
    // SAFETY: as this function's own.
    unsafe {
        read_into(&raw mut (*into).cgroup_id, kn, config!(kernfs_id));
        read_into(&raw mut (*into).serial, css, config!(css_serial_nr));
        let counters = &raw mut (*into).counters;
        read_into(counters, css_memcg(css), config!(memcg_counters));
    }
}

/// Writes a memory cgroup with its own counter; zeros where it cannot be read.
///
/// `inode` is that of the file wherever there is one. In `cgroup_rmdir` the files are gone already, and it is 0
/// (5.10, 6.1, 6.12 and 7.3). It is 0 on v1 too, where there is no such file (6.18).
///
/// # Safety
/// As [`write_chain_link`].
#[inline(always)]
pub(crate) unsafe fn write_charged(into: *mut Charged, css: Address) {
    let memcg = css_memcg(css);
    let cgroup = read(css, config!(css_cgroup));
    let kn = read(cgroup, config!(cgroup_kn));
    let events_kn = read(memcg, config!(memcg_events_local_kn));
    // SAFETY: as this function's own.
    unsafe {
        read_into(&raw mut (*into).cgroup_id, kn, config!(kernfs_id));
        read_into(&raw mut (*into).inode, events_kn, config!(kernfs_id));
        read_into(&raw mut (*into).serial, css, config!(css_serial_nr));
        let oom_kill = &raw mut (*into).oom_kill;
        read_into(oom_kill, memcg, config!(memcg_local_oom_kill));
    }
}
