//! Ledgers from one run to the next: which of them changed, and how a run resumes those of an earlier run. Sums are
//! not kept: they follow from the ledgers and from which cgroups are there.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::{Counting, Entry, Ledger, Ledgers};
use crate::id::CgroupId;

impl Ledgers {
    /// From now on changes are remembered for [`Self::take_changed`].
    pub(crate) fn keep(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Ledgers that changed since the last call; `None` for those that are not needed any more.
    pub(crate) fn take_changed(&mut self) -> Vec<(CgroupId, Option<Ledger>)> {
        let changed = self.changed.as_mut().map(std::mem::take);
        let changed = changed.into_iter().flatten();
        changed.map(|id| (id, self.kept(id))).collect()
    }

    /// All of them; none counts as changed any more.
    pub(crate) fn all(&mut self) -> Vec<(CgroupId, Ledger)> {
        if let Some(changed) = &mut self.changed {
            changed.clear();
        } else {
            return Vec::new();
        }
        let ids = self.entries.keys();
        ids.filter_map(|&id| Some((id, self.kept(id)?))).collect()
    }

    /// A ledger whose cgroup is gone has no parent: those above have what it counted. It is kept as long as a pinned
    /// ring may have its records.
    fn kept(&self, id: CgroupId) -> Option<Ledger> {
        let entry = self.entries.get(&id)?;
        let parent = entry.ledger.parent.filter(|_| !entry.is_gone);
        Some(Ledger {
            parent,
            ..entry.ledger
        })
    }

    /// Forgets ledgers whose cgroups were gone when this run began, after the usual time.
    pub(crate) fn forget_gone_before(&mut self, now_ns: u64, after_ns: u64) {
        let (gone, at_ns) = &mut self.gone_before;
        if !gone.is_empty() && *at_ns.get_or_insert(now_ns.saturating_add(after_ns)) <= now_ns {
            for id in std::mem::take(gone) {
                self.forget(id);
            }
        }
    }

    /// Resumes ledgers of an earlier run, which had one of each counter that was not 0. On v1 they say what was
    /// reported, and no more: the node's count has reported what was counted since.
    pub(crate) fn resume(&mut self, ledgers: Vec<(CgroupId, Ledger)>) {
        self.is_past_known = self.counting != Counting::LocalV1;
        for (id, ledger) in ledgers {
            // The parent of a living cgroup is known by then, unless no record or reading had it.
            let is_gone = ledger.parent.is_none() && !self.is_root(id);
            let entry = Entry {
                ledger,
                is_gone,
                is_resumed: true,
                ..Entry::default()
            };
            if is_gone {
                self.gone_before.0.push(id);
            }
            self.entries.insert(id, entry);
        }
    }

    /// A cgroup that the first scan found is not gone. A cgroup that only the record of its removal shows, later,
    /// stays gone.
    pub(crate) fn found(&mut self, is_live: impl Fn(CgroupId) -> bool) {
        for id in std::mem::take(&mut self.gone_before.0) {
            match self.entries.get_mut(&id) {
                Some(entry) if is_live(id) => entry.is_gone = false,
                _ => self.gone_before.0.push(id),
            }
        }
    }

    /// Computes the sums, once it is known which cgroups are there. What a cgroup counted that is not there stays
    /// with its parent.
    pub(crate) fn add_up(&mut self, is_live: impl Fn(CgroupId) -> bool) {
        if self.counting == Counting::LocalV1 {
            return;
        }
        let mut sums: HashMap<CgroupId, u64> = HashMap::new();
        for (_, id) in self.lowest_first() {
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.is_gone) else {
                continue;
            };
            let below = sums.get(&id).copied().unwrap_or(0);
            let own = entry.ledger.counter.saturating_add(entry.ledger.below);
            entry.sum = own.saturating_add(below);
            let (parent, sum) = (entry.ledger.parent, entry.sum);
            if let Some(parent) = parent {
                let below = sums.entry(parent).or_default();
                *below = below.saturating_add(sum);
                self.entries.entry(parent).or_default();
            }
        }
        for (_, id) in self.lowest_first() {
            let is_gone = self.entries.get(&id).is_none_or(|entry| entry.is_gone);
            if !is_gone && !is_live(id) {
                self.remove(id);
                self.gone_before.0.push(id);
            }
        }
    }

    /// All ledgers with their depth, the lowest cgroup first.
    fn lowest_first(&self) -> impl Iterator<Item = (usize, CgroupId)> + use<> {
        let up = |id: &CgroupId| self.entries.get(id)?.ledger.parent;
        let depth = |id: CgroupId| {
            std::iter::successors(Some(id), up)
                .take(self.entries.len() + 1)
                .count()
        };
        let ids = self.entries.keys();
        let by_depth: BTreeSet<(usize, CgroupId)> = ids.map(|&id| (depth(id), id)).collect();
        by_depth.into_iter().rev()
    }
}
