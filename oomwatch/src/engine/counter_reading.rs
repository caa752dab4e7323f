//! What a counter that was read does to the state, in the tiers whose records carry no counters.

use super::Engine;
use crate::{
    event::{Counter, Kind, Now, OomEvent, Scope},
    id::CgroupId,
    ledger::{Increment, Reading},
    memory_events::MemoryEvents,
    reconcile::Verdict,
    record::VictimRecord,
};

/// The values read from `memory.events` of one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CounterReading {
    pub(crate) cgroup_id: CgroupId,
    /// Changes when the memory controller was switched off and on, which zeroes the counters. `None` where the
    /// counter was not read but computed.
    pub(crate) serial: Option<u32>,
    pub(crate) events: MemoryEvents,
}

/// The kernel raises `oom` right before the kills that it leads to. An increase more than 1 s ago led to none of
/// them.
const CAUSE_NS: u64 = 1_000_000_000;

/// The last known `oom` of a container, and when it was seen to rise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause {
    oom: u64,
    rose_ns: Option<u64>,
}

impl Engine {
    /// Takes in readings of one moment, and reports every increment that nobody reported.
    ///
    /// A container's counter includes those of containers below it. So those must have been read too, and not before
    /// it. Then the increments that they do not explain are the container's own.
    pub(crate) fn read(&mut self, readings: &[CounterReading], now: Now) -> Vec<OomEvent> {
        let mut lowest_first: Vec<(usize, &CounterReading)> = readings
            .iter()
            .map(|reading| (self.tree.lineage(reading.cgroup_id).count(), reading))
            .collect();
        lowest_first.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        // Where counters began again, so did those of all below.
        for (_, reading) in lowest_first.iter().rev() {
            self.meet(reading);
        }
        lowest_first
            .into_iter()
            .filter_map(|(_, reading)| self.read_one(reading, now))
            .collect()
    }

