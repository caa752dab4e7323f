//! Counters that were read from files, held against the ledgers.
//!
//! The kernel raises a counter before the record is made. So a reading is compared only when the records of all that
//! it counted have arrived or are lost. Later increments can be told apart, because a cgroup's own counter numbers
//! them. A cgroup that went meanwhile was among the living when the counters were read.

use hashbrown::HashSet;

use super::{Counting, Entry, Increment, Ledgers};
use crate::id::{CgroupId, Css};

/// The counters of one cgroup, read in this order: the hierarchical one, its own, those of its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cgroup_id: CgroupId,
    pub(crate) parent: Option<CgroupId>,
    pub(crate) css: Css,
    /// Its own `oom_kill`.
    pub(crate) own: u64,
    /// The hierarchical one; `None` where there are no sums.
    pub(crate) sum: Option<u64>,
    /// Children that were there and have a counter, with it.
    pub(crate) children: Vec<(CgroupId, u64)>,
}

/// The counters that a walk has read.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// Readings of all cgroups whose counters differ from what was known.
    pub(crate) readings: Vec<Reading>,
    /// Cgroups below which something was not read.
    pub(crate) unread: Vec<CgroupId>,
}

/// Increments that nobody reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// In the cgroup itself.
    pub(crate) own: u64,
    /// Below it, in cgroups that are gone.
    pub(crate) below: u64,
}

impl Reading {
    /// The counters of a cgroup without children.
    pub(crate) fn of(cgroup_id: CgroupId, css: Css, own: u64, sum: Option<u64>) -> Self {
        Self {
            cgroup_id,
            parent: None,
            css,
            own,
            sum,
            children: Vec::new(),
        }
    }

    /// What was counted below it, in cgroups that are gone.
    fn below(&self) -> Option<u64> {
        self.below_without(|_| true)
    }

    fn below_without(&self, is_living: impl Fn(CgroupId) -> bool) -> Option<u64> {
        let living = self.children.iter().filter(|(id, _)| is_living(*id));
        let living = living.map(|(_, sum)| *sum);
        let living = living.fold(0, u64::saturating_add);
        let sum = self.sum?.saturating_sub(self.own);
        Some(sum.saturating_sub(living))
    }
}

impl Ledgers {
    /// Ledgers begin at these counters, which are all that are not 0: what they have is past. Increments that records
    /// brought by now came later than that, or are [`Missing`].
    pub(crate) fn begin(&mut self, readings: &[Reading]) {
        // A child that went before it was read is among those that are gone.
        let read: HashSet<CgroupId> = readings.iter().map(|reading| reading.cgroup_id).collect();
        for reading in readings {
            let id = reading.cgroup_id;
            let is_new = !self.is_met(id);
            self.meet(id, reading.css);
            let is_known = |child| read.contains(&child) || self.entries.contains_key(&child);
            let below = reading.below_without(is_known);
            let entry = self.entries.entry(id).or_default();
            if is_new {
                entry.ledger.base = reading.own;
                entry.ledger.counter = reading.own;
            }
            entry.ledger.parent = reading.parent;
            entry.ledger.below = below.unwrap_or(0);
            self.touch(id);
        }
        self.add_up(|_| true);
        // On v1 no counter is read.
        self.is_past_known = self.counting != Counting::LocalV1;
    }

