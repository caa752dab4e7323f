//! Records for tests of the pure modules.

use super::{
    Allocation, CgroupChanged, Charged, Constraint, Invocation, LimitHit, Memcg, Memory, Task,
    VictimRecord,
};
use crate::id::{CgroupId, Css};

/// A memory cgroup with its counter.
pub(crate) fn memcg(id: u64, oom_kill: u64) -> Memcg {
    Memcg {
        cgroup_id: CgroupId(id),
        serial: 1,
        oom_kill: Some(oom_kill),
        oom: Some(0),
        oom_group_kill: Some(0),
    }
}

/// The first memory cgroup of a chain, with `oom_kill` as its own counter.
pub(crate) fn charged(id: u64, oom_kill: u64) -> Option<Charged> {
    Some(Charged {
        cgroup_id: CgroupId(id),
        css: Css {
            inode: None,
            serial: Some(1),
        },
        oom_kill,
    })
}

/// A victim in the first cgroup of `chain`, whose limit was hit.
pub(crate) fn victim(pid: u32, at_ns: u64, chain: &[Memcg]) -> VictimRecord {
    let own = chain.first().map(|memcg| memcg.cgroup_id);
    VictimRecord {
        seq: at_ns,
        boottime_ns: at_ns,
        victim: Task {
            tid: pid,
            pid: Some(pid),
            comm: Some("java".into()),
            uid: Some(1000),
            cgroup_id: own,
        },
        is_init: Some(false),
        start_boottime_ns: Some(u64::from(pid)),
        oom_score_adj: Some(0),
        memory: Memory {
            total_vm_bytes: Some(1 << 30),
            anon_rss_bytes: Some(250 << 20),
            file_rss_bytes: Some(4096),
            shmem_rss_bytes: Some(0),
            pgtables_bytes: Some(4096),
        },
        trigger: Task {
            tid: 99,
            pid: Some(99),
            comm: Some("conmon".into()),
            uid: Some(0),
            cgroup_id: Some(CgroupId::ROOT),
        },
        chain: chain.to_vec(),
        charged: chain
            .first()
            .and_then(|memcg| charged(memcg.cgroup_id.0, memcg.oom_kill?)),
        chain_is_v1: false,
        invocation: Some(Invocation {
            number: at_ns,
            index: 0,
            kills_group: false,
        }),
        limit: own.map(|cgroup_id| LimitHit::Memcg {
            cgroup_id,
            max_bytes: Some(256 << 20),
            usage_bytes: Some(256 << 20),
        }),
        allocation: Some(Allocation {
            constraint: Constraint::Memcg,
            order: 0,
            gfp_mask: 0xcc0,
        }),
        counted: Some(true),
        at_exit: false,
    }
}

/// A cgroup that came or went.
pub(crate) fn change(id: u64, parent: u64, name: &str, at_ns: u64) -> CgroupChanged {
    CgroupChanged {
        seq: at_ns,
        boottime_ns: at_ns,
        cgroup_id: CgroupId(id),
        parent_id: Some(CgroupId(parent)),
        name: Some(name.as_bytes().into()),
        counters: None,
        charged: None,
    }
}
