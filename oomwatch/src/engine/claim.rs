//! Containers that are registered after a kill of theirs. The engine reports the kill once more, under the same id,
//! and counts it among the container's numbers. No ledger moves.

use super::Engine;
use crate::{
    attribute::{Attributed, attribute},
    engine::unclaimed::UnclaimedVictim,
    event::{Attribution, Kind, Now, OomEvent},
    id::CgroupId,
    record::VictimRecord,
};

impl Engine {
    /// Whether a container was registered that may have lost a process before.
    pub(crate) fn may_claim(&self) -> bool {
        self.newly_registered && !self.unclaimed.is_empty()
    }

    /// The events of victims that have a container now and had none when they were published. They follow the events
    /// that are still held back, which are older.
    pub(crate) fn claim(&mut self, now: Now) -> Vec<OomEvent> {
        self.newly_registered = false;
        let (tree, registry) = (&self.tree, &self.registry);
        let mut claimed = self.unclaimed.claim(now.boottime_ns, |record| {
            attribute(tree, registry, record).container.is_some()
        });
        if claimed.is_empty() {
            return Vec::new();
        }
        // The event without a container goes first, and has the same group.
        self.waiting.let_go_unregistered();
        self.release(now.boottime_ns);
        for kept in &mut claimed {
            let mut waiting = self.waiting.events();
            if let Some(first) = waiting.find(|event| event.seq == kept.seq) {
                kept.group = first.group;
                kept.unix_time_ns = Some(first.unix_time_ns);
            }
        }
        let claimed = claimed.iter();
        claimed.filter_map(|kept| self.claimed(kept, now)).collect()
    }

    /// Keeps a victim without a container.
    pub(super) fn keep_for_claims(
        &mut self,
        record: &VictimRecord,
        (kind, counted): (Kind, bool),
        now: Now,
    ) {
        let ledgers = &self.reconciler.ledgers;
        let above = record.victim.cgroup_id.into_iter();
        let doubles = above
            .flat_map(|id| self.tree.lineage(id))
            .map(|id| (id, ledgers.double_counts_of(id)))
            .filter(|(_, doubles)| *doubles > 0);
        let waiting = UnclaimedVictim {
            seq: self.last_seq,
            record: record.clone(),
            kind,
            counted,
            double_counts_before: doubles.collect(),
            group: None,
            while_down: false,
            unix_time_ns: None,
        };
        self.unclaimed.keep(waiting, now.boottime_ns);
    }

    fn claimed(&mut self, waiting: &UnclaimedVictim, now: Now) -> Option<OomEvent> {
        let record = &waiting.record;
        let attributed = Attributed {
            attribution: Attribution::Late,
            ..attribute(&self.tree, &self.registry, record)
        };
        let container = attributed.container.clone()?;
        if waiting.kind == Kind::Kill {
            self.totals.unregistered -= 1;
            self.totals.late += 1;
            let before = |id: CgroupId| waiting.double_counts_before(id);
            self.count_claimed(container.cgroup_id, before);
        }
        self.last_seq += 1;
        let mut event = self.event_context(now).event(
            self.last_seq,
            record,
            attributed,
            waiting.kind,
            waiting.counted,
        );
        event.group = waiting.group;
        event.while_down = waiting.while_down;
        // The time of the event it replaces, to the nanosecond: the clocks are read anew for each event.
        event.unix_time_ns = waiting.unix_time_ns.unwrap_or(event.unix_time_ns);
        event.supersedes = Some(waiting.seq);
        Some(event)
    }
}

#[cfg(test)]
mod tests;
