//! Containers that the watcher asks a source for, because their cgroup appeared first.
//!
//! Some runtimes announce a container long after they made its cgroup, or never. An id without room in the queue is
//! dropped: the next listing has it.

use tokio::sync::mpsc;

/// Ids that wait at most.
const QUEUE: usize = 1024;

/// Where a source finds the ids that the watcher asks for.
#[derive(Debug)]
pub(crate) struct Wanted(mpsc::Receiver<String>);

impl Wanted {
    pub(crate) fn channel() -> (mpsc::Sender<String>, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (sender, Self(receiver))
    }

    /// The next id. Waits for ever where nobody asks any more.
    pub(crate) async fn next(&mut self) -> String {
        match self.0.recv().await {
            Some(id) => id,
            None => std::future::pending().await,
        }
    }

    /// Forgets all ids until now: a listing answers them.
    pub(crate) fn clear(&mut self) {
        while self.0.try_recv().is_ok() {}
    }
}