    /// Begins the ledger of a cgroup that is met late and may be old.
    pub(crate) fn begin_one(&mut self, lineage: &[CgroupId], reading: &Reading) {
        let Some(&id) = lineage.first() else {
            return;
        };
        let sum = reading.sum.unwrap_or(reading.own);
        if sum == 0 || self.entries.contains_key(&id) {
            return;
        }
        self.meet(id, reading.css);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.ledger.base = reading.own;
            entry.ledger.counter = reading.own;
            entry.ledger.below = sum.saturating_sub(reading.own);
        }
        // Those above it counted it when they were read.
        if let Some(&parent) = lineage.get(1) {
            self.raise(lineage, 0, 0);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.sum = sum;
            }
            if let Some(entry) = self.entries.get_mut(&parent) {
                entry.ledger.below = entry.ledger.below.saturating_sub(sum);
            }
        } else if let Some(entry) = self.entries.get_mut(&id) {
            entry.sum = sum;
        }
    }

    /// Returns the increments of a reading that nobody reported. They count as reported from then on, in the cgroup
    /// and in those above it (`lineage`, itself first). Call it from the lowest cgroups up. Call it when everything
    /// counted by the time of the reading has arrived.
    pub(crate) fn compare(&mut self, lineage: &[CgroupId], reading: &Reading) -> Missing {
        let Some((&id, above)) = lineage.split_first() else {
            return Missing::default();
        };
        let is_settled = |id| self.entries.get(id).is_some_and(|entry| entry.is_settled);
        if above.iter().any(is_settled) {
            return Missing::default();
        }
        let is_nothing = reading.own == 0 && reading.sum.unwrap_or(0) == 0;
        if is_nothing && !self.entries.contains_key(&id) {
            return Missing::default();
        }
        if self.meet(id, reading.css) == super::Meeting::Older {
            return Missing::default();
        }
        let entry = self.entries.get(&id).copied().unwrap_or_default();
        let is_sum_known = reading.sum.is_none_or(|sum| sum == entry.sum);
        if is_sum_known && reading.own == entry.ledger.counter {
            return Missing::default();
        }
        let own = reading.own.saturating_sub(entry.ledger.counter);
        let below = reading.below().map_or(0, |below| {
            below.saturating_sub(self.below_then(id, &entry, reading))
        });
        let missing = own.saturating_add(below);
        if missing == 0 {
            return Missing::default();
        }
        let entry = self.entries.entry(id).or_default();
        entry.ledger.counter = entry.ledger.counter.saturating_add(own);
        entry.ledger.reported = entry.ledger.reported.saturating_add(own);
        entry.ledger.below = entry.ledger.below.saturating_add(below);
        self.report(missing, 0);
        self.raise(lineage, missing, 0);
        Missing { own, below }
    }

    /// The same with the last counters of a cgroup that is removed. Readings of cgroups below it are of no use any
    /// more.
    pub(crate) fn settle(&mut self, lineage: &[CgroupId], last: &Reading) -> Missing {
        self.remove_below(last.cgroup_id);
        let missing = self.compare(lineage, last);
        if let Some(entry) = self.entries.get_mut(&last.cgroup_id) {
            entry.is_settled = last.sum.is_some();
        }
        missing
    }

    /// Takes in counters that may have taken the place of others. Call it for cgroups above before those below.
    pub(crate) fn met(&mut self, reading: &Reading) {
        if self.entries.contains_key(&reading.cgroup_id) {
            self.meet(reading.cgroup_id, reading.css);
        }
    }

    /// A tier that reads hierarchical counters alone enters increments somewhere below a cgroup. They turn out to be
    /// its own, or its children's. Call it for cgroups above before those below, and before anything else is entered
    /// that the reading counted.
    pub(crate) fn place(&mut self, reading: &Reading) {
        let id = reading.cgroup_id;
        let (Some(below), Some(entry)) = (reading.below(), self.entries.get(&id).copied()) else {
            return;
        };
        let own = reading.own.saturating_sub(entry.ledger.counter);
        let known_below = self.below_then(id, &entry, reading);
        let mut unplaced = known_below.saturating_sub(below);
        self.place_own(id, own.min(unplaced));
        unplaced = unplaced.saturating_sub(own);
        for &(child, sum) in &reading.children {
            let moved = self.beyond(child, sum).min(unplaced);
            unplaced -= moved;
            self.place_in_child(id, child, moved);
        }
    }

    fn place_own(&mut self, id: CgroupId, moved: u64) {
        if moved > 0
            && let Some(Entry { ledger, .. }) = self.entries.get_mut(&id)
        {
            ledger.below = ledger.below.saturating_sub(moved);
            ledger.counter = ledger.counter.saturating_add(moved);
            ledger.reported = ledger.reported.saturating_add(moved);
            self.touch(id);
        }
    }

    fn place_in_child(&mut self, id: CgroupId, child: CgroupId, moved: u64) {
        if moved == 0 {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.ledger.below = entry.ledger.below.saturating_sub(moved);
            self.touch(id);
        }
        let entry = self.entries.entry(child).or_default();
        entry.ledger.parent = Some(id);
        entry.ledger.below = entry.ledger.below.saturating_add(moved);
        entry.sum = entry.sum.saturating_add(moved);
        self.touch(child);
    }

    /// The increments known below a cgroup when its counters were read, in cgroups that were gone then. A cgroup that
    /// was not among its children is gone, and no record of that has arrived. Or it was created since, and the next
    /// reading has it.
    fn below_then(&self, id: CgroupId, entry: &Entry, reading: &Reading) -> u64 {
        let children: HashSet<CgroupId> =
            reading.children.iter().map(|(child, _)| *child).collect();
        let (mut went, mut unlisted) = (0, 0);
        for (child, known) in &self.entries {
            match (children.contains(child), known.is_gone) {
                (true, true) => went = known.sum.saturating_add(went),
                (false, false) if known.ledger.parent == Some(id) => {
                    unlisted = known.sum.saturating_add(unlisted);
                }
                _ => {}
            }
        }
        entry
            .ledger
            .below
            .saturating_sub(went)
            .saturating_add(unlisted)
    }

    /// How far a hierarchical counter exceeds all that is known in the cgroup and below it. For tiers that read no
    /// other counter.
    pub(crate) fn beyond(&self, id: CgroupId, sum: u64) -> u64 {
        sum.saturating_sub(self.sum(id))
    }

    /// Enters increments somewhere in a cgroup or below it (`lineage`, itself first). Only its hierarchical counter
    /// shows them, or nothing yet. `increment` is `None` for increments that are not reported.
    pub(crate) fn enter(&mut self, lineage: &[CgroupId], count: u64, increment: Option<Increment>) {
        if count == 0 {
            return;
        }
        let doubles = match increment {
            Some(Increment::DoubleCount) => count,
            _ => 0,
        };
        if increment.is_some() {
            self.report(count, doubles);
        }
        self.raise(lineage, count, doubles);
        self.add_below(lineage.first().copied(), count);
    }
}
