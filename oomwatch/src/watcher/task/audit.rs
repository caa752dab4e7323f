//! The task's side of audits: what the ring lost, read from the counters, and compared only when the
//! records of all that they counted have arrived.

use std::time::Duration;

use tracing::{debug, info};

use super::{
    super::{audit::Audit, has_counters},
    Task,
};
use crate::{
    clock,
    counters::walk::CounterWalk,
    id::CgroupId,
    ledger::{Reading, Readings},
    log::warn,
};

/// Readings that were read, to be compared.
#[derive(Debug, Default)]
pub(super) struct Noted {
    readings: Vec<Reading>,
    /// What is missing from them was counted before this run began.
    is_past: bool,
}

/// At the end nothing is waited for much longer: a kill that is under way is marked by then.
const LAST_WAIT: Duration = Duration::from_millis(50);
/// Readings read in one go: then the ring has its turn.
const SLICE: usize = 64;

impl Task {
    /// Records that found no room are made up for: victims by the counters, cgroups by a new
    /// scan. Only notes so: nothing is read while the ring is drained.
    pub(super) fn check_drops(&mut self) {
        let drops = match self.source.drops() {
            Ok(drops) => drops,
            Err(error) => {
                debug!(%error, "the drop counters cannot be read");
                // For want of a descriptor, maybe. Nothing may be drained for long, so they are read again
                // after another scan.
                return self.scans.retry_later();
            }
        };
        let before = std::mem::replace(&mut self.drops, drops);
        if drops.victims > before.victims {
            warn!(
                lost = drops.victims - before.victims,
                "records of victims found no room in the ring; their number is made up from the counters"
            );
            self.audit.lost(clock::now().boottime_ns);
        }
        if drops.cgroups > before.cgroups {
            warn!(
                lost = drops.cgroups - before.cgroups,
                "records of cgroups found no room in the ring; scanning again"
            );
            self.scans.want();
        }
    }

    /// The next step of making up for what was lost.
    pub(super) fn audit_after_loss(&mut self) {
        match self.audit {
            _ if self.source.counters.is_some() => self.sweep(),
            Audit::Idle => {}
            Audit::Read { .. } => {
                // What is lost from here on may be in no counter that is noted: it is for the next audit.
                self.audit.done(clock::now().boottime_ns);
                self.note_counters(false);
                return self.audit.settle_from(clock::now().boottime_ns);
            }
            Audit::Compare { .. } => self.compare_counters(),
        }
        self.audit.done(clock::now().boottime_ns);
    }

    /// Reads the counters that are not what is known, to be compared when all that they counted has arrived.
    pub(super) fn note_counters(&mut self, is_past: bool) {
        if !has_counters(&self.hierarchy) || self.source.counters.is_some() {
            return;
        }
        self.noted = Noted {
            readings: self.read_all_counters().readings,
            is_past,
        };
        self.audit.noted(clock::now().boottime_ns);
    }

    /// Reads the counters that are not what is known, in slices, and drains the ring between them.
    pub(super) fn read_all_counters(&mut self) -> Readings {
        let root = self.engine.tree().root();
        let engine = &self.engine;
        let mut walk = CounterWalk::begin(&self.hierarchy, root, &|id| engine.last_known(id));
        loop {
            let engine = &self.engine;
            if !walk.step(SLICE, &|id| engine.last_known(id)) {
                return walk.done();
            }
            self.drain_ring();
        }
    }

    /// Speaks of what was counted when the counters were read, and nobody spoke of since.
    fn compare_counters(&mut self) {
        self.drain();
        let noted = std::mem::take(&mut self.noted);
        let events = self
            .engine
            .compare_all(&noted.readings, noted.is_past, clock::now());
        self.admit(events);
        self.end_past();
        self.compare_node();
    }

    /// Makes up for what is missing, once and for all.
    pub(super) async fn last_audit(&mut self) {
        if self.drops.victims == 0 && self.compare_node() {
            return;
        }
        let is_past = self.noted.is_past;
        self.note_counters(is_past);
        tokio::time::sleep(LAST_WAIT).await;
        self.compare_counters();
        self.warn_of_residual();
    }

    /// `oom_kill` of a cgroup; `None` where it is gone or has no memory controller.
    pub(super) fn read_counter(&self, id: CgroupId) -> Option<u64> {
        let path = self.engine.tree().path(id)?;
        match self.hierarchy.memory_events(&path) {
            // Another cgroup may have taken the path, while the removal is still in the ring. Ids are not
            // used again: if it is there after the reading, it was there before.
            Ok(events) => events.filter(|_| self.hierarchy.is_at(id, &path))?.oom_kill,
            Err(error) => {
                warn!(%error, "a counter cannot be read");
                None
            }
        }
    }

    /// Says of each container that lost a process by how much its counter rose, and what that was.
    /// The counters are read once more, so that this is not the events' word for themselves.
    pub(super) fn log_totals(&mut self) {
        for (container, _) in self.engine.numbers() {
            let id = container.cgroup_id;
            if self.engine.tree().is_live(id)
                && let Some(oom_kill) = self.read_counter(id)
            {
                self.engine.counter_seen(id, oom_kill);
            }
        }
        for (container, numbers) in self.engine.numbers() {
            info!(
                container = %container.id,
                cgroup = container.cgroup_id.0,
                increase = numbers.increase(),
                kills = numbers.kills,
                counter_only = numbers.counter_only,
                double_counts = numbers.double_counts,
                residual = numbers.residual,
                "container totals"
            );
        }
    }
}
