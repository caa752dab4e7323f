//! What a counter that was read does to the state: in the tiers whose records carry none.

use super::Engine;
use crate::{
    CgroupId, Counter, Kind, OomEvent, Scope, cgroup::memory_events::MemoryEvents,
    event::build::Now, reconcile::Verdict, record::VictimRecord,
};

/// What `memory.events` of one cgroup said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cgroup_id: CgroupId,
    /// Changes when the memory controller was switched off and on, which zeroes the counters;
    /// `None` where the counter was not read but worked out.
    pub(crate) serial: Option<u32>,
    pub(crate) events: MemoryEvents,
}

/// `oom` is raised right before the kills that it leads to; a rise longer ago than this led to
/// none of them.
const CAUSE_NS: u64 = 1_000_000_000;

/// The last known `oom` of a container, and when it was seen to rise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause {
    oom: u64,
    rose_ns: Option<u64>,
}

impl Engine {
    /// Takes in readings of one moment and speaks of every increment that nobody spoke of.
    ///
    /// A container's counter includes those of containers below it, so those must have been read
    /// too, and not before it: then what they do not explain is its own.
    pub(crate) fn read(&mut self, readings: &[Reading], now: Now) -> Vec<OomEvent> {
        let mut lowest_first: Vec<(usize, &Reading)> = readings
            .iter()
            .map(|reading| (self.tree.lineage(reading.cgroup_id).count(), reading))
            .collect();
        lowest_first.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        lowest_first
            .into_iter()
            .filter_map(|(_, reading)| self.read_one(reading, now))
            .collect()
    }

    /// Takes in whose limits were hit, by readings that were made just now.
    pub(crate) fn note_causes(&mut self, readings: &[Reading], now: Now) {
        for reading in readings {
            let Some(oom) = reading.events.oom else {
                continue;
            };
            let fresh = Cause { oom, rose_ns: None };
            let cause = self.causes.entry(reading.cgroup_id).or_insert(fresh);
            if oom > cause.oom {
                cause.rose_ns = Some(now.boottime_ns);
            }
            cause.oom = oom;
        }
    }

    /// Whose limit killed in a container just now: its own, or one inside it, if that was hit.
    /// `oom` of cgroups above says too little: it may be a sibling's.
    fn scope(&self, cgroup: CgroupId, now: Now) -> Scope {
        let cause = self.causes.get(&cgroup);
        match cause.and_then(|cause| cause.rose_ns) {
            Some(rose_ns) if now.boottime_ns.saturating_sub(rose_ns) <= CAUSE_NS => {
                Scope::Container
            }
            _ => Scope::Unknown,
        }
    }

    /// Whether a reading tells of increments that nobody spoke of.
    pub(crate) fn is_unexplained(&mut self, reading: &Reading) -> bool {
        let oom_kill = reading.events.oom_kill.unwrap_or(0);
        let cgroup = reading.cgroup_id;
        self.reconciler
            .unexplained(cgroup, oom_kill, reading.serial)
            > 0
    }

    /// Takes in victims that told of themselves when they exited, each with the counter of its
    /// container, or else of its own memory cgroup, read after that.
    pub(crate) fn exited(
        &mut self,
        record: &VictimRecord,
        reading: Option<&Reading>,
        now: Now,
    ) -> Option<OomEvent> {
        let kind = match self.judge(record, reading) {
            Verdict::Kill { counted } => (Kind::Kill, counted),
            Verdict::AlreadyExiting => (Kind::AlreadyExiting, false),
            Verdict::SameProcess => {
                self.totals.folded += 1;
                return None;
            }
        };
        let mut event = self.reported(record, kind, now);
        if let Some(reading) = reading {
            self.note_causes(&[*reading], now);
            if event.container.is_some() {
                event.scope = self.scope(reading.cgroup_id, now);
            }
            event.counter = Counter {
                cgroup_id: Some(reading.cgroup_id),
                oom_kill: reading.events.oom_kill,
                oom: reading.events.oom,
                oom_group_kill: reading.events.oom_group_kill,
                recounts: reading
                    .events
                    .oom_group_kill
                    .map(|_| self.reconciler.recounts(reading.cgroup_id)),
            };
        }
        Some(event)
    }

