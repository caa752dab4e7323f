//! Containers that the watcher asks a source for, because their cgroup appeared first.
//!
//! Some runtimes announce a container long after they made its cgroup, or never. A container without room in the queue is
//! dropped: the next listing has it.

use tokio::sync::mpsc;

use crate::containers::sighting::RuntimeKey;

/// Containers that wait at most.
const QUEUE: usize = 1024;

/// Where a source finds the ids that the watcher asks for.
#[derive(Debug)]
pub(crate) struct Wanted(mpsc::Receiver<RuntimeKey>);

impl Wanted {
    pub(crate) fn channel() -> (mpsc::Sender<RuntimeKey>, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (sender, Self(receiver))
    }

    /// The next container. Waits for ever where nobody asks any more.
    pub(crate) async fn next(&mut self) -> RuntimeKey {
        match self.0.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Forgets all until now: a listing answers them.
    pub(crate) fn clear(&mut self) {
        while self.0.try_recv().is_ok() {}
    }
}
