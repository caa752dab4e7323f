//! What the watcher's task does with a ring that was pinned: works off what came before it began.

use tracing::{info, warn};

use super::{Task, understood};
use crate::{probe::Position, record::Record};

/// What a ring of 96 MiB holds at most. Of a larger one the rest follows in batches.
const MOST_RECORDS: usize = 1 << 20;

impl Task {
    /// Reads all that came before this daemon began, and learns of the cgroups that came and went:
    /// their containers are to be known before any of it is told. It begins after what an earlier daemon
    /// has stored: that one may have taken more.
    pub(super) fn read_backlog(
        &mut self,
        started_ns: u64,
        stored_up_to: Option<Position>,
    ) -> Vec<Record> {
        self.engine.watching_since(started_ns);
        let mut backlog = Vec::new();
        if let Some(stored_up_to) = stored_up_to {
            let report = &mut self.report;
            let taken = self.source.take_again(stored_up_to, |record| {
                backlog.extend(understood(record, report));
            });
            if let Err(error) = taken {
                warn!(%error, "what an earlier daemon took from the ring cannot be taken again");
            }
        }
        let taken_again = backlog.len();
        self.read_ring(MOST_RECORDS, &mut backlog);
        self.engine.learn_all(&backlog);
        info!(
            records = backlog.len(),
            taken_again, "going on with the programs that are pinned"
        );
        backlog
    }

    /// Tells of it.
    pub(super) fn work_off(&mut self, backlog: &[Record]) {
        self.check_drops();
        let events = self.apply(backlog);
        self.taken_up_to = self.source.position();
        self.publish(events);
    }

    /// Who stops a daemon may think that nothing of it is left.
    pub(super) fn say_what_stays(&self) {
        if let Some(path) = self.source.pinned_at() {
            info!(path = %path.display(), "the programs and their ring stay pinned; `oomwatch unpin` removes them");
        }
    }
}