    fn judge(&mut self, record: &VictimRecord, reading: Option<&Reading>) -> Verdict {
        let own = record.victim.cgroup_id;
        let charged = reading
            .map(|reading| reading.cgroup_id)
            .or_else(|| self.owner(own?));
        let lineage: Vec<CgroupId> = charged
            .or(own)
            .map_or_else(Vec::new, |id| self.tree.lineage(id).collect());
        let counter = reading.and_then(|reading| Some((reading.events.oom_kill?, reading.serial)));
        let verdict = self.reconciler.exited(record, &lineage, counter);
        if matches!(verdict, Verdict::Kill { .. }) {
            self.recounts.told(&lineage);
        }
        verdict
    }

    /// Whether somebody wants to know of this cgroup's counter.
    pub(crate) fn has_account(&self, cgroup: CgroupId) -> bool {
        self.reconciler.has_account(cgroup)
    }

    /// The nearest registered cgroup at or above this one, dead or alive.
    pub(crate) fn owner(&self, cgroup: CgroupId) -> Option<CgroupId> {
        self.tree
            .lineage(cgroup)
            .find(|&id| self.registry.contains(id))
    }

    /// The last known value of a cgroup's counter: what it was read to be, or known to rise to.
    pub(crate) fn last_known(&self, cgroup: CgroupId) -> Option<u64> {
        self.reconciler.last_known(cgroup)
    }

    /// Takes in what a container counted last, as its parent tells.
    pub(crate) fn read_last(
        &mut self,
        cgroup_id: CgroupId,
        oom_kill: u64,
        now: Now,
    ) -> Option<OomEvent> {
        let reading = Reading {
            cgroup_id,
            serial: None,
            events: MemoryEvents {
                oom_kill: Some(oom_kill),
                ..MemoryEvents::default()
            },
        };
        self.read_one(&reading, now)
    }

    /// Speaks of kills somewhere below a cgroup that can be assigned to no container.
    pub(crate) fn residual(&mut self, cgroup: CgroupId, count: u64, now: Now) -> OomEvent {
        self.totals.counter_only += count;
        self.reconciler.tell_outside(count);
        self.last_seq += 1;
        self.known(now).residual(self.last_seq, cgroup, count)
    }

    fn read_one(&mut self, reading: &Reading, now: Now) -> Option<OomEvent> {
        let cgroup = reading.cgroup_id;
        let oom_kill = reading.events.oom_kill?;
        let container = self.container(cgroup);
        if container.is_none() && self.reconciler.has_account(cgroup) {
            // A book from an earlier run waits for its container.
            return None;
        }
        let while_down = self.reconciler.take_resumed(cgroup);
        let lineage: Vec<CgroupId> = self.tree.lineage(cgroup).collect();
        let missing =
            self.reconciler
                .audit(lineage.iter().copied(), cgroup, oom_kill, reading.serial);
        self.reconciler
            .read(&lineage, oom_kill, reading.serial, missing, now.boottime_ns);
        if !self.reconciler.has_account(cgroup) {
            return None;
        }
        let groups = reading.serial.zip(reading.events.oom_group_kill);
        let recounts = groups.map(|(serial, groups)| {
            let is_new = missing == oom_kill;
            self.recounts
                .share_out(&lineage, serial, groups, missing, is_new)
        });
        self.reconciler.recounted(&lineage, recounts.unwrap_or(0));
        let count = missing - recounts.unwrap_or(0);
        let while_down = missing > 0 && self.give_up_below(cgroup) || while_down;
        let container = container.filter(|_| count > 0)?;
        self.totals.counter_only += count;
        self.last_seq += 1;
        let mut event = self
            .known(now)
            .counter_only(self.last_seq, container, count, oom_kill);
        event.while_down = while_down;
        event.scope = self.scope(cgroup, now);
        event.counter.oom = reading.events.oom;
        event.counter.oom_group_kill = reading.events.oom_group_kill;
        if recounts.is_none() {
            // Before v5.17, and of a cgroup that is gone, nothing tells a group kill, so the count
            // may have one too many.
            event.counter.recounts = None;
            event.quality.missing.push("recounts");
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests;
