//! Decodes the bytes in the ring into records. Each field is known or `None`.
//!
//! Invariant: nothing behind this module sees a wire field whose bit was not set.

use oomwatch_common::record::{
    self, CgroupChange, ChainLink, Header, InvocationEnd, KIND_CGROUP_CREATED, KIND_CGROUP_REMOVED,
    KIND_DOUBLE_COUNT, KIND_INVOCATION_END, KIND_VICTIM, Victim, WIRE_VERSION, change_field, field,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{
    id::{CgroupId, Css, printable},
    record::{
        Allocation, CgroupChanged, Charged, Constraint, DoubleCount, GroupEnd, Invocation,
        LimitHit, Memcg, Memory, Record, Task, VictimRecord,
    },
};

/// Why a record in the ring was not understood. The record is counted and passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DecodeError {
    #[error("record of {0} bytes is too short for a header")]
    NoHeader(usize),
    #[error("record has wire version {found}, this build reads {WIRE_VERSION}")]
    Version { found: u16 },
    #[error("record has unknown kind {0}")]
    Kind(u16),
    #[error("record of kind {kind} has {found} bytes instead of {expected}")]
    Length {
        kind: u16,
        expected: usize,
        found: usize,
    },
}

/// Decodes one record. `page_bytes` is the machine's page size.
pub(crate) fn decode(bytes: &[u8], page_bytes: u64) -> Result<Record, DecodeError> {
    let (header, _) =
        Header::read_from_prefix(bytes).map_err(|_| DecodeError::NoHeader(bytes.len()))?;
    if header.version != WIRE_VERSION {
        return Err(DecodeError::Version {
            found: header.version,
        });
    }
    match header.kind {
        KIND_VICTIM => exactly::<Victim>(bytes, header)
            .map(|wire| Record::Victim(Box::new(victim(wire, page_bytes)))),
        KIND_CGROUP_CREATED => {
            exactly::<CgroupChange>(bytes, header).map(|wire| Record::CgroupCreated(change(wire)))
        }
        KIND_CGROUP_REMOVED => {
            exactly::<CgroupChange>(bytes, header).map(|wire| Record::CgroupRemoved(change(wire)))
        }
        KIND_INVOCATION_END => {
            exactly::<InvocationEnd>(bytes, header).map(|wire| Record::GroupEnd(group_end(wire)))
        }
        KIND_DOUBLE_COUNT => exactly::<record::DoubleCount>(bytes, header)
            .map(|wire| Record::DoubleCount(double_count(wire))),
        kind => Err(DecodeError::Kind(kind)),
    }
}

/// The record as `T`, if both the ring and the header give that length.
fn exactly<T: FromBytes + KnownLayout + Immutable>(
    bytes: &[u8],
    header: Header,
) -> Result<&T, DecodeError> {
    let wrong = |found| DecodeError::Length {
        kind: header.kind,
        expected: size_of::<T>(),
        found,
    };
    if header.size as usize != size_of::<T>() {
        return Err(wrong(header.size as usize));
    }
    T::ref_from_bytes(bytes).map_err(|_| wrong(bytes.len()))
}

