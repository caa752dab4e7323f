//! From an attributed, judged victim to its event. Pure.

use std::sync::Arc;

use crate::{
    attribute::Attributed,
    containers::container::Container,
    event::{
        Attribution, Counter, Evidence, Group, Kind, Limit, Now, OomEvent, Quality, Scope, Trigger,
        Victim,
    },
    id::CgroupId,
    ledger::{Counting, Ledgers},
    record::{Constraint, LimitHit, Memcg, VictimRecord},
    tier::Tier,
    topology::tree::Tree,
};

/// What all events of one daemon have in common.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) boot_id: Arc<str>,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) tier: Tier,
}

/// Where the events' paths and counters come from.
#[derive(Clone, Copy)]
pub(crate) struct EventContext<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) tree: &'a Tree,
    pub(crate) ledgers: &'a Ledgers,
    pub(crate) now: Now,
}

impl EventContext<'_> {
    /// Makes the event of one mark. `counted` tells whether a counter confirmed it.
    pub(crate) fn event(
        &self,
        seq: u64,
        record: &VictimRecord,
        attributed: Attributed,
        kind: Kind,
        counted: bool,
    ) -> OomEvent {
        let victim = self.victim(record);
        let mut evidence = vec![Evidence::Tracepoint];
        if counted {
            evidence.push(Evidence::Counter);
        }
        let mut event = OomEvent {
            id: format!("{}-{}", self.origin.boot_id, record.boottime_ns),
            seq,
            unix_time_ns: self.now.unix_time_of(record.boottime_ns),
            boottime_ns: record.boottime_ns,
            kind,
            count: u64::from(kind == Kind::Kill),
            supersedes: None,
            while_down: false,
            evidence,
            scope: attributed.scope,
            constraint: constraint(record),
            group: record
                .invocation
                .filter(|call| call.kills_group && kind == Kind::Kill)
                .map(|call| Group {
                    invocation: call.number,
                    index: call.index,
                    size: None,
                }),
            trigger: self.trigger(record, &victim),
            limit: self.limit(record, &victim),
            victim,
            counter: self.counter(record, &attributed),
            container: attributed.container,
            place: None,
            node: self.origin.node.clone(),
            delivered_ns: None,
            quality: Quality {
                tier: self.origin.tier,
                attribution: attributed.attribution,
                missing: Vec::new(),
            },
        };
        event.quality.missing = missing(&event, record);
        event
    }

    /// Makes the event of kills that only a container's counter shows.
    pub(crate) fn counter_only(&self, seq: u64, container: Arc<Container>, count: u64) -> OomEvent {
        let cgroup = container.cgroup_id;
        let mut event = self.nameless(seq, Some(cgroup), count);
        event.counter = Counter {
            cgroup_id: Some(cgroup),
            oom_kill: self.sum(cgroup),
            recounts: Some(self.ledgers.double_counts_of(cgroup)),
            ..Counter::default()
        };
        event.container = Some(container);
        event.quality.attribution = Attribution::Ancestor;
        event
    }

    /// A cgroup's hierarchical counter as it is known; `None` where there are no sums.
    fn sum(&self, cgroup: CgroupId) -> Option<u64> {
        (self.ledgers.counting() != Counting::LocalV1).then(|| self.ledgers.sum(cgroup))
    }

    /// Makes the event of `count` kills in `cgroup_id` or below it, of which nothing else is known.
    fn nameless(&self, seq: u64, cgroup_id: Option<CgroupId>, count: u64) -> OomEvent {
        OomEvent {
            id: format!("{}-{}-{seq}", self.origin.boot_id, self.now.boottime_ns),
            seq,
            unix_time_ns: self.now.unix_time_ns,
            boottime_ns: self.now.boottime_ns,
            kind: Kind::CounterOnly,
            count,
            supersedes: None,
            while_down: false,
            evidence: vec![Evidence::Counter],
            scope: Scope::Unknown,
            constraint: Constraint::Unknown,
            group: None,
            victim: Victim {
                cgroup_id,
                cgroup_path: self.path(cgroup_id),
                ..Victim::default()
            },
            trigger: Trigger::default(),
            limit: Limit::default(),
            counter: Counter::default(),
            container: None,
            place: None,
            node: self.origin.node.clone(),
            delivered_ns: None,
            quality: Quality {
                tier: self.origin.tier,
                attribution: Attribution::Unregistered,
                missing: vec!["victim", "trigger", "limit", "time"],
            },
        }
    }

    /// Makes the event of kills in a cgroup or below it that can be assigned to no container.
    pub(crate) fn residual(&self, seq: u64, cgroup: Option<CgroupId>, count: u64) -> OomEvent {
        let mut event = self.nameless(seq, cgroup, count);
        event.victim.cgroup_id = None;
        event.quality.missing.extend(["container", "recounts"]);
        event
    }

    fn path(&self, id: Option<CgroupId>) -> Option<String> {
        self.tree.printable_path(id?)
    }

    /// A path beside the victim's, which is most often the same.
    fn path_beside(&self, victim: &Victim, id: Option<CgroupId>) -> Option<String> {
        if id == victim.cgroup_id {
            return victim.cgroup_path.clone();
        }
        self.path(id)
    }

    fn victim(&self, record: &VictimRecord) -> Victim {
        Victim {
            pid: record.victim.pid,
            tid: Some(record.victim.tid),
            comm: record.victim.comm.clone(),
            uid: record.victim.uid,
            is_init: record.is_init,
            start_boottime_ns: record.start_boottime_ns,
            cgroup_id: record.victim.cgroup_id,
            cgroup_path: self.path(record.victim.cgroup_id),
            oom_score_adj: record.oom_score_adj,
            total_vm_bytes: record.memory.total_vm_bytes,
            anon_rss_bytes: record.memory.anon_rss_bytes,
            file_rss_bytes: record.memory.file_rss_bytes,
            shmem_rss_bytes: record.memory.shmem_rss_bytes,
            pgtables_bytes: record.memory.pgtables_bytes,
        }
    }

    fn trigger(&self, record: &VictimRecord, victim: &Victim) -> Trigger {
        Trigger {
            pid: record.trigger.pid,
            comm: record.trigger.comm.clone(),
            uid: record.trigger.uid,
            cgroup_id: record.trigger.cgroup_id,
            cgroup_path: self.path_beside(victim, record.trigger.cgroup_id),
        }
    }

    fn limit(&self, record: &VictimRecord, victim: &Victim) -> Limit {
        let (cgroup_id, max_bytes, usage_bytes) = match record.limit {
            Some(LimitHit::Memcg {
                cgroup_id,
                max_bytes,
                usage_bytes,
            }) => (Some(cgroup_id), max_bytes, usage_bytes),
            Some(LimitHit::Node { total_bytes }) => (None, total_bytes, None),
            None => (None, None, None),
        };
        Limit {
            cgroup_id,
            path: self.path_beside(victim, cgroup_id.filter(|_| !record.chain_is_v1)),
            max_bytes,
            usage_bytes,
            order: record.allocation.map(|allocation| allocation.order),
            gfp_mask: record.allocation.map(|allocation| allocation.gfp_mask),
        }
    }

    /// The counters of the container where it has any, else of the victim's own memory cgroup.
    fn counter(&self, record: &VictimRecord, attributed: &Attributed) -> Counter {
        let container = attributed.container.as_ref().map(|found| found.cgroup_id);
        let of_container = record
            .chain
            .iter()
            .find(|memcg| Some(memcg.cgroup_id) == container && !record.chain_is_v1);
        match of_container.or(record.chain.first()) {
            Some(memcg) => self.counter_of(memcg),
            None => Counter::default(),
        }
    }

    fn counter_of(&self, memcg: &Memcg) -> Counter {
        Counter {
            cgroup_id: Some(memcg.cgroup_id),
            oom_kill: memcg.oom_kill,
            oom: memcg.oom,
            oom_group_kill: memcg.oom_group_kill,
            recounts: Some(self.ledgers.double_counts_of(memcg.cgroup_id)),
        }
    }
}

