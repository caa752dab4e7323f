//! The task's side of audits: what the ring lost, read from the counters, and compared only when the
//! records of all that they counted have arrived.

use std::time::Duration;

use tracing::{debug, info};

use super::{
    super::{audit::Audit, has_counters},
    Task,
};
use crate::{CgroupId, clock, log::warn};

/// At the end nothing is waited for much longer: a kill that is under way is marked by then.
const LAST_WAIT: Duration = Duration::from_millis(50);
/// Counters read in one go: then the ring has its turn.
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
            self.engine.lost_victims();
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
                self.note_counters();
                return self.audit.settle_from(clock::now().boottime_ns);
            }
            Audit::Compare { .. } => self.compare_counters(),
        }
        self.audit.done(clock::now().boottime_ns);
    }

    /// Reads the counters of all containers, the lowest first: what is noted later has all that was noted
    /// before it.
    fn note_counters(&mut self) {
        let audited = self.engine.audited();
        self.read_between(&audited, |task, id| {
            if let Some(oom_kill) = task.read_counter(id) {
                task.engine.note_counter(id, oom_kill);
            }
        });
    }

    /// Registers the containers that were found after losses, the lowest first, each with the counters
    /// that its book begins with.
    pub(super) fn register_finds(&mut self) {
        loop {
            let finds = self.engine.next_finds(SLICE);
            if finds.is_empty() {
                return self.claim();
            }
            let mut read = Vec::with_capacity(finds.len());
            for find in finds {
                let to_be_read = self.engine.to_be_read_for(find);
                read.push((find, self.read_counters(&to_be_read)));
            }
            // What they counted and was not lost, is told before.
            self.drain_ring();
            for (find, read) in read {
                self.engine.register_find(find, &read);
            }
        }
    }

    /// The counters that a container which is registered late begins with. What they counted and was not
    /// lost, is told before it is registered.
    pub(super) fn read_late(&mut self, cgroup: CgroupId) -> Vec<(CgroupId, u64)> {
        if !has_counters(&self.hierarchy) || self.source.counters.is_some() {
            return Vec::new();
        }
        let read = self.read_counters(&self.engine.to_be_read(cgroup));
        self.drain_ring();
        read
    }

    fn read_counters(&mut self, cgroups: &[CgroupId]) -> Vec<(CgroupId, u64)> {
        let mut read = Vec::with_capacity(cgroups.len());
        self.read_between(cgroups, |task, id| {
            read.extend(task.read_counter(id).map(|oom_kill| (id, oom_kill)));
        });
        read
    }

    /// Reads a file of each of `cgroups` in slices, and drains the ring between them: the last slice
    /// is not followed by a drain. Some may be gone, or no container any more, when it is their turn.
    fn read_between(&mut self, cgroups: &[CgroupId], mut read: impl FnMut(&mut Self, CgroupId)) {
        for (number, slice) in cgroups.chunks(SLICE).enumerate() {
            if number > 0 {
                self.drain_ring();
            }
            for &id in slice {
                if self.engine.tree().is_live(id) {
                    read(self, id);
                }
            }
        }
    }

    /// Speaks of what was counted when the counters were read, and nobody spoke of since.
    fn compare_counters(&mut self) {
        self.drain();
        let now = clock::now();
        let audited = self.engine.audited().into_iter();
        let events = audited
            .filter_map(|id| self.engine.audit_noted(id, now))
            .collect::<Vec<_>>();
        self.admit(events);
    }

    /// Makes up for what is missing, once and for all.
    pub(super) async fn last_audit(&mut self) {
        if self.drops.victims == 0 && self.compare_node() {
            return;
        }
        self.note_counters();
        tokio::time::sleep(LAST_WAIT).await;
        self.compare_counters();
        self.compare_node();
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
    pub(super) fn log_books(&mut self) {
        for (container, _) in self.engine.numbers() {
            let id = container.cgroup_id;
            if self.engine.tree().is_live(id)
                && let Some(oom_kill) = self.read_counter(id)
            {
                self.engine.note_counter(id, oom_kill);
            }
        }
        for (container, numbers) in self.engine.numbers() {
            info!(
                container = %container.id,
                cgroup = container.cgroup_id.0,
                rise = numbers.rise(),
                kills = numbers.kills,
                counter_only = numbers.counter_only,
                recounts = numbers.recounts,
                residual = numbers.residual(),
                "books"
            );
        }
    }
}
