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
        self.look_anew();
        let seen = self.take_in_sighting(source, sighting, now_ns);
        self.judge_refused();
        seen
    }

    fn take_in_sighting(
        &mut self,
        source: SourceNumber,
        sighting: Sighting,
        now_ns: u64,
    ) -> Option<(ContainerId, CgroupId)> {
        match sighting {
            Sighting::Seen {
                api,
                key,
                cgroup_id,
                is_running,
                details,
            } => {
                check(&key.id, api)?;
                let is_asked_for = cgroup_id.is_none() && is_running && !self.is_placed(&key.id);
                let unplaced = is_asked_for.then(|| key.clone());
                let placed = cgroup_id.and_then(|cgroup_id| {
                    let id = ContainerId::new(&key.id).ok()?;
                    Some((id, cgroup_id))
                });
                let before = self.names.place_of(&key);
                self.names.seen((source, api), key, cgroup_id, *details);
                let tree = &self.tree;
                let is_live = |id| tree.is_live(id);
                if let Some(key) = unplaced.filter(|key| self.names.take_unplaced(key, is_live)) {
                    self.wanted.push((source, key));
                }
                if let (Some(before), Some((id, now))) = (before, &placed)
                    && before != *now
                {
                    self.moved_away(id, before);
                }
                placed
            }
            Sighting::Details { api, key, details } => {
                check(&key.id, api)?;
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

    /// Registers a container on the cgroup that its runtime names. What a path made of the cgroup gives way, and so
    /// does a path elsewhere that has the id. What a person registered or took out stands.
    pub(crate) fn register_seen(&mut self, id: &ContainerId, cgroup_id: CgroupId) {
        if !self.tree.is_live(cgroup_id) || self.is_taken_out(cgroup_id) {
            return;
        }
        if let Some(there) = self.container(cgroup_id) {
            if !self.gives_way(&there, id) {
                return;
            }
            self.replace(&there, id);
        }
        info!(container = %id, cgroup = cgroup_id.0, "registered");
        let container = Container {
            id: id.clone(),
            cgroup_id,
            identity: Identity::Runtime,
            inside: None,
            details: ContainerDetails::default(),
        };
        if let Err(error) = self.register(container) {
            warn!(%error, "cannot register a runtime's container");
        }
        for other in self.registry.with_id(&self.tree, id) {
            self.judge_again(other.cgroup_id);
        }
        self.note_border(cgroup_id);
    }

    /// A runtime says that its container is elsewhere now. What is still there has its name by no word.
    fn moved_away(&mut self, id: &ContainerId, from: CgroupId) {
        let there = self.container(from);
        let is_this =
            there.is_some_and(|there| there.identity == Identity::Runtime && there.id == *id);
        if is_this && self.tree.is_live(from) && !self.names.is_said_of(id, from) {
            self.withdraw(from);
            self.discover(from);
        }
    }

    /// Whether a registration gives way to a runtime's word on the same cgroup.
    fn gives_way(&self, there: &Container, id: &ContainerId) -> bool {
        match there.identity {
            Identity::Manual => false,
            // The id is right, and its names come by themselves.
            Identity::Path => there.id != *id,
            // Several containers in one cgroup, as with Kata: it is the sandbox's.
            Identity::Runtime => there.id != *id && self.names.is_sandbox(id, there.cgroup_id),
            _ => true,
        }
    }

    fn replace(&mut self, there: &Container, id: &ContainerId) {
        if there.id == *id {
            self.registry.take(&self.tree, there.cgroup_id);
        } else {
            self.withdraw(there.cgroup_id);
            self.begin_numbers(there.cgroup_id);
        }
    }

    /// Whether a path that root made has an id that a runtime made up: no source need be asked where it is.
    fn is_placed(&self, id: &str) -> bool {
        is_runtimes_id(id) && self.registry.has_evidence(id)
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
        if let Some(named) = self.named(container) {
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

    /// The container with all its known details, and so is the one that it is in.
    fn named(&self, container: &Container) -> Option<Arc<Container>> {
        let Some(outer) = &container.inside else {
            return self.names.name(container);
        };
        Some(Arc::new(Container {
            inside: self.names.name(outer).or_else(|| Some(Arc::clone(outer))),
            ..container.clone()
        }))
    }

    /// A registered container as it is now, by its cgroup.
    pub(crate) fn describe(&self, cgroup: CgroupId) -> Option<Registered> {
        let container = self.container(cgroup)?;
        let numbers = self.numbers_of(cgroup);
        Some(Registered {
            container: self.named(&container).unwrap_or(container),
            cgroup_path: self.tree.printable_path(cgroup),
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

/// `None`, and a warning, where no container can have the id.
fn check(id: &str, api: RuntimeApi) -> Option<()> {
    ContainerId::check(id)
        .inspect_err(|error| warn!(source = %api, %error, "a runtime's container is left out"))
        .ok()
}

#[cfg(test)]
mod tests;
