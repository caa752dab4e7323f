//! What the watcher's task has to do with sources of containers: their tasks, and what they tell. Asks nobody
//! itself.

use std::{future::poll_fn, sync::Arc, task::Poll};

use tokio::{sync::mpsc, task::JoinSet};
use tracing::info;

use super::Task;
use crate::{
    ContainerId,
    cgroup::hierarchy::Hierarchy,
    clock,
    discover::{
        names::SourceNumber,
        source::{self, RuntimeSocket, SIGHTING_QUEUE, Sighting, Sightings, Wanted},
    },
};

/// The sources that run; dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    hierarchy: Option<Arc<Hierarchy>>,
    receivers: Vec<mpsc::Receiver<Sighting>>,
    /// As `receivers`: where each is asked for a container.
    askers: Vec<mpsc::Sender<String>>,
    /// As `receivers`.
    followed: Vec<RuntimeSocket>,
    tasks: JoinSet<()>,
    /// Runtimes that may be installed or started later.
    absent: Vec<RuntimeSocket>,
}

impl Sources {
    /// Follows `wanted` at once, and each of `possible` from when it is there.
    pub(super) fn start(
        wanted: &[RuntimeSocket],
        possible: Vec<RuntimeSocket>,
        hierarchy: &Hierarchy,
    ) -> Self {
        let mut sources = Self {
            hierarchy: Some(Arc::new(hierarchy.clone())),
            absent: possible,
            ..Self::default()
        };
        for socket in wanted {
            sources.follow(socket);
        }
        sources.look();
        sources
    }

    /// Follows those that were not there before.
    pub(super) fn look(&mut self) {
        let is_there = |socket: &mut RuntimeSocket| socket.exists();
        let appeared: Vec<_> = self.absent.extract_if(.., is_there).collect();
        for socket in appeared {
            self.follow(&socket);
        }
    }

    fn follow(&mut self, socket: &RuntimeSocket) {
        let Some(hierarchy) = self.hierarchy.clone() else {
            return;
        };
        info!(source = %socket.api, socket = %socket.path.display(), "following");
        let (sender, receiver) = mpsc::channel(SIGHTING_QUEUE);
        let sightings = Sightings::new(socket.api, hierarchy, sender);
        let (asker, wanted) = Wanted::channel();
        self.receivers.push(receiver);
        self.askers.push(asker);
        self.followed.push(socket.clone());
        let source = source::source(socket);
        self.tasks.spawn(source::drive(source, sightings, wanted));
    }

    /// Asks a source for a container. Where too many wait to be asked for, the next listing has it.
    pub(super) fn ask(&self, source: SourceNumber, id: &ContainerId) {
        let asker = usize::try_from(source).ok();
        if let Some(asker) = asker.and_then(|number| self.askers.get(number)) {
            let _ = asker.try_send(id.as_str().to_owned());
        }
    }

    /// All of them, in order.
    pub(super) fn followed(&self) -> impl Iterator<Item = (SourceNumber, &RuntimeSocket)> {
        (0..).zip(&self.followed)
    }

    /// The next thing that a source tells; for ever where there is none.
    pub(super) async fn next(&mut self) -> (SourceNumber, Sighting) {
        poll_fn(|context| {
            for (number, receiver) in (0..).zip(&mut self.receivers) {
                if let Poll::Ready(Some(sighting)) = receiver.poll_recv(context) {
                    return Poll::Ready((number, sighting));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Task {
    /// A source told something.
    pub(super) fn sighted(&mut self, source: SourceNumber, sighting: Sighting) {
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
            let read = self.read_late(cgroup_id);
            self.engine.register_seen(id, cgroup_id, &read);
            self.watch_counter(cgroup_id);
            self.claim();
        }
    }
}
