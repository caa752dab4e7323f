//! A made-up node under Kubernetes, and a storm of kills on it, as the kernel side writes them.

use oomwatch_common::record::{
    COMM_LEN, ChainLink, Charged, Header, KIND_VICTIM, MAX_CHAIN, Victim, WIRE_VERSION, field,
};
use zerocopy::FromZeros as _;

use crate::id::CgroupId;

const KUBEPODS: u64 = 2;
const BURSTABLE: u64 = 3;
const FIRST_POD: u64 = 1_000;
const FIRST_CONTAINER: u64 = 1_000_000;
/// A cgroup that each container has inside.
const FIRST_INNER: u64 = 2_000_000;

/// All that a record of the best tier knows.
const FIELDS: u64 = field::OF_TASK
    | field::OF_MM
    | field::OF_CHAIN
    | field::CHARGED
    | field::CSS_INODE
    | field::OF_INVOCATION
    | field::INVOCATION
    | field::TRIGGER_COMM;

/// Id, parent and name of each cgroup, parents first.
pub(super) fn topology(
    containers: u64,
    of_a_pod: u64,
) -> impl Iterator<Item = (CgroupId, CgroupId, String)> {
    let slices = [
        (KUBEPODS, CgroupId::ROOT.0, "kubepods.slice".to_owned()),
        (BURSTABLE, KUBEPODS, "kubepods-burstable.slice".to_owned()),
    ];
    let pods = (0..containers.div_ceil(of_a_pod)).map(|pod| {
        let name = format!("kubepods-burstable-pod{pod:08x}_0c2d_4f5a_9b1e_{pod:012x}.slice");
        (FIRST_POD + pod, BURSTABLE, name)
    });
    let containers = (0..containers).map(move |container| {
        let hash = container
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let name = format!("cri-containerd-{hash:016x}{hash:016x}{hash:016x}{hash:016x}.scope");
        (
            FIRST_CONTAINER + container,
            FIRST_POD + container / of_a_pod,
            name,
        )
    });
    let all = slices.into_iter().chain(pods).chain(containers);
    all.map(|(id, parent, name)| (CgroupId(id), CgroupId(parent), name))
}

/// Id, parent and name of a cgroup inside each container.
pub(super) fn inner(containers: u64) -> impl Iterator<Item = (CgroupId, CgroupId, &'static str)> {
    (0..containers).map(|container| {
        let (id, parent) = (FIRST_INNER + container, FIRST_CONTAINER + container);
        (CgroupId(id), CgroupId(parent), "init.scope")
    })
}

/// Kills all over the containers, one after the other. Of sixteen marks one is of a process that
/// was dying already, and one of another thread of the process before.
pub(super) struct Storm {
    pub(super) containers: u64,
    of_a_pod: u64,
    seq: u64,
    /// `oom_kill` of each cgroup that has any.
    counters: std::collections::HashMap<u64, u64>,
}

impl Storm {
    pub(super) fn new(containers: u64, of_a_pod: u64) -> Self {
        Self {
            containers,
            of_a_pod,
            seq: 0,
            counters: std::collections::HashMap::new(),
        }
    }

    pub(super) fn next(&mut self) -> Victim {
        self.seq += 1;
        let seq = self.seq;
        let is_thread = seq % 16 == 8;
        let is_counted = !seq.is_multiple_of(16) && !is_thread;
        // Another thread is in the container of the process before.
        let process = if is_thread { seq - 1 } else { seq };
        let container = process.wrapping_mul(7919) % self.containers;
        let counted = if is_counted {
            field::COUNTED
        } else {
            field::NOT_COUNTED
        };
        let mut victim = Victim {
            header: Header {
                version: WIRE_VERSION,
                kind: KIND_VICTIM,
                size: size_of::<Victim>() as u32,
                seq,
                boottime_ns: seq * 1_000,
            },
            fields: FIELDS | counted,
            start_boottime_ns: process,
            total_vm_pages: 1 << 18,
            anon_rss_pages: 1 << 16,
            file_rss_pages: 512,
            pgtables_bytes: 1 << 20,
            trigger_cgroup_id: FIRST_INNER + container,
            invocation: seq,
            limit_memcg_id: FIRST_CONTAINER + container,
            limit_usage_pages: 1 << 16,
            limit_max_pages: 1 << 16,
            tid: seq as u32,
            tgid: process as u32,
            ns_tgid: 7,
            uid: 1_000,
            trigger_tid: 99,
            trigger_tgid: 99,
            constraint: 3,
            gfp_mask: 0xcc0,
            comm: comm(b"java"),
            trigger_comm: comm(b"kworker/u8:3"),
            ..Victim::new_zeroed()
        };
        victim.chain = self.chain(container, is_counted);
        let charged = victim.chain[0];
        victim.charged = Charged {
            cgroup_id: charged.cgroup_id,
            inode: charged.cgroup_id + 1,
            serial: charged.serial,
            oom_kill: charged.counters.oom_kill,
        };
        let own = usize::from(!container.is_multiple_of(2));
        victim.cgroup_id = victim.chain.get(own).map_or(0, |link| link.cgroup_id);
        victim
    }

    /// Six memory cgroups: the inner one, the container, the pod, the class, all pods, the root.
    fn chain(&mut self, container: u64, is_counted: bool) -> [ChainLink; MAX_CHAIN] {
        let mut chain = [ChainLink::new_zeroed(); MAX_CHAIN];
        let ids = [
            FIRST_INNER + container,
            FIRST_CONTAINER + container,
            FIRST_POD + container / self.of_a_pod,
            BURSTABLE,
            KUBEPODS,
            CgroupId::ROOT.0,
        ];
        for (link, id) in chain.iter_mut().zip(ids) {
            let counter = self.counters.entry(id).or_default();
            *counter += u64::from(is_counted);
            link.cgroup_id = id;
            link.serial = id;
            link.counters.oom_kill = *counter;
            link.counters.oom = *counter;
        }
        chain
    }
}

fn comm(name: &[u8]) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    comm.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    comm
}
