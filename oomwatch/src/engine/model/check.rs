//! What must hold in the end, whatever happened. The model first ends all that is under way, and makes one more
//! audit.

use std::collections::{HashMap, HashSet};

use super::{
    Model,
    kernel::{Increment, Note},
};
use crate::{
    event::{Kind, OomEvent},
    id::CgroupId,
};

impl Model {
    pub(super) fn check(&mut self) {
        self.between.clear();
        self.skip_saves = 0;
        self.kernel.finish();
        self.come_to_rest();
        self.check_processes();
        self.check_sum();
        if self.has_store {
            self.check_ledgers();
        }
    }

    fn come_to_rest(&mut self) {
        self.drain();
        self.end_scan();
        for _ in 0..2 {
            self.begin_scan();
            self.end_scan();
        }
        self.compare_counters();
        for _ in 0..2 {
            self.audit(true);
            self.compare_counters();
        }
        self.compare_node();
        self.publish_all();
    }

    /// The last event of each id: a claim is reported under the same id.
    fn last_words(&self) -> HashMap<&str, &OomEvent> {
        let mut words: HashMap<&str, &OomEvent> = HashMap::new();
        for event in &self.history {
            if let Some(before) = words.insert(&event.id, event) {
                assert!(event.supersedes.is_some(), "told twice: {event:?}");
                assert!(before.container.is_none(), "claimed twice: {event:?}");
                assert!(event.container.is_some(), "{event:?}");
                assert_eq!(before.victim.pid, event.victim.pid);
            }
        }
        words
    }

    fn check_processes(&self) {
        let mut killed = HashSet::new();
        for event in self.last_words().into_values() {
            let Some(pid) = event.victim.pid else {
                continue;
            };
            self.check_owner(event, pid);
            if event.kind != Kind::Kill {
                assert_eq!(event.count, 0, "{event:?}");
                continue;
            }
            assert!(killed.insert(pid), "process {pid} is told of twice");
            let mut increments = self.kernel.increments.iter();
            let first = increments.find(|increment| increment.pid == pid && !increment.is_again);
            assert!(first.is_some(), "process {pid} was not killed");
        }
    }

    fn check_owner(&self, event: &OomEvent, pid: u32) {
        let container = event
            .container
            .as_ref()
            .map(|container| container.cgroup_id.0);
        let place = event.victim.cgroup_id.map_or(0, |id| id.0);
        // If nothing shows where its cgroup is, the cgroup of its memory's owner is taken.
        if let Some(container) =
            container.filter(|_| self.owners.get(&pid).is_some_and(Option::is_some))
        {
            let lineage = self.kernel.lineage(place);
            assert!(
                lineage.contains(&container),
                "not in its container: {event:?}"
            );
        }
        match self.owners.get(&pid).copied().flatten() {
            Some(Some(owner)) => {
                assert_eq!(
                    container,
                    Some(owner),
                    "process {pid} is in the wrong container"
                );
            }
            // It may have been claimed.
            Some(None) if event.supersedes.is_none() => {
                assert_eq!(container, None, "process {pid} had no container");
            }
            _ => {}
        }
    }

    fn is_known(&self, index: usize) -> bool {
        self.known.contains_key(&Note::Increment(index))
    }

    /// Only the node's count shows it. Its record is lost, its counter is gone without a record, and so are all
    /// counters above that had it. Counters of the root have no file.
    fn is_unknowable(&self, index: usize, increment: &Increment) -> bool {
        let is_lost = |serial: &u64| {
            self.kernel.gone.contains_key(serial)
                && !self.known.contains_key(&Note::Removed(Some(*serial)))
        };
        !self.is_known(index) && increment.counters.iter().all(is_lost)
    }

    /// All records that arrived from a cgroup are double counts, which do not say where it is. Until a scan or its
    /// removal does, the cgroup above it may report its counts again.
    fn is_placeless(&self, increment: &Increment) -> bool {
        let Some(own) = increment.counters.first() else {
            return false;
        };
        let increments = self.kernel.increments.iter().enumerate();
        let mut known = increments
            .filter(|(index, one)| one.counters.first() == Some(own) && self.is_known(*index));
        known.all(|(_, one)| one.is_double)
    }

