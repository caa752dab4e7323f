//! What the watcher's task does with a ring that was pinned: works off what came before it began.

use tracing::info;

use super::Task;
use crate::record::Record;

/// What a ring of 96 MiB holds at most. Of a larger one the rest follows in batches.
const MOST_RECORDS: usize = 1 << 20;

impl Task {
    /// Reads all that came before this daemon began, and learns of the cgroups that came and went:
    /// their containers are to be known before any of it is told.
    pub(super) fn read_backlog(&mut self, started_ns: u64) -> Vec<Record> {
        self.engine.watching_since(started_ns);
        let mut backlog = Vec::new();
        self.read_ring(MOST_RECORDS, &mut backlog);
        self.engine.learn_all(&backlog);
        info!(
            records = backlog.len(),
            "going on with the programs that are pinned"
        );
        backlog
    }

    /// Tells of it.
    pub(super) fn work_off(&mut self, backlog: &[Record]) {
        self.check_drops();
        let events = self.apply(backlog);
        self.publish(events);
    }

    /// Who stops a daemon may think that nothing of it is left.
    pub(super) fn say_what_stays(&self) {
        if let Some(path) = self.source.pinned_at() {
            info!(path = %path.display(), "the programs and their ring stay pinned; `oomwatch unpin` removes them");
        }
    }
}