/// The kernel sets `oom_control.constraint` after its shortcut for a task that is dying already. The limit that was
/// hit says as much.
fn constraint(record: &VictimRecord) -> Constraint {
    match (record.limit, record.allocation) {
        (Some(LimitHit::Memcg { .. }), _) => Constraint::Memcg,
        (_, Some(allocation)) => allocation.constraint,
        (_, None) => Constraint::Unknown,
    }
}

/// Names what an event of the best tier has and this event lacks.
fn missing(event: &OomEvent, record: &VictimRecord) -> Vec<&'static str> {
    let counted = event.evidence.contains(&Evidence::Counter);
    let judged = counted || event.kind != Kind::Kill;
    [
        ("victim.pid", event.victim.pid.is_some()),
        ("victim.comm", event.victim.comm.is_some()),
        ("victim.uid", event.victim.uid.is_some()),
        ("victim.is_init", event.victim.is_init.is_some()),
        ("victim.start", event.victim.start_boottime_ns.is_some()),
        ("victim.cgroup", event.victim.cgroup_id.is_some()),
        ("victim.cgroup_path", event.victim.cgroup_path.is_some()),
        ("victim.oom_score_adj", event.victim.oom_score_adj.is_some()),
        ("victim.memory", event.victim.anon_rss_bytes.is_some()),
        ("limit", record.limit.is_some()),
        ("constraint", record.allocation.is_some()),
        ("counter", judged),
        ("group", record.invocation.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, known)| (!known).then_some(name))
    .collect()
}
