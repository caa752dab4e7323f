//! The end: detach, drain, the last audit. Then the task publishes everything, and every publisher ends within the
//! time of grace. Events that do not come out are counted.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::{super::Report, Task};
use crate::{log::say_left_out, publish::queue::Queue};

/// How long the store may take to close, once everything is written.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long the kernel may take to let go of the programs.
const DETACH_LIMIT: Duration = Duration::from_secs(1);

impl Task {
    pub(super) async fn finish(mut self) -> Report {
        self.detach().await;
        self.sweep();
        self.settle(u64::MAX);
        self.finish_scans().await;
        self.last_audit().await;
        self.publish_all().await;
        self.log_totals();
        say_left_out();
        self.say_what_stays();
        self.subscribers.clear();
        let before = self.current_report();
        self.finish_publishers().await;
        let report = self.current_report();
        Report {
            lost_while_stopping: report.lost.events() - before.lost.events(),
            ..report
        }
    }

    /// What happens from here on is left to the next daemon. The programs are detached on another thread, because the
    /// kernel waits until no processor runs them.
    async fn detach(&mut self) {
        let Some(attached) = self.source.detach() else {
            return;
        };
        let detached = tokio::task::spawn_blocking(move || drop(attached));
        if timeout(DETACH_LIMIT, detached).await.is_err() {
            debug!("the kernel takes long to detach the programs");
        }
    }

    /// Lets the store and all publishers end, within the same time.
    async fn finish_publishers(&mut self) {
        let until = Instant::now() + self.grace;
        // Publishers whose events are in memory end meanwhile.
        self.queues.iter_mut().for_each(Queue::close);
        self.save_last(until).await;
        self.persist.close();
        for queue in &mut self.queues {
            queue.finish(until).await;
        }
        if self.persist.has_store() {
            self.persist
                .finish(until.max(Instant::now() + CLOSE_LIMIT))
                .await;
        } else {
            // The publishers have what was in a pinned ring.
            self.save();
        }
    }

    /// Whoever stops a daemon may think that nothing of it is left.
    fn say_what_stays(&self) {
        if let Some(path) = self.source.pinned_at() {
            info!(path = %path.display(), "the programs and their ring stay pinned; `oomwatch unpin` removes them");
        }
    }
}
