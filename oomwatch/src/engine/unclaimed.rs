//! Victims whose container may turn out to be another, kept for 30 s: of no registered container, or of one for which
//! its runtime has not answered yet. A container that is registered a moment after the kill claims them.
//!
//! Bounded in time and number. Knows no registry: who claims is asked, entry by entry. Pure.

use std::collections::VecDeque;

use crate::{
    containers::container::Container,
    event::{Group, Kind, OomEvent},
    id::{CgroupId, ContainerId},
    record::VictimRecord,
};

/// How long a victim can be claimed.
pub(crate) const CLAIM_NS: u64 = 30_000_000_000;
/// Most victims kept; beyond that the oldest can be claimed no longer.
pub(crate) const MAX_WAITING: usize = 1024;

/// Whose a victim was in its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportedOwner {
    pub(crate) cgroup: CgroupId,
    id: ContainerId,
    is_evidence: bool,
}

impl ReportedOwner {
    pub(crate) fn of(container: &Container) -> Self {
        Self {
            cgroup: container.cgroup_id,
            id: container.id.clone(),
            is_evidence: container.identity.is_evidence(),
        }
    }
}

/// A victim that was published, and may be another container's.
#[derive(Clone, Debug)]
pub(crate) struct UnclaimedVictim {
    /// Number of its event.
    pub(crate) seq: u64,
    /// `None` for no container.
    pub(crate) owner: Option<ReportedOwner>,
    pub(crate) record: VictimRecord,
    pub(crate) kind: Kind,
    /// Whether a counter confirmed it.
    pub(crate) counted: bool,
    /// Double counts before this victim, of each cgroup at or above it that had any.
    pub(crate) double_counts_before: Vec<(CgroupId, u64)>,
    /// The group in its event, and whether that event was `while_down`.
    pub(crate) group: Option<Group>,
    pub(crate) while_down: bool,
    /// The time in that event, once there is one.
    pub(crate) unix_time_ns: Option<i128>,
}

impl UnclaimedVictim {
    /// Double counts of a cgroup before this victim.
    pub(crate) fn double_counts_before(&self, cgroup: CgroupId) -> u64 {
        let mut known = self.double_counts_before.iter();
        known
            .find(|(id, _)| *id == cgroup)
            .map_or(0, |(_, double_counts)| *double_counts)
    }
}

/// All unclaimed victims, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unclaimed(VecDeque<Box<UnclaimedVictim>>);

impl Unclaimed {
    /// Keeps a victim.
    pub(crate) fn keep(&mut self, waiting: UnclaimedVictim, now_ns: u64) {
        self.expire(now_ns);
        if self.0.len() >= MAX_WAITING {
            if waiting.owner.is_some() {
                // Most of these are somebody's claims: they displace no victim that has no container at all.
                return;
            }
            self.0.pop_front();
        }
        self.0.push_back(Box::new(waiting));
    }

    /// An event is being published: its group and time now hold for its successor too.
    pub(crate) fn published(&mut self, event: &OomEvent) {
        if let Some(waiting) = self.0.iter_mut().rfind(|kept| kept.seq == event.seq) {
            waiting.group = event.group;
            waiting.while_down = event.while_down;
            waiting.unix_time_ns = Some(event.unix_time_ns);
        }
    }

    /// Takes out the victims that `is_claimed` accepts, the oldest first.
    pub(crate) fn claim(
        &mut self,
        now_ns: u64,
        mut is_claimed: impl FnMut(&UnclaimedVictim) -> bool,
    ) -> Vec<UnclaimedVictim> {
        self.expire(now_ns);
        let mut claimed = Vec::new();
        let mut rest = VecDeque::with_capacity(self.0.len());
        for waiting in self.0.drain(..) {
            if is_claimed(&waiting) {
                claimed.push(*waiting);
            } else {
                rest.push_back(waiting);
            }
        }
        self.0 = rest;
        claimed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn expire(&mut self, now_ns: u64) {
        while self
            .0
            .front()
            .is_some_and(|oldest| oldest.record.boottime_ns.saturating_add(CLAIM_NS) < now_ns)
        {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::victim;

    fn waiting(seq: u64, at_ns: u64) -> UnclaimedVictim {
        UnclaimedVictim {
            seq,
            owner: None,
            record: victim(seq as u32, at_ns, &[]),
            kind: Kind::Kill,
            counted: true,
            double_counts_before: vec![(CgroupId(5), 2)],
            group: None,
            while_down: false,
            unix_time_ns: None,
        }
    }

    fn seqs(claimed: &[UnclaimedVictim]) -> Vec<u64> {
        claimed.iter().map(|waiting| waiting.seq).collect()
    }

    #[test]
    fn a_victim_is_claimed_once() {
        let mut late = Unclaimed::default();
        late.keep(waiting(1, 10), 10);
        late.keep(waiting(2, 11), 11);
        let claimed = late.claim(12, |kept| kept.record.victim.tid == 1);
        assert_eq!(seqs(&claimed), [1]);
        assert_eq!(seqs(&late.claim(12, |_| true)), [2]);
        assert!(late.is_empty());
    }

    #[test]
    fn half_a_minute_later_it_is_too_late() {
        let mut late = Unclaimed::default();
        late.keep(waiting(1, 10), 10);
        late.keep(waiting(2, 20), 20);
        let claimed = late.claim(11 + CLAIM_NS, |_| true);
        assert_eq!(seqs(&claimed), [2]);
    }

    #[test]
    fn the_oldest_give_way() {
        let mut late = Unclaimed::default();
        for seq in 0..=MAX_WAITING as u64 {
            late.keep(waiting(seq, 1), 1);
        }
        assert_eq!(
            late.claim(2, |_| true).first().map(|kept| kept.seq),
            Some(1)
        );
    }

    #[test]
    fn double_counts_before_it_are_those_of_the_cgroup() {
        assert_eq!(waiting(1, 1).double_counts_before(CgroupId(5)), 2);
        assert_eq!(waiting(1, 1).double_counts_before(CgroupId(6)), 0);
    }
}
