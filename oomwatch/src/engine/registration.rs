//! Registrations: who comes and goes, by hand, by a path or by a runtime's word. A registration is a label. No ledger
//! moves.

use std::sync::Arc;

use super::Engine;
use crate::{
    containers::{container::Container, identity::Identity, registry::RegistryError},
    id::{CgroupId, ContainerId},
};

impl Engine {
    /// Registers a container by hand: from now on, kills reported in its cgroup are its own.
    pub(crate) fn register_by_hand(&mut self, container: Container) -> Result<(), RegistryError> {
        let cgroup = container.cgroup_id;
        let there = self.container(cgroup);
        let is_claim = there.is_some_and(|there| there.identity == Identity::Claimed);
        // A person's word beats a claim, unless it is refused for its id.
        if is_claim && self.registry.find(&self.tree, &container.id).is_none() {
            self.withdraw(cgroup);
        }
        self.registry.add_by_hand(&self.tree, container)?;
        if self.is_taken_out(cgroup) {
            self.forget_by_hand(cgroup);
        }
        self.newly_registered = true;
        self.note_border(cgroup);
        self.judge_below_borders();
        Ok(())
    }

    /// Registers a container.
    pub(crate) fn register(&mut self, container: Container) -> Result<(), RegistryError> {
        self.registry.add(&self.tree, container)?;
        self.newly_registered = true;
        Ok(())
    }

    /// As [`Self::register`], for a container that is what its path says.
    pub(super) fn register_found(&mut self, container: Container) -> Result<(), RegistryError> {
        let asked = self.names.askable(&container);
        self.registry.add_found(&self.tree, container)?;
        self.wanted.extend(asked);
        self.newly_registered = true;
        Ok(())
    }

    pub(crate) fn unregister(&mut self, id: &ContainerId) -> Result<Arc<Container>, RegistryError> {
        let named = |container: &Container| self.names.name(container);
        let cgroup = self.registry.meant(&self.tree, id, &named)?;
        let container = self.withdraw(cgroup);
        self.take_out(cgroup);
        self.judge_refused();
        self.note_border(cgroup);
        self.judge_below_borders();
        container.ok_or_else(|| RegistryError::Unknown(id.clone()))
    }

    /// Takes a cgroup's container out, and its numbers.
    pub(super) fn withdraw(&mut self, cgroup: CgroupId) -> Option<Arc<Container>> {
        let container = self.registry.take(&self.tree, cgroup)?;
        self.numbers.remove(&cgroup);
        self.forget_by_hand(cgroup);
        self.double_counts.forget(cgroup);
        Some(container)
    }

    /// A container's cgroup is gone: its id is free, and its runtime may start it again elsewhere.
    pub(super) fn cgroup_removed(&mut self, cgroup: CgroupId) {
        if let Some(id) = self.registry.cgroup_removed(&self.tree, cgroup) {
            self.names.left(&id, cgroup);
        }
    }
}
