//! Containers that a source is asked for, because a cgroup told of them first.
//!
//! Some runtimes tell of a container long after they made its cgroup, or never. What does not fit is
//! dropped: the next listing has it.

use tokio::sync::mpsc;

/// Containers that wait to be asked for at most.
const QUEUE: usize = 1024;

/// Where a source finds the ids of containers that it is asked for.
#[derive(Debug)]
pub(crate) struct Wanted(mpsc::Receiver<String>);

impl Wanted {
    pub(crate) fn channel() -> (mpsc::Sender<String>, Self) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (sender, Self(receiver))
    }

    /// The next id; for ever where nobody asks any more.
    pub(crate) async fn next(&mut self) -> String {
        match self.0.recv().await {
            Some(id) => id,
            None => std::future::pending().await,
        }
    }

    /// Forgets what was asked for until now: a listing answers it.
    pub(crate) fn clear(&mut self) {
        while self.0.try_recv().is_ok() {}
    }
}
