//! Containers that are found by the paths of their cgroups: when they are registered, and when not.

use super::Engine;
use crate::{
    containers::{
        by_path::{CgroupDiscovery, container_at, leaf_at, unit_at},
        container::Container,
    },
    id::{CgroupId, printable},
    log::warn,
};

/// Levels below the root within which a container is recognised by its path. Runtimes inside of runtimes make some 20
/// levels. Whoever owns a delegated cgroup makes as many as they like. Without the bound, they could have all of
/// their paths made again and again.
pub(super) const DISCOVERY_LEVELS: usize = 128;

impl Engine {
    /// Whether the engine registers containers by itself.
    pub(super) fn discovers(&self) -> bool {
        self.units || self.discovery != CgroupDiscovery::Off
    }

    /// A container may have come back under an id that seemed taken.
    pub(super) fn discover_refused(&mut self) {
        if !self.discovers() {
            return;
        }
        let live = self.tree.live();
        let unknown: Vec<CgroupId> = live.filter(|&id| !self.registry.contains(id)).collect();
        for id in unknown {
            self.discover(id);
        }
    }

    /// Registers a cgroup as a container, if its path says so.
    pub(super) fn discover(&mut self, id: CgroupId) {
        if self.discovers()
            && let Some(container) = self.container_at(id)
            && let Err(error) = self.register_found(container)
        {
            warn!(%error, cgroup = id.0, "cannot register a discovered container");
        }
    }

    /// The same for a cgroup whose removal is its first record.
    pub(super) fn discover_removed(&mut self, id: CgroupId) {
        if self.discovers()
            && let Some(container) = self.container_at(id)
        {
            self.register_removed(container);
        }
    }

    /// Registers a container whose cgroup is gone, for the kills that happened in it.
    pub(crate) fn register_removed(&mut self, container: Container) {
        self.registry.add_removed(container);
        self.newly_registered = true;
    }

    /// The container that a cgroup's path makes of it.
    pub(super) fn container_at(&self, id: CgroupId) -> Option<Container> {
        let path = printable(&self.tree.path_within(id, DISCOVERY_LEVELS)?);
        let by_form = || container_at(id, &path).filter(|_| self.discovery != CgroupDiscovery::Off);
        let unit = || unit_at(id, &path).filter(|_| self.units);
        let is_leaf = self.discovery == CgroupDiscovery::Leaves && self.tree.is_leaf(id);
        let leaf = || leaf_at(id, &path).filter(|_| is_leaf);
        by_form().or_else(unit).or_else(leaf)
    }

    /// A cgroup with a child is no leaf; a container that was recognised stays one.
    pub(super) fn leaf_gained_child(&mut self, parent: CgroupId) {
        if self.discovery != CgroupDiscovery::Leaves {
            return;
        }
        let Some(former) = self.container(parent) else {
            return;
        };
        let path = self
            .tree
            .path(former.cgroup_id)
            .map(|path| printable(&path));
        if path.as_deref() == Some(former.id.as_str()) {
            let id = former.id.clone();
            // It was found a line ago.
            let _ = self.unregister(&id);
        }
    }
}
