//! Kills that no mark shows: the increments by which counters exceed the ledgers. The engine reports each by number,
//! once, for the nearest container at or above the cgroup that counted it.

use hashbrown::HashMap;

use super::Engine;
use crate::{
    event::{Now, OomEvent},
    id::CgroupId,
    ledger::{Increment, Missing, Reading},
    record::CgroupChanged,
};

impl Engine {
    /// Compares readings with the ledgers, and reports what the ledgers lack. Everything counted by the time of the
    /// readings must have arrived, or be lost.
    pub(crate) fn compare_all(
        &mut self,
        readings: &[Reading],
        while_down: bool,
        now: Now,
    ) -> Vec<OomEvent> {
        let with_parent = readings.iter();
        let parents: HashMap<CgroupId, CgroupId> = with_parent
            .filter_map(|reading| Some((reading.cgroup_id, reading.parent?)))
            .collect();
        let mut lowest_first: Vec<(Vec<CgroupId>, &Reading)> = readings
            .iter()
            .map(|reading| (self.lineage_of_read(reading.cgroup_id, &parents), reading))
            .collect();
        lowest_first.sort_by_key(|(lineage, _)| std::cmp::Reverse(lineage.len()));
        // Where counters began again, so did those of all below.
        for (_, reading) in lowest_first.iter().rev() {
            self.reconciler.ledgers.met(reading);
        }
        let mut events = Vec::new();
        for (lineage, reading) in lowest_first {
            let missing = self.reconciler.ledgers.compare(&lineage, reading);
            events.extend(self.report_missing(reading.cgroup_id, missing, while_down, now));
        }
        events
    }

    /// A cgroup that was read, and those above it. If its creation was lost, only the readings know where it is.
    fn lineage_of_read(
        &self,
        id: CgroupId,
        parents: &HashMap<CgroupId, CgroupId>,
    ) -> Vec<CgroupId> {
        let mut lineage = self.charged_lineage(id, |_| None);
        for _ in 0..parents.len() {
            let Some(&parent) = lineage.last().and_then(|last| parents.get(last)) else {
                break;
            };
            lineage.extend(self.charged_lineage(parent, |_| None));
        }
        lineage
    }

    /// Reports what was counted since an earlier run. Call it before this run has taken in any record. A child whose
    /// counter is 0 is not among the readings, and what is known of it comes from counters that are gone.
    pub(crate) fn compare_past(&mut self, readings: &[Reading], now: Now) -> Vec<OomEvent> {
        let children = readings.iter().flat_map(|reading| &reading.children);
        for (child, _) in children.filter(|(_, sum)| *sum == 0) {
            self.reconciler.ledgers.begin_again(*child);
        }
        for reading in readings {
            self.reconciler.ledgers.met(reading);
            self.reconciler.ledgers.place(reading);
        }
        self.compare_all(readings, true, now)
    }

    /// A cgroup was removed. Its last counters show what it lost, and what cgroups below it lost whose removal no
    /// record reported.
    pub(super) fn settle_removed(&mut self, change: &CgroupChanged, now: Now) -> Vec<OomEvent> {
        let Some(charged) = change.charged else {
            return Vec::new();
        };
        if self.reconciler.removal(&charged, change.boottime_ns) {
            return Vec::new();
        }
        let last = change.counters.and_then(|last| last.oom_kill);
        let is_young = self.began_at_zero(&charged);
        if !is_young && !self.reconciler.ledgers.is_met(change.cgroup_id) {
            // Its counts may be past.
            return Vec::new();
        }
        // Counts below an old cgroup may be past too.
        let sum = last.filter(|_| is_young && self.has_sums());
        let reading = Reading::of(change.cgroup_id, charged.css, charged.oom_kill, sum);
        let lineage = self.charged_lineage(change.cgroup_id, |_| None);
        let missing = self.reconciler.ledgers.settle(&lineage, &reading);
        let while_down = self.is_while_down(change.boottime_ns);
        let events = self.report_missing(change.cgroup_id, missing, while_down, now);
        events.collect()
    }

    fn report_missing(
        &mut self,
        cgroup: CgroupId,
        missing: Missing,
        while_down: bool,
        now: Now,
    ) -> impl Iterator<Item = OomEvent> + use<> {
        let total = missing.own + missing.below;
        let event = (total > 0).then(|| self.missing(Some(cgroup), total, while_down, now));
        event.into_iter()
    }

    /// Reports kills that were counted in a cgroup or below it. Its ledger has them already.
    pub(super) fn missing(
        &mut self,
        cgroup: Option<CgroupId>,
        count: u64,
        while_down: bool,
        now: Now,
    ) -> OomEvent {
        self.totals.counter_only += count;
        self.last_seq += 1;
        let owner = cgroup.and_then(|cgroup| self.owner(cgroup));
        let container = owner.and_then(|owner| self.container(owner));
        if let Some(cgroup) = cgroup {
            self.count(cgroup, Increment::CounterOnly, count);
        }
        let known = self.event_context(now);
        let mut event = match container {
            Some(container) => known.counter_only(self.last_seq, container, count),
            None => known.residual(self.last_seq, cgroup, count),
        };
        event.while_down = while_down;
        event
    }

    /// Everything that the node counted up to `at_ns` is reported, except the `unknown` kills. Only the node's count
    /// shows those: they came while no daemon ran, and nobody knows where. Reports them here. No later run reports a
    /// mark before `at_ns`.
    pub(crate) fn end_past(&mut self, unknown: u64, at_ns: u64, now: Now) -> Option<OomEvent> {
        self.reconciler.counted_up_to(at_ns);
        self.reconciler.ledgers.report_elsewhere(unknown);
        (unknown > 0).then(|| self.missing(None, unknown, true, now))
    }

    pub(super) fn has_sums(&self) -> bool {
        self.reconciler.ledgers.counting() == crate::ledger::Counting::Hierarchical
    }
}
