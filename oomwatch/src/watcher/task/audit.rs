//! The task's side of audits: what the ring lost, read from the counters, and compared only when the
//! records of all that they counted have arrived.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::{super::audit::Audit, Task};
use crate::{CgroupId, clock};

/// At the end nothing is waited for much longer: a kill that is under way is marked by then.
const LAST_WAIT: Duration = Duration::from_millis(50);

impl Task {
    /// Records that found no room are made up for: victims by the counters, cgroups by a new scan.
    pub(super) fn check_drops(&mut self) {
        let drops = match self.source.drops() {
            Ok(drops) => drops,
            Err(error) => return debug!(%error, "the drop counters cannot be read"),
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
            if let Err(error) = self.scan() {
                error!(%error, "the cgroup hierarchy cannot be scanned");
            }
        }
    }

    /// The next step of making up for what was lost.
    pub(super) fn audit_after_loss(&mut self) {
        match self.audit {
            _ if self.source.counters.is_some() => self.sweep(),
            Audit::Idle => {}
            Audit::Read { .. } => self.note_counters(),
            Audit::Compare { .. } => self.compare_counters(),
        }
        self.audit.done(clock::now().boottime_ns);
    }

    /// Reads the counters of all containers, the lowest first.
    fn note_counters(&mut self) {
        for id in self.engine.audited() {
            if let Some(oom_kill) = self.read_counter(id) {
                self.engine.note_counter(id, oom_kill);
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
            .collect();
        self.publish(events);
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
            Ok(events) => events?.oom_kill,
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