    /// Notes whose limits were hit, by readings that were made just now.
    pub(crate) fn note_causes(&mut self, readings: &[CounterReading], now: Now) {
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

    /// Whose limit killed in a container just now: its own, or one inside it, if that was hit. `oom` of cgroups above
    /// says too little, because it may be a sibling's.
    fn scope(&self, cgroup: CgroupId, now: Now) -> Scope {
        let cause = self.causes.get(&cgroup);
        match cause.and_then(|cause| cause.rose_ns) {
            Some(rose_ns) if now.boottime_ns.saturating_sub(rose_ns) <= CAUSE_NS => {
                Scope::Container
            }
            _ => Scope::Unknown,
        }
    }

    /// Whether a reading shows increments that nobody reported.
    pub(crate) fn is_unexplained(&mut self, reading: &CounterReading) -> bool {
        let oom_kill = reading.events.oom_kill.unwrap_or(0);
        self.meet(reading);
        self.reconciler.ledgers.beyond(reading.cgroup_id, oom_kill) > 0
    }

    /// If the serial changed, these are other counters, which began at 0.
    fn meet(&mut self, reading: &CounterReading) {
        let Some(serial) = reading.serial else {
            return;
        };
        let known = self.serials.insert(reading.cgroup_id, serial);
        if known.is_some_and(|known| known != serial) {
            self.reconciler.ledgers.begin_again(reading.cgroup_id);
        }
    }

    /// Takes in a victim that was recorded when it exited. `reading` is the counter of its container, or else of its
    /// own memory cgroup, read after that.
    pub(crate) fn exited(
        &mut self,
        record: &VictimRecord,
        reading: Option<&CounterReading>,
        now: Now,
    ) -> Option<OomEvent> {
        let kind = match self.judge(record, reading) {
            Verdict::Kill { counted } => (Kind::Kill, counted),
            Verdict::AlreadyExiting => (Kind::AlreadyExiting, false),
            Verdict::SameProcess | Verdict::Before => {
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
                    .map(|_| self.reconciler.ledgers.double_counts_of(reading.cgroup_id)),
            };
        }
        Some(event)
    }

    fn judge(&mut self, record: &VictimRecord, reading: Option<&CounterReading>) -> Verdict {
        let own = record.victim.cgroup_id;
        let charged = reading
            .map(|reading| reading.cgroup_id)
            .or_else(|| self.owner(own?));
        let lineage = charged
            .or(own)
            .map_or_else(Vec::new, |id| self.charged_lineage(id, |_| None));
        if let Some(reading) = reading {
            self.meet(reading);
        }
        let counter = reading.and_then(|reading| reading.events.oom_kill);
        let verdict = self.reconciler.exited(record, &lineage, counter);
        if matches!(verdict, Verdict::Kill { .. }) {
            self.double_counts.told(&lineage);
            if let Some(own) = own.or(charged) {
                self.count(own, Increment::Kill, 1);
            }
        }
        verdict
    }

    /// The nearest registered cgroup at or above this one, dead or alive.
    pub(crate) fn owner(&self, cgroup: CgroupId) -> Option<CgroupId> {
        self.tree
            .lineage(cgroup)
            .find(|&id| self.registry.contains(id))
    }

    /// The last known value of a cgroup's counter: the value read, or the value that it is known to have risen to.
    pub(crate) fn last_known(&self, cgroup: CgroupId) -> u64 {
        self.reconciler.ledgers.sum(cgroup)
    }

    /// A cgroup below a container is about to be registered. What was reported there as the container's goes to the
    /// cgroups that counted it. `readings` are of the cgroups above it, the highest first.
    pub(crate) fn place(&mut self, readings: &[Reading]) {
        for reading in readings {
            self.reconciler.ledgers.place(reading);
        }
    }

    /// Takes in the last counter of a container, as its parent's counter shows it.
    pub(crate) fn read_last(
        &mut self,
        cgroup_id: CgroupId,
        oom_kill: u64,
        now: Now,
    ) -> Option<OomEvent> {
        let reading = CounterReading {
            cgroup_id,
            serial: None,
            events: MemoryEvents {
                oom_kill: Some(oom_kill),
                ..MemoryEvents::default()
            },
        };
        self.read_one(&reading, now)
    }

    /// Reports kills somewhere below a cgroup that can be assigned to no container.
    pub(crate) fn residual(&mut self, cgroup: CgroupId, count: u64, now: Now) -> OomEvent {
        let lineage = self.charged_lineage(cgroup, |_| None);
        let only_counted = Some(Increment::CounterOnly);
        self.reconciler.ledgers.enter(&lineage, count, only_counted);
        self.totals.counter_only += count;
        self.last_seq += 1;
        self.event_context(now)
            .residual(self.last_seq, Some(cgroup), count)
    }

    fn read_one(&mut self, reading: &CounterReading, now: Now) -> Option<OomEvent> {
        let cgroup = reading.cgroup_id;
        let oom_kill = reading.events.oom_kill?;
        self.meet(reading);
        let missing = self.reconciler.ledgers.beyond(cgroup, oom_kill);
        let lineage = self.charged_lineage(cgroup, |_| None);
        let Some(container) = self.container(cgroup) else {
            // It is no container. A container above has the increments in its own counter, and reports them.
            if self.owner(cgroup).is_none() {
                self.reconciler.ledgers.enter(&lineage, missing, None);
            }
            return None;
        };
        let groups = reading.serial.zip(reading.events.oom_group_kill);
        let doubles = groups.map(|(serial, groups)| {
            let is_new = missing == oom_kill;
            self.double_counts
                .share_out(&lineage, serial, groups, missing, is_new)
        });
        let double_counts = doubles.unwrap_or(0);
        let count = missing - double_counts;
        let ledgers = &mut self.reconciler.ledgers;
        ledgers.enter(&lineage, double_counts, Some(Increment::DoubleCount));
        ledgers.enter(&lineage, count, Some(Increment::CounterOnly));
        self.count(cgroup, Increment::DoubleCount, double_counts);
        self.count(cgroup, Increment::CounterOnly, count);
        if count == 0 {
            return None;
        }
        self.totals.counter_only += count;
        self.last_seq += 1;
        let mut event = self
            .event_context(now)
            .counter_only(self.last_seq, container, count);
        event.scope = self.scope(cgroup, now);
        event.counter.oom = reading.events.oom;
        event.counter.oom_group_kill = reading.events.oom_group_kill;
        if doubles.is_none() {
            // Before v5.17, and for a cgroup that is gone, nothing shows a group kill. So the count may be one too
            // high.
            event.counter.recounts = None;
            event.quality.missing.push("recounts");
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests;
