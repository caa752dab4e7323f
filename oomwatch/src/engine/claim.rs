//! Containers that are registered after a kill of theirs, or that turn out to be another. The engine reports the kill
//! once more, under the same id, and counts it among the container's numbers. No ledger moves.

use hashbrown::HashSet;

use super::Engine;
use crate::{
    attribute::attribute,
    containers::{container::Container, identity::Identity},
    engine::unclaimed::{ReportedOwner, UnclaimedVictim},
    event::{Attribution, Kind, Now, OomEvent},
    record::VictimRecord,
};

impl Engine {
    /// Whether a container was registered that may have lost a process before.
    pub(crate) fn may_claim(&self) -> bool {
        self.newly_registered && !self.unclaimed.is_empty()
    }

    /// The events of victims that have another container now than when they were published. They follow the events
    /// that are still held back, which are older.
    pub(crate) fn claim(&mut self, now: Now) -> Vec<OomEvent> {
        self.newly_registered = false;
        let (tree, registry) = (&self.tree, &self.registry);
        let mut claimed = self.unclaimed.claim(now.boottime_ns, |kept| {
            let container = attribute(tree, registry, &kept.record).container;
            container.is_some_and(|found| Some(ReportedOwner::of(&found)) != kept.owner)
        });
        if claimed.is_empty() {
            return Vec::new();
        }
        // The first event goes first, and has the same group.
        let seqs: HashSet<u64> = claimed.iter().map(|kept| kept.seq).collect();
        self.waiting.let_go(&seqs);
        self.release(now.boottime_ns);
        for kept in &mut claimed {
            let mut waiting = self.waiting.events();
            if let Some(first) = waiting.find(|event| event.seq == kept.seq) {
                kept.group = first.group;
                kept.unix_time_ns = Some(first.unix_time_ns);
            }
        }
        let claimed = claimed.iter();
        claimed.map(|kept| self.claimed(kept, now)).collect()
    }

    /// Whether a victim's container may turn out to be another: it has none, or one for which a runtime has yet to
    /// answer.
    pub(super) fn may_change(&self, container: Option<&Container>) -> bool {
        let Some(container) = container else {
            return true;
        };
        let runtime = container.details.runtime.as_deref();
        match container.identity {
            Identity::Path | Identity::Claimed => self.names.follows(runtime),
            Identity::Unit => self.names.follows(None),
            _ => false,
        }
    }

    /// Keeps a victim that another container may claim.
    pub(super) fn keep_for_claims(
        &mut self,
        record: &VictimRecord,
        owner: Option<&Container>,
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
            owner: owner.map(ReportedOwner::of),
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

    fn claimed(&mut self, waiting: &UnclaimedVictim, now: Now) -> OomEvent {
        let record = &waiting.record;
        let mut attributed = attribute(&self.tree, &self.registry, record);
        if waiting.owner.is_none() {
            attributed.attribution = Attribution::Late;
        }
        let container = attributed.container.clone();
        if waiting.kind == Kind::Kill
            && let Some(container) = container.as_deref()
        {
            self.count_change(waiting, container);
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
        if self.may_change(container.as_deref()) {
            let kept = UnclaimedVictim {
                seq: self.last_seq,
                owner: container.as_deref().map(ReportedOwner::of),
                ..waiting.clone()
            };
            self.unclaimed.keep(kept, now.boottime_ns);
        }
        event
    }

    /// Moves a kill to the container that it turned out to be of.
    fn count_change(&mut self, waiting: &UnclaimedVictim, container: &Container) {
        if waiting.owner.is_none() {
            self.totals.unregistered -= 1;
            self.totals.late += 1;
        }
        self.count_claimed(container.cgroup_id, waiting);
    }
}

#[cfg(test)]
mod tests;
