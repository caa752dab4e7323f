//! The sources that run, as the watcher's task sees them: queues that it reads, and one that it writes for each.

use std::{future::poll_fn, io, sync::Arc, task::Poll};

use tokio::sync::mpsc;

use super::thread::{Followed, Following, Thread, follow};
use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::{
        names::SourceNumber,
        sighting::{RuntimeKey, RuntimeSocket, Sighting},
    },
};

/// The sources that run; dropping it ends them.
#[derive(Debug, Default)]
pub(in super::super) struct Sources {
    /// Sources that the thread came to follow; `None` where there is no thread.
    appeared: Option<mpsc::Receiver<Followed>>,
    followed: Vec<Followed>,
    _thread: Option<Thread>,
}

impl Sources {
    /// Follows `wanted` at once, and each of `possible` from when it is there. Where neither has any, no
    /// thread is started.
    pub(in super::super) fn start(
        wanted: &[RuntimeSocket],
        possible: &[RuntimeSocket],
        hierarchy: &Hierarchy,
    ) -> io::Result<Self> {
        if wanted.is_empty() && possible.is_empty() {
            return Ok(Self::default());
        }
        let hierarchy = Arc::new(hierarchy.clone());
        let (followed, sources): (_, Vec<_>) = wanted
            .iter()
            .map(|socket| follow(socket, &hierarchy))
            .unzip();
        // Room for each: the thread never waits to announce one.
        let (sender, appeared) = mpsc::channel(possible.len().max(1));
        let following = Following {
            sources,
            absent: possible.to_vec(),
            hierarchy,
            appeared: sender,
        };
        Ok(Self {
            appeared: Some(appeared),
            followed,
            _thread: Some(Thread::start(following.run())?),
        })
    }

    /// Asks a source for a container. If too many requests wait, the next listing has the container.
    pub(in super::super) fn ask(&self, source: SourceNumber, key: RuntimeKey) {
        let number = usize::try_from(source).ok();
        if let Some(followed) = number.and_then(|number| self.followed.get(number)) {
            let _ = followed.asker.try_send(key);
        }
    }

    /// All of them, in order.
    pub(in super::super) fn followed(
        &self,
    ) -> impl Iterator<Item = (SourceNumber, &RuntimeSocket)> {
        let sockets = self.followed.iter().map(|followed| &followed.socket);
        (0..).zip(sockets)
    }

    /// A sighting that a source has reported by now, if any has.
    pub(super) fn told(&mut self) -> Option<(SourceNumber, Sighting)> {
        let mut sources = (0..).zip(&mut self.followed);
        sources.find_map(|(number, followed)| Some((number, followed.sightings.try_recv().ok()?)))
    }

    /// The next sighting of any source; waits forever if there is none.
    pub(in super::super) async fn next(&mut self) -> (SourceNumber, Sighting) {
        poll_fn(|context| {
            if let Some(appeared) = &mut self.appeared {
                while let Poll::Ready(Some(followed)) = appeared.poll_recv(context) {
                    self.followed.push(followed);
                }
            }
            for (number, followed) in (0..).zip(&mut self.followed) {
                if let Poll::Ready(Some(sighting)) = followed.sightings.poll_recv(context) {
                    return Poll::Ready((number, sighting));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests;
