//! Containers that are registered after a kill of theirs: the kill is told once more, under the
//! same id, and is in the container's book as if the registration had come first.

use super::Engine;
use crate::{
    OomEvent,
    attribute::{Attributed, Attribution, attribute},
    event::{Kind, build::Now},
    late::Waiting,
    record::VictimRecord,
    registry::Container,
};

impl Engine {
    /// Whether a container was registered that may have lost a process before.
    pub(crate) fn may_claim(&self) -> bool {
        self.newly_registered && !self.late.is_empty()
    }

    /// The events of victims that have a container now and had none when they were published. They
    /// follow what is still held back, which is older.
    pub(crate) fn claim(&mut self, now: Now) -> Vec<OomEvent> {
        self.newly_registered = false;
        let (tree, registry) = (&self.tree, &self.registry);
        let mut claimed = self.late.claim(now.boottime_ns, |record| {
            attribute(tree, registry, record).container.is_some()
        });
        if claimed.is_empty() {
            return Vec::new();
        }
        // What was said without a container goes first, and says the same of its group.
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
        let recounts = record.chain.iter().filter_map(|memcg| {
            let recounts = self.reconciler.recounts(memcg.cgroup_id);
            (recounts > 0).then_some((memcg.cgroup_id, recounts))
        });
        let waiting = Waiting {
            seq: self.last_seq,
            record: record.clone(),
            kind,
            counted,
            recounts_before: recounts.collect(),
            group: None,
            while_down: false,
            unix_time_ns: None,
        };
        self.late.keep(waiting, now.boottime_ns);
    }

    fn claimed(&mut self, waiting: &Waiting, now: Now) -> Option<OomEvent> {
        let record = &waiting.record;
        let attributed = Attributed {
            attribution: Attribution::Late,
            ..attribute(&self.tree, &self.registry, record)
        };
        let container = attributed.container.clone()?;
        if waiting.kind == Kind::Kill {
            self.totals.unregistered -= 1;
            self.totals.late += 1;
        }
        self.enter_claim(&container, waiting);
        self.last_seq += 1;
        let mut event = self.known(now).event(
            self.last_seq,
            record,
            attributed,
            waiting.kind,
            waiting.counted,
        );
        event.group = waiting.group;
        event.while_down = waiting.while_down;
        // Of the one it replaces, to the nanosecond: the clocks are read anew for each.
        event.unix_time_ns = waiting.unix_time_ns.unwrap_or(event.unix_time_ns);
        event.supersedes = Some(waiting.seq);
        Some(event)
    }

    /// The container's book begins before the kill, and has it; so do those above it, which were not
    /// there either.
    fn enter_claim(&mut self, container: &Container, waiting: &Waiting) {
        let counted = waiting.kind == Kind::Kill && waiting.counted;
        for cgroup in self.tree.lineage(container.cgroup_id) {
            let recounts = self.reconciler.recounts(cgroup);
            let recounts = recounts.saturating_sub(waiting.recounts_before(cgroup));
            self.reconciler
                .enter_claim(cgroup, u64::from(counted), recounts);
        }
    }
}

#[cfg(test)]
mod tests;
