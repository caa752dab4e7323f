//! What the watcher's task has to do with sources of containers: what they tell. Asks nobody itself: the sources
//! run on a thread of their own ([`thread`]), and everything crosses by bounded channels.

mod thread;

use std::{future::poll_fn, io, sync::Arc, task::Poll};

use tokio::sync::mpsc;

use self::thread::{Followed, Following, Thread, follow};
use super::Task;
use crate::{
    cgroup::hierarchy::Hierarchy,
    clock,
    containers::{names::SourceNumber, sighting::Sighting},
    id::ContainerId,
    runtimes::source::RuntimeSocket,
};

/// Sightings taken in before the ring has its turn.
const TURN: usize = 64;

/// The sources that run; dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Those that the thread came to follow; `None` where there is no thread.
    appeared: Option<mpsc::Receiver<Followed>>,
    followed: Vec<Followed>,
    _thread: Option<Thread>,
}

impl Sources {
    /// Follows `wanted` at once, and each of `possible` from when it is there. Where neither has any, no
    /// thread is started.
    pub(super) fn start(
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
        // Room for each: the thread never waits to tell of one.
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

    /// Asks a source for a container. Where too many wait to be asked for, the next listing has it.
    pub(super) fn ask(&self, source: SourceNumber, id: &ContainerId) {
        let number = usize::try_from(source).ok();
        if let Some(followed) = number.and_then(|number| self.followed.get(number)) {
            let _ = followed.asker.try_send(id.as_str().to_owned());
        }
    }

    /// All of them, in order.
    pub(super) fn followed(&self) -> impl Iterator<Item = (SourceNumber, &RuntimeSocket)> {
        let sockets = self.followed.iter().map(|followed| &followed.socket);
        (0..).zip(sockets)
    }

    /// What a source has told by now, if any has.
    fn told(&mut self) -> Option<(SourceNumber, Sighting)> {
        let mut sources = (0..).zip(&mut self.followed);
        sources.find_map(|(number, followed)| Some((number, followed.sightings.try_recv().ok()?)))
    }

    /// The next thing that a source tells; for ever where there is none.
    pub(super) async fn next(&mut self) -> (SourceNumber, Sighting) {
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

impl Task {
    /// A source told something, and may have told more meanwhile: a listing comes in one go.
    pub(super) fn sighted_all(&mut self, source: SourceNumber, sighting: Sighting) {
        self.sighted(source, sighting);
        for _ in 1..TURN {
            let Some((source, sighting)) = self.sources.told() else {
                return;
            };
            self.sighted(source, sighting);
        }
    }

    /// A source told something.
    fn sighted(&mut self, source: SourceNumber, sighting: Sighting) {
        let now_ns = clock::now().boottime_ns;
        if let Some((id, cgroup_id)) = self.engine.sighted(source, sighting, now_ns)
            && self
                .engine
                .registry()
                .find(self.engine.tree(), &id)
                .is_none()
        {
            if !self.engine.tree().contains(cgroup_id) {
                // Created a moment ago: its record is still in the ring.
                self.drain();
            }
            self.read_before(cgroup_id);
            self.engine.register_seen(id, cgroup_id);
            self.watch_counter(cgroup_id);
            self.claim();
        }
    }
}

#[cfg(test)]
mod tests;
