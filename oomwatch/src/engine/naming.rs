//! What runtimes report of their containers: names for events, and containers that no path gives away.

use std::sync::Arc;

use super::Engine;
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
        names::{SourceNumber, is_runtimes_id},
        sighting::{RuntimeApi, RuntimeKey, Sighting},
    },
    event::OomEvent,
    id::{CgroupId, ContainerId},
    log::{info, warn},
};

/// What an event lacks while the container's runtime has not reported its name.
const NAME: &str = "container.name";
/// The same where only an event's own details are known: those name no pod.
const POD: &str = "container.pod";

/// A container that is registered and exists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// The container, with the names that are known.
    pub container: Arc<Container>,
    /// Path of its cgroup, printable.
    pub cgroup_path: Option<String>,
    /// Kills that this run of the watcher reported in its cgroup and below.
    pub kills: u64,
    /// Kills that only the counter shows.
    pub counter_only: u64,
    /// The kernel's double counts.
    pub double_counts: u64,
}

impl Engine {
    /// Whether a source is connected, and has reported its containers.
    pub(crate) fn is_following(&self, source: SourceNumber, api: RuntimeApi) -> bool {
        self.names.is_following(source, api)
    }

    /// Takes in a sighting; returns the id and the cgroup of a container to be registered.
    pub(crate) fn sighted(
        &mut self,
        source: SourceNumber,
        sighting: Sighting,
        now_ns: u64,
    ) -> Option<(ContainerId, CgroupId)> {
        self.waiting.names_changed();
        match sighting {
            Sighting::Seen {
                api,
                key,
                cgroup_id,
                is_running,
                details,
            } => {
                let id = valid(&key.id, api)?;
                self.names
                    .seen((source, api), key.clone(), cgroup_id, *details);
                if cgroup_id.is_none() && is_running {
                    self.ask_for_place(source, &id, key);
                }
                cgroup_id.map(|cgroup_id| (id, cgroup_id))
            }
            Sighting::Details { api, key, details } => {
                valid(&key.id, api)?;
                self.names.told((source, api), key, *details);
                None
            }
            Sighting::Gone { key, .. } => {
                self.names.gone(source, &key, now_ns);
                None
            }
            Sighting::Listed { api, keys } => {
                self.names.listed((source, api), &keys, now_ns);
                None
            }
            Sighting::Lost { api } => {
                self.names.lost(source, api);
                None
            }
        }
    }

    /// Registers a container that a source reported, if nobody did so before. A leaf or a unit, registered for want
    /// of something better, gives way.
    pub(crate) fn register_seen(&mut self, id: ContainerId, cgroup_id: CgroupId) {
        if !self.tree.is_live(cgroup_id) || self.registry.find(&self.tree, &id).is_some() {
            return;
        }
        if let Some(other) = self.container(cgroup_id) {
            if !is_makeshift(&other) {
                return;
            }
            let _ = self.unregister(&other.id);
        }
        info!(container = %id, cgroup = cgroup_id.0, "registered");
        let container = Container {
            id,
            cgroup_id,
            identity: Identity::Runtime,
            inside: None,
            details: ContainerDetails::default(),
        };
        if let Err(error) = self.register(container) {
            warn!(%error, "cannot register a runtime's container");
        }
    }

    /// Asks a source where a container is, unless a path that root made has its id.
    fn ask_for_place(&mut self, source: SourceNumber, id: &ContainerId, key: RuntimeKey) {
        let is_placed = is_runtimes_id(&key.id) && self.registry.find(&self.tree, id).is_some();
        if !is_placed && self.names.take_unplaced(&key) {
            self.wanted.push((source, key));
        }
    }

    /// Containers for which a source should be asked.
    pub(crate) fn take_wanted(&mut self) -> Vec<(SourceNumber, RuntimeKey)> {
        std::mem::take(&mut self.wanted)
    }

    /// Adds the container's names to an event. Tells whether more may be known soon.
    pub(crate) fn name(&self, event: &mut OomEvent) -> bool {
        let Some(container) = &event.container else {
            return false;
        };
        let awaited = self.names.awaits(container);
        if let Some(named) = self.names.name(container) {
            event.container = Some(named);
        }
        let details = event.container.as_ref().map(|known| &known.details);
        let is_named = details.is_some_and(|details| details.name.is_some());
        let has_pod = details.is_some_and(|details| details.pod.is_some());
        let missing = &mut event.quality.missing;
        missing.retain(|name| ![NAME, POD].contains(name));
        match (awaited, is_named) {
            (false, _) => {}
            (true, false) => missing.push(NAME),
            (true, true) if has_pod => {}
            (true, true) => missing.push(POD),
        }
        awaited && !event.while_down
    }

    /// A registered container as it is now, by its cgroup.
    pub(crate) fn describe(&self, cgroup: CgroupId) -> Option<Registered> {
        let container = self.container(cgroup)?;
        let numbers = self.numbers_of(cgroup);
        let path = self.tree.path(cgroup);
        Some(Registered {
            container: self.names.name(&container).unwrap_or(container),
            cgroup_path: path.map(|path| crate::id::printable(&path)),
            kills: numbers.kills,
            counter_only: numbers.counter_only,
            double_counts: numbers.double_counts,
        })
    }

    pub(super) fn forget_names(&mut self, now_ns: u64) {
        let (tree, registry) = (&self.tree, &self.registry);
        self.names.expire(now_ns, |id| {
            let id = ContainerId::new(id).ok();
            id.is_some_and(|id| registry.find(tree, &id).is_some())
        });
    }
}

fn valid(id: &str, api: RuntimeApi) -> Option<ContainerId> {
    match ContainerId::new(id) {
        Ok(id) => Some(id),
        Err(error) => {
            warn!(source = %api, %error, "a runtime's container is left out");
            None
        }
    }
}

/// A leaf under its path, or a systemd unit.
fn is_makeshift(container: &Container) -> bool {
    container.id.as_str().starts_with('/')
        || container.details.runtime.as_deref() == Some("systemd")
}

#[cfg(test)]
mod tests;
