//! The maps, and the two ways to lose a record: no room, and counting that.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use oomwatch_common::record::{DROP_KINDS, DROP_VICTIM, Header, WIRE_VERSION};

use crate::{invocation::Invocation, pid::Suspect, victim::Deferred, victim::Signalled};

/// All records. User space sets the size.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Records that found no room, by kind.
#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DROP_KINDS, 0);

/// The call of `out_of_memory()` under way. One is enough: it runs under `oom_lock`.
#[map]
pub(crate) static INVOCATION: Array<Invocation> = Array::with_max_entries(1, 0);

/// Last sequence number by kind of drop counter. Plain memory: victims are numbered
/// under `oom_lock` and cgroup changes under `cgroup_mutex`.
#[map]
pub(crate) static SEQUENCE: Array<u64> = Array::with_max_entries(DROP_KINDS, 0);

/// The task that this CPU's last OOM SIGKILL went to.
#[map]
pub(crate) static SIGNALLED: PerCpuArray<Signalled> = PerCpuArray::with_max_entries(1, 0);

/// Victims known by thread id only, waiting for their exit. Bounded: a victim dies
/// within seconds, and 1024 marked at once without a task pointer are not expected.
#[map]
pub(crate) static DEFERRED: HashMap<u32, Deferred> = HashMap::with_max_entries(1024, 0);

/// As [`DEFERRED`], where there is no BTF. Some may wait for nothing, and give way.
#[map]
pub(crate) static MARKED: LruHashMap<u32, Deferred> = LruHashMap::with_max_entries(1024, 0);

/// Threads that the kernel has sent SIGKILL to, where there is no BTF: few of them are victims, and those
/// are marked within microseconds, unless the OOM killer is preempted.
#[map]
pub(crate) static SUSPECTS: LruHashMap<u32, Suspect> = LruHashMap::with_max_entries(1024, 0);

/// Counter of each memory cgroup at its last mark, with its serial. Kept here, so that it tells a
/// counted mark from another even where the records between found no room. Cgroups that are
/// displaced are judged in user space again.
#[map]
pub(crate) static LAST_COUNTS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Flag of `bpf_ringbuf_query`: bytes not read yet.
const BPF_RB_AVAIL_DATA: u64 = 0;
/// Flag of `bpf_ringbuf_query`: size of the ring.
const BPF_RB_RING_SIZE: u64 = 1;

/// Takes the next number of the sequence that `drop_kind` counts.
#[inline(always)]
pub(crate) fn next_sequence(drop_kind: u32) -> u64 {
    let Some(last) = SEQUENCE.get_ptr_mut(drop_kind) else {
        return 0;
    };
    // SAFETY: a map value, and the caller holds the lock that serialises this sequence.
    unsafe {
        *last += 1;
        *last
    }
}

/// Counts a record that found no room.
#[inline(always)]
pub(crate) fn count_drop(drop_kind: u32) {
    if let Some(count) = DROPS.get_ptr_mut(drop_kind) {
        // SAFETY: a per-CPU value; tracepoint programs do not move between CPUs.
        unsafe { *count += 1 }
    }
}

/// What [`note_count`] returns for a memory cgroup without a mark before.
pub(crate) const NO_PAST: u64 = u64::MAX;

/// Keeps a memory cgroup's local `oom_kill` for its next mark; returns by how much it moved since the
/// last. The local one, because cgroups below have marks of their own.
#[inline(always)]
pub(crate) fn note_count(memcg_id: u64, serial: u64, oom_kill: u64) -> u64 {
    // Their lower halves: no boot exceeds them.
    let oom_kill = oom_kill & u64::from(u32::MAX);
    let count = serial << 32 | oom_kill;
    // SAFETY: the value is copied at once, and `oom_lock` is held.
    let moved = match unsafe { LAST_COUNTS.get(memcg_id) } {
        Some(&last) if last >> 32 == count >> 32 => count.wrapping_sub(last),
        // Counters that began again.
        Some(_) => oom_kill,
        None => NO_PAST,
    };
    let _ = LAST_COUNTS.insert(memcg_id, count, 0);
    moved
}

/// Whether a record that is not a victim may take room: a storm of cgroup creation
/// must leave the last quarter of the ring to victims.
#[inline(always)]
pub(crate) fn has_room_beside_victims() -> bool {
    leaves_free(4)
}

/// Whether a victim may take room: the last eighth is for the ends of group kills, ten times as small,
/// without which the kernel's second count of a victim cannot be told from a kill that was lost.
#[inline(always)]
pub(crate) fn has_room_beside_ends() -> bool {
    leaves_free(8)
}

/// Whether more than the `part`th part of the ring is free.
#[inline(always)]
fn leaves_free(part: u64) -> bool {
    let size = RECORDS.query(BPF_RB_RING_SIZE);
    RECORDS.query(BPF_RB_AVAIL_DATA) < size - size / part
}

/// A record's header.
#[inline(always)]
pub(crate) fn header<T>(kind: u16, seq: u64, boottime_ns: u64) -> Header {
    Header {
        version: WIRE_VERSION,
        kind,
        size: size_of::<T>() as u32,
        seq,
        boottime_ns,
    }
}

/// The sequence of victims and invocation ends.
pub(crate) const VICTIM_SEQUENCE: u32 = DROP_VICTIM;