fn victim(wire: &Victim, page_bytes: u64) -> VictimRecord {
    let has = |bit| wire.fields & bit != 0;
    let known = |bit, value: u32| has(bit).then_some(value);
    let size = |bit, value: u64| has(bit).then_some(value);
    // Per-CPU counters are approximate, and below 0 for a moment.
    let pages = |bit, pages: u64| {
        size(
            bit,
            ((pages as i64).max(0) as u64).saturating_mul(page_bytes),
        )
    };
    VictimRecord {
        seq: wire.header.seq,
        boottime_ns: wire.header.boottime_ns,
        victim: Task {
            tid: wire.tid,
            pid: known(field::TGID, wire.tgid),
            comm: has(field::COMM).then(|| comm(&wire.comm)),
            uid: known(field::UID, wire.uid),
            cgroup_id: has(field::CGROUP).then_some(CgroupId(wire.cgroup_id)),
        },
        is_init: has(field::NS_TGID).then_some(wire.ns_tgid == 1),
        start_boottime_ns: size(field::START, wire.start_boottime_ns),
        oom_score_adj: has(field::OOM_SCORE_ADJ).then_some(wire.oom_score_adj),
        memory: Memory {
            total_vm_bytes: pages(field::TOTAL_VM, wire.total_vm_pages),
            anon_rss_bytes: pages(field::RSS, wire.anon_rss_pages),
            file_rss_bytes: pages(field::RSS, wire.file_rss_pages),
            shmem_rss_bytes: pages(field::RSS, wire.shmem_rss_pages),
            pgtables_bytes: size(field::PGTABLES, wire.pgtables_bytes),
        },
        trigger: Task {
            tid: wire.trigger_tid,
            pid: Some(wire.trigger_tgid),
            comm: has(field::TRIGGER_COMM).then(|| comm(&wire.trigger_comm)),
            uid: Some(wire.trigger_uid),
            cgroup_id: Some(CgroupId(wire.trigger_cgroup_id)),
        },
        chain: chain(wire),
        charged: has(field::CHARGED).then(|| charged(&wire.charged, has(field::CSS_INODE))),
        chain_is_v1: has(field::CHAIN_V1),
        invocation: has(field::INVOCATION).then_some(Invocation {
            number: wire.invocation,
            index: wire.index,
            kills_group: kills_group(wire),
        }),
        limit: limit(wire, page_bytes),
        allocation: has(field::OOM_CONTROL).then_some(Allocation {
            constraint: Constraint::from_kernel(wire.constraint),
            order: wire.order,
            gfp_mask: wire.gfp_mask,
        }),
        counted: match (has(field::COUNTED), has(field::NOT_COUNTED)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        at_exit: has(field::AT_EXIT),
    }
}

/// Whether `memory.oom.group` is set on any cgroup from the victim's up to the one whose limit was hit, as in
/// `mem_cgroup_get_oom_group()`. Without such a limit all cgroups count.
fn kills_group(wire: &Victim) -> bool {
    let depth = wire
        .chain
        .iter()
        .position(|link| link.cgroup_id == wire.limit_memcg_id && link.cgroup_id != 0);
    let counting = depth.map_or(wire.chain.len(), |depth| depth + 1);
    wire.fields & field::OOM_GROUPS != 0
        && wire
            .oom_groups
            .iter()
            .take(counting)
            .any(|&group| group != 0)
}

/// A limit, unless it is `max`: `PAGE_COUNTER_MAX`, which is `LONG_MAX / PAGE_SIZE` (5.8 to 7.3).
fn max_bytes(pages: u64, page_bytes: u64) -> Option<u64> {
    let none = i64::MAX.unsigned_abs() / page_bytes.max(1);
    (pages < none).then(|| pages.saturating_mul(page_bytes))
}

fn limit(wire: &Victim, page_bytes: u64) -> Option<LimitHit> {
    if wire.fields & field::LIMIT == 0 {
        return None;
    }
    if wire.limit_memcg_id == 0 {
        return Some(LimitHit::Node {
            // The kernel computes it after its shortcut for tasks that are dying already.
            total_bytes: (wire.fields & field::OOM_CONTROL != 0 && wire.total_pages > 0)
                .then(|| wire.total_pages.saturating_mul(page_bytes)),
        });
    }
    let usage = wire.fields & field::LIMIT_USAGE != 0;
    Some(LimitHit::Memcg {
        cgroup_id: CgroupId(wire.limit_memcg_id),
        max_bytes: max_bytes(wire.limit_max_pages, page_bytes).filter(|_| usage),
        usage_bytes: usage.then(|| wire.limit_usage_pages.saturating_mul(page_bytes)),
    })
}

fn chain(wire: &Victim) -> Vec<Memcg> {
    wire.chain
        .iter()
        .take_while(|link| link.cgroup_id != 0)
        .map(|link| memcg(link, wire.fields))
        .collect()
}

/// `known` are bits of [`field`].
fn memcg(link: &ChainLink, known: u64) -> Memcg {
    let known = |bit, counter| (known & bit != 0).then_some(counter);
    Memcg {
        cgroup_id: CgroupId(link.cgroup_id),
        // The lower half: no boot makes that many.
        serial: link.serial as u32,
        oom_kill: known(field::CHAIN, link.counters.oom_kill),
        oom: known(field::OOM_COUNTER, link.counters.oom),
        oom_group_kill: known(field::GROUP_COUNTER, link.counters.oom_group_kill),
    }
}

fn change(wire: &CgroupChange) -> CgroupChanged {
    let has = |bit| wire.fields & bit != 0;
    CgroupChanged {
        seq: wire.header.seq,
        boottime_ns: wire.header.boottime_ns,
        cgroup_id: CgroupId(wire.last.cgroup_id),
        parent_id: has(change_field::PARENT).then_some(CgroupId(wire.parent_id)),
        name: has(change_field::NAME).then(|| until_nul(&wire.name).into()),
        counters: has(change_field::COUNTERS).then(|| memcg(&wire.last, field::CHAIN)),
        charged: has(change_field::CHARGED)
            .then(|| charged(&wire.charged, has(change_field::CSS_INODE))),
    }
}

fn group_end(wire: &InvocationEnd) -> GroupEnd {
    GroupEnd {
        seq: wire.header.seq,
        boottime_ns: wire.header.boottime_ns,
        invocation: wire.invocation,
        marks: wire.marks,
    }
}

fn double_count(wire: &record::DoubleCount) -> DoubleCount {
    let has = |bit| wire.fields & bit != 0;
    DoubleCount {
        seq: wire.header.seq,
        boottime_ns: wire.header.boottime_ns,
        invocation: Some(wire.invocation).filter(|&number| number != 0),
        pid: has(field::TGID).then_some(wire.tgid),
        start_boottime_ns: has(field::START).then_some(wire.start_boottime_ns),
        charged: charged(&wire.charged, has(field::CSS_INODE)),
        parent_id: Some(CgroupId(wire.parent_id)).filter(|id| id.0 != 0),
    }
}

fn charged(wire: &record::Charged, knows_inode: bool) -> Charged {
    Charged {
        cgroup_id: CgroupId(wire.cgroup_id),
        css: Css {
            inode: Some(wire.inode).filter(|&inode| knows_inode && inode != 0),
            serial: Some(wire.serial),
        },
        oom_kill: wire.oom_kill,
    }
}

fn comm(raw: &[u8]) -> String {
    printable(until_nul(raw))
}

fn until_nul(raw: &[u8]) -> &[u8] {
    raw.split(|&byte| byte == 0).next().unwrap_or(raw)
}

#[cfg(test)]
mod tests;
