//! What the watcher's task is asked for by handles.

use std::path::Path;

use tracing::info;

use super::{
    super::{AddError, Command, Lost, Report, SourceReport, Status, has_counters},
    Task,
};
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    id::ContainerId,
    publish::stream,
};

impl Task {
    pub(super) fn command(&mut self, command: Command) {
        // An asker that went away needs no answer.
        match command {
            Command::Add { id, cgroup, answer } => {
                let added = self.add_by_hand(&id, &cgroup);
                self.persist.answer_once_stored(added, answer);
            }
            Command::Remove { id, answer } => {
                let removed = self.engine.unregister(&id).map(drop);
                let removed = removed.map_err(AddError::from);
                self.persist.answer_once_stored(removed, answer);
            }
            Command::Subscribe { answer } => {
                let (subscriber, events) = stream::channel();
                if answer.send(events).is_ok() {
                    self.subscribers.push(subscriber);
                }
            }
            Command::Status { answer } => {
                let _ = answer.send(self.status());
            }
            Command::Cgroups { answer } => {
                let _ = answer.send(self.engine.registry().live_cgroups());
            }
            Command::Describe { cgroups, answer } => {
                let described = cgroups.iter().filter_map(|&id| self.engine.describe(id));
                let _ = answer.send(described.collect());
            }
        }
    }

    /// Registers a container that somebody asks for.
    pub(super) fn add(&mut self, id: &str, cgroup: &Path) -> Result<(), AddError> {
        let id = ContainerId::new(id)?;
        let cgroup_id = self.hierarchy.id(cgroup)?;
        if !self.engine.tree().contains(cgroup_id) {
            // Created a moment ago: its record is still in the ring.
            self.drain();
        }
        let details = ContainerDetails::default();
        let container = Container {
            id,
            cgroup_id,
            identity: Identity::Manual,
            inside: None,
            details,
        };
        self.register(container)
    }

    /// Registers a container.
    pub(super) fn register(&mut self, container: Container) -> Result<(), AddError> {
        let (id, cgroup_id) = (container.id.clone(), container.cgroup_id);
        self.read_before(cgroup_id);
        self.engine.register_by_hand(container)?;
        self.watch_counter(cgroup_id);
        self.claim();
        info!(container = %id, cgroup = cgroup_id.0, "registered");
        Ok(())
    }

    fn status(&self) -> Status {
        let followed = self.sources.followed();
        let sources = followed.map(|(number, socket)| SourceReport {
            socket: socket.clone(),
            connected: self.engine.is_following(number, socket.api),
        });
        Status {
            tier: self.source.tier(),
            sees_limits: self.source.sees_oom_control(),
            has_counters: has_counters(&self.hierarchy),
            cgroups: self.engine.tree().live_count(),
            containers: self.engine.registry().live_count(),
            node: self.engine.node().cloned(),
            sources: sources.collect(),
            report: self.current_report(),
        }
    }

    pub(super) fn current_report(&self) -> Report {
        let lost_by_store = self.persist.lost_events();
        let queues = self.queues.iter();
        let publishers: Vec<_> = queues.map(|queue| queue.report(lost_by_store)).collect();
        let in_queues: u64 = publishers.iter().map(|one| one.lost_in_queue).sum();
        Report {
            lost: Lost {
                ring: self.drops.victims,
                ring_cgroups: self.drops.cgroups,
                queue: self.report.lost.queue + in_queues,
                publisher: publishers.iter().map(|one| one.lost_by_publisher).sum(),
                store: lost_by_store,
                ..self.report.lost
            },
            publishers,
            totals: self.engine.totals(),
            residual: self.node.residual(),
            ..self.report
        }
    }
}
