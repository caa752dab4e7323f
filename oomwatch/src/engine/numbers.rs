//! A container's numbers: what was reported in its cgroup and below it since it was registered, and what it claimed.
//! A registration moves no number of a ledger, so these numbers only label what ledgers count.

use std::sync::Arc;

use super::Engine;
use crate::{
    containers::container::Container, engine::unclaimed::UnclaimedVictim, id::CgroupId,
    ledger::Increment,
};

/// One container's numbers in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) kills: u64,
    /// Kills that only a counter shows.
    pub(crate) counter_only: u64,
    /// The kernel's double counts.
    pub(crate) double_counts: u64,
    /// How far its hierarchical counter, as last read, exceeds what was reported.
    pub(crate) residual: i64,
    /// Number of the last event before they began, if another container was on the cgroup then.
    since_seq: u64,
}

impl Numbers {
    /// How far its counter rose, as far as was seen.
    pub(crate) fn increase(&self) -> u64 {
        let reported = self.kills.saturating_add(self.counter_only);
        let reported = reported.saturating_add(self.double_counts);
        reported.saturating_add_signed(self.residual)
    }

    fn enter(&mut self, increment: Increment, count: u64) {
        let number = match increment {
            Increment::Kill => &mut self.kills,
            Increment::CounterOnly => &mut self.counter_only,
            Increment::DoubleCount => &mut self.double_counts,
        };
        *number = number.saturating_add(count);
    }
}

impl Engine {
    /// Adds increments that were reported in a cgroup to the numbers of all containers that it is in.
    pub(super) fn count(&mut self, cgroup: CgroupId, increment: Increment, count: u64) {
        if count == 0 {
            return;
        }
        for id in self.tree.lineage(cgroup) {
            if self.registry.contains(id) {
                self.numbers.entry(id).or_default().enter(increment, count);
            }
        }
    }

    /// A container was registered after a kill that it claims, and after the double counts that followed the kill. So
    /// were the containers above it that were not there either. The container that the kill was reported of has counted
    /// it, and so have those above that one, unless another container has taken its place since.
    pub(super) fn count_claimed(&mut self, cgroup: CgroupId, kill: &UnclaimedVictim) {
        let owner = kill.owner.as_ref().map(|owner| owner.cgroup);
        for id in self.tree.lineage(cgroup) {
            if Some(id) == owner && self.numbers_of(id).since_seq < kill.seq {
                return;
            }
            if self.registry.contains(id) {
                let since = self.reconciler.ledgers.double_counts_of(id);
                let since = since.saturating_sub(kill.double_counts_before(id));
                let numbers = self.numbers.entry(id).or_default();
                numbers.kills = numbers.kills.saturating_add(1);
                numbers.double_counts = numbers.double_counts.max(since);
            }
            if Some(id) == owner {
                return;
            }
        }
    }

    /// Another container takes a cgroup's place: its numbers begin here.
    pub(super) fn begin_numbers(&mut self, cgroup: CgroupId) {
        let numbers = Numbers {
            since_seq: self.last_seq,
            ..Numbers::default()
        };
        self.numbers.insert(cgroup, numbers);
    }

    /// The numbers of a container.
    pub(super) fn numbers_of(&self, cgroup: CgroupId) -> Numbers {
        self.numbers.get(&cgroup).copied().unwrap_or_default()
    }

    /// The numbers of all containers that lost a process in this run, by id.
    pub(crate) fn numbers(&self) -> Vec<(Arc<Container>, Numbers)> {
        let numbers = self.numbers.iter();
        let numbers = numbers.filter(|(_, numbers)| numbers.increase() > 0);
        let mut numbers: Vec<_> = numbers
            .filter_map(|(&cgroup, numbers)| {
                Some((self.registry.get(&self.tree, cgroup)?, *numbers))
            })
            .collect();
        numbers.sort_by(|(left, _), (right, _)| {
            (left.id.as_str(), left.cgroup_id).cmp(&(right.id.as_str(), right.cgroup_id))
        });
        numbers
    }

    /// A container's hierarchical counter was read, to be shown beside its numbers.
    pub(crate) fn counter_seen(&mut self, cgroup: CgroupId, sum: u64) {
        let reported = self.reconciler.ledgers.sum(cgroup);
        if let Some(numbers) = self.numbers.get_mut(&cgroup) {
            numbers.residual = sum.wrapping_sub(reported).cast_signed();
        }
    }
}
