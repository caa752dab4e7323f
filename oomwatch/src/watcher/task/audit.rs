//! The task's side of audits: counters show what the ring lost. They are compared only when the records of all that
//! they counted have arrived.

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
    /// Increments that no ledger has were counted before this run began.
    is_past: bool,
}

/// Wait at the end: a kill that is under way is marked by then.
const LAST_WAIT: Duration = Duration::from_millis(50);
/// Readings made in one go: then the ring has its turn.
const SLICE: usize = 64;

impl Task {
    /// Makes up for records that found no room: victims by the counters, cgroups by a new scan. It only notes the
    /// loss: nothing is read while the ring is drained.
    pub(super) fn check_drops(&mut self) {
        let drops = match self.source.drops() {
            Ok(drops) => drops,
            Err(error) => {
                debug!(%error, "the drop counters cannot be read");
                // Perhaps for want of a descriptor. Nothing may be drained for long, so the task reads them again
                // after another scan.
                return self.scans.retry_later();
            }
        };
        let before = std::mem::replace(&mut self.drops, drops);
        if drops.victims > before.victims {
            warn!(
                lost = drops.victims - before.victims,
                "the ring dropped records of victims: oomwatch takes their number from the counters"
            );
            self.audit.lost(clock::now().boottime_ns);
        }
        if drops.cgroups > before.cgroups {
            warn!(
                lost = drops.cgroups - before.cgroups,
                "the ring dropped records of cgroups: oomwatch scans again"
            );
            self.scans.want();
        }
    }

    /// Takes the next step of making up for a loss.
    pub(super) fn audit_after_loss(&mut self) {
        match self.audit {
            _ if self.source.counters.is_some() => self.sweep(),
            Audit::Idle => {}
            Audit::Read { .. } => {
                // A loss from here on may be in no counter that is noted: it is for the next audit.
                self.audit.done(clock::now().boottime_ns);
                self.note_counters(false);
                return self.audit.settle_from(clock::now().boottime_ns);
            }
            Audit::Compare { .. } => self.compare_counters(),
        }
        self.audit.done(clock::now().boottime_ns);
    }

    /// Reads the counters that differ from what is known. They are compared when all that they counted has arrived.
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

    /// Reads the counters that differ from what is known, in slices, and drains the ring between them.
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

    /// Reports the increments in the noted readings that nobody has reported since.
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

    /// Makes up for what is missing, for the last time.
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
            // Another cgroup may have taken the path, while the removal is still in the ring. Ids are not used again:
            // if the cgroup is there after the reading, it was there before.
            Ok(events) => events.filter(|_| self.hierarchy.is_at(id, &path))?.oom_kill,
            Err(error) => {
                warn!(%error, "cannot read a counter");
                None
            }
        }
    }

    /// Logs for each container that lost a process by how much its counter rose, and what that was. It reads the
    /// counters once more, so that the totals do not rest on the events themselves.
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
