//! The maps. A record that finds no room in the ring is dropped, and counted.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use oomwatch_common::record::{DROP_KINDS, DROP_VICTIM, Header, WIRE_VERSION};

use crate::state::{Deferred, Invocation, LastCount, Signalled, Suspect};

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

/// The last mark or double count. One is enough: it is written under `oom_lock`.
#[map]
pub(crate) static LAST_COUNT: Array<LastCount> = Array::with_max_entries(1, 0);

/// The task that this CPU's last OOM SIGKILL went to. Between the signal and its mark nobody moves to another CPU:
/// the victim's `alloc_lock` is held.
#[map]
pub(crate) static SIGNALLED: PerCpuArray<Signalled> = PerCpuArray::with_max_entries(1, 0);

/// Victims known by thread id only, waiting for their exit. Bounded: a victim dies within seconds, and 1024 victims
/// marked at once without a task pointer are not expected.
#[map]
pub(crate) static DEFERRED: HashMap<u32, Deferred> = HashMap::with_max_entries(1024, 0);

/// As [`DEFERRED`], where there is no BTF. Some marks may wait for nothing; they give way when the map is full.
#[map]
pub(crate) static MARKED: LruHashMap<u32, Deferred> = LruHashMap::with_max_entries(1024, 0);

/// Threads that the kernel has sent SIGKILL to, where there is no BTF. Few of them are victims. Victims are marked
/// within microseconds, unless the OOM killer is preempted.
#[map]
pub(crate) static SUSPECTS: LruHashMap<u32, Suspect> = LruHashMap::with_max_entries(1024, 0);

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

/// Whether a record that is not a victim may take room. A storm of cgroup creation must leave the last quarter of the
/// ring to victims.
#[inline(always)]
pub(crate) fn has_room_beside_victims() -> bool {
    leaves_free(4)
}

/// Whether a victim may take room. The last eighth is for double counts and the ends of group kills, which are ten
/// times as small. Without its record, a double count looks like a kill that was lost.
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

/// The sequence of victims, double counts and invocation ends.
pub(crate) const VICTIM_SEQUENCE: u32 = DROP_VICTIM;
