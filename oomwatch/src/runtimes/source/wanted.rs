//! Containers that the watcher asks a source for: their cgroup appeared first, or it is not known where they are.
//!
//! The watcher asks once for each container, so what waits is kept through a listing and through a new connection. A
//! container without room is dropped: the next listing has its name.

use std::{collections::VecDeque, future::Future, pin::pin};

use tokio::sync::mpsc;

use crate::containers::sighting::RuntimeKey;

/// Containers that wait in the queue at most.
const QUEUE: usize = 1024;
/// Containers that wait at most for the source to be free.
const MAX_WAITING: usize = 65_536;

/// Where a source finds the containers that the watcher asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    queue: mpsc::Receiver<RuntimeKey>,
    waiting: VecDeque<RuntimeKey>,
}

impl Wanted {
    pub(crate) fn channel() -> (mpsc::Sender<RuntimeKey>, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let waiting = VecDeque::new();
        (sender, Self { queue, waiting })
    }

    /// The next container. Waits for ever where nobody asks any more. A caller that stops waiting loses none.
    pub(crate) async fn next(&mut self) -> RuntimeKey {
        match self.waiting.pop_front() {
            Some(key) => key,
            None => self.receive().await,
        }
    }

    /// Does `work`, and takes what is asked meanwhile out of the queue.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                key = self.receive() => {
                    if self.waiting.len() < MAX_WAITING {
                        self.waiting.push_back(key);
                    }
                }
            }
        }
    }

    async fn receive(&mut self) -> RuntimeKey {
        match self.queue.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::sighting::{Realm, RuntimeApi};

    #[tokio::test]
    async fn what_is_asked_during_a_listing_is_kept() {
        const ASKED: usize = 3 * QUEUE;
        let (sender, mut wanted) = Wanted::channel();
        let key = |number: usize| RuntimeKey {
            id: number.to_string(),
            realm: Realm::of(RuntimeApi::Cri),
        };
        let listing = async {
            for number in 0..ASKED {
                sender.send(key(number)).await.unwrap();
            }
        };
        wanted.during(listing).await;
        for number in 0..ASKED {
            assert_eq!(wanted.next().await, key(number));
        }
    }
}