    /// Everything that was counted was reported once. Double counts are reported too where their records are lost,
    /// because nobody can tell them from kills.
    fn check_sum(&self) {
        let told: u64 = self
            .last_words()
            .into_values()
            .map(|event| event.count)
            .sum();
        // Gaps between the root's marks are left to the node's residual. A run that is killed may not have reported
        // that.
        let of_root = |increment: &Increment| increment.counters.is_empty();
        let mut increments = self.kernel.increments.iter();
        let is_root_loose = increments.any(|one| of_root(one) && one.is_lost_somewhere);
        let (mut least, mut most) = (0, 0);
        for (index, increment) in self.kernel.increments.iter().enumerate() {
            let is_loose = self.is_early_and_gone(index, increment);
            most += u64::from(is_loose || self.is_placeless(increment));
            if self.past.contains(&index) {
                continue;
            }
            let is_second = increment.is_double && self.is_known(index);
            let may_be_told = increment.is_again
                || increment.is_lost_somewhere
                || self.is_early(index, increment);
            let is_told = !is_second || may_be_told;
            let may_be_lost = increment.is_again
                || self.is_unknowable(index, increment)
                || self.unsure.contains(&index)
                || (of_root(increment) && is_root_loose);
            let must_be_told = !is_second && !may_be_lost;
            most += u64::from(is_told);
            // Below new counters whose value equals the old ones, nothing is read.
            let is_hidden = !self.kernel.switched.is_empty() && increment.is_lost_somewhere;
            least += u64::from(must_be_told && !self.is_switched(increment) && !is_hidden);
        }
        let brief = || {
            let events = self.history.iter();
            let brief = events.map(|event| {
                (
                    event.kind,
                    event.count,
                    event.victim.pid,
                    event.victim.cgroup_id,
                    event.while_down,
                )
            });
            brief.collect::<Vec<_>>()
        };
        let increments = &self.kernel.increments;
        // Keys of cgroups that only have sums are learnt when they are read. If a controller was switched off and on
        // above a cgroup that reported, the sums may report its counts again. Open.
        let is_exact = self.kernel.switched.is_empty();
        assert!(
            !is_exact || told <= most,
            "told {told} of {most} at most: {:?} {increments:?} {:?}",
            brief(),
            self.past
        );
        assert!(
            told >= least,
            "told {told} of {least} at least: {:?} {increments:?}",
            brief()
        );
    }

    /// A run that had no record of the increment read its counter when it began: the increment is reported by number.
    fn is_early(&self, index: usize, increment: &Increment) -> bool {
        let read_at = self.known.get(&Note::Increment(index)).copied();
        let mut attached = self.attached.iter();
        attached.any(|&at| increment.at <= at && read_at.is_none_or(|read_at| read_at >= at))
    }

    /// The controller of its cgroup, or of one above it, was switched off and on: the counters before may never have
    /// been read.
    fn is_switched(&self, increment: &Increment) -> bool {
        let mut counters = increment.counters.iter();
        counters.any(|serial| self.kernel.switched.contains(serial))
    }

    /// Its record waits in a pinned ring, and its counter is gone. A run without that ring reports it by a sum above
    /// or by the node's residual. When the ring is read, its mark is reported. Open.
    fn is_early_and_gone(&self, index: usize, increment: &Increment) -> bool {
        let own = increment.counters.first();
        self.is_early(index, increment) && own.is_none_or(|own| self.kernel.gone.contains_key(own))
    }

    /// Each ledger adds up, and is where its counter is.
    fn check_ledgers(&mut self) {
        let ledgers = self
            .daemon
            .as_mut()
            .unwrap()
            .engine
            .reconciler
            .ledgers
            .all();
        for (id, ledger) in ledgers {
            let rise = ledger.counter - ledger.base;
            assert_eq!(
                rise,
                ledger.reported + ledger.double_counts,
                "{id:?}: {ledger:?}"
            );
        }
        let engine = &self.daemon.as_ref().unwrap().engine;
        for (&id, cgroup) in &self.kernel.cgroups {
            // Below a sum that did not change nothing is read. That other counters took its place is learnt with the
            // next change.
            let mut increments = self.kernel.increments.iter().enumerate();
            let is_loose = increments.any(|(index, one)| self.is_early_and_gone(index, one));
            let is_plain =
                id != super::kernel::ROOT && self.kernel.switched.is_empty() && !is_loose;
            if let Some(counters) = cgroup.counters.filter(|_| is_plain) {
                assert_eq!(
                    engine.last_known(CgroupId(id)),
                    counters.sum,
                    "the sum of {id}"
                );
            }
        }
    }
}
