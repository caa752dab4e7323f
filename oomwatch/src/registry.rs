//! The registered containers: which cgroup is which container, and what is known of it.
//!
//! Keyed by cgroup id, never by container id: the same container id may come back on a new
//! cgroup, and kills of the old one still belong to the old one. A removed container stays
//! until its cgroup's tombstone is forgotten. Pure.

use std::{collections::HashMap, sync::Arc};

use crate::{CgroupId, ContainerId};

/// A container that oomwatch answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Name it was registered under.
    pub id: ContainerId,
    /// Its cgroup; kills in cgroups below belong to it too.
    pub cgroup_id: CgroupId,
    /// What else is known.
    pub details: ContainerDetails,
}

/// What a source of containers knows beside the id. All of it is untrusted text, made
/// printable when it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerDetails {
    /// Name of the container, as a person gave it.
    pub name: Option<String>,
    /// Runtime or engine, such as `containerd`.
    pub runtime: Option<String>,
    /// Image reference.
    pub image: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes pod UID.
    pub pod_uid: Option<String>,
    /// Kubernetes namespace, or containerd namespace outside of Kubernetes.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Why a registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The id is in use by a container that is alive.
    #[error("container id {0} is registered already")]
    DuplicateId(ContainerId),
    /// Another container is registered on this cgroup.
    #[error("the cgroup of container {id} is registered already, as {other}")]
    DuplicateCgroup {
        /// The id of the refused registration.
        id: ContainerId,
        /// The id in place.
        other: ContainerId,
    },
    /// No container of this id is alive.
    #[error("no container {0} is registered")]
    Unknown(ContainerId),
}

/// All registered containers, the dead ones that are still remembered included.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_cgroup: HashMap<CgroupId, Arc<Container>>,
    live_ids: HashMap<ContainerId, CgroupId>,
}

impl Registry {
    /// Registers a container.
    pub(crate) fn add(&mut self, container: Container) -> Result<(), RegistryError> {
        if self.live_ids.contains_key(&container.id) {
            return Err(RegistryError::DuplicateId(container.id));
        }
        if let Some(other) = self.by_cgroup.get(&container.cgroup_id)
            && self.live_ids.contains_key(&other.id)
        {
            return Err(RegistryError::DuplicateCgroup {
                id: container.id,
                other: other.id.clone(),
            });
        }
        self.live_ids
            .insert(container.id.clone(), container.cgroup_id);
        self.by_cgroup
            .insert(container.cgroup_id, Arc::new(container));
        Ok(())
    }

    /// A container of a cgroup that is gone, for late events; its id may be in use again.
    pub(crate) fn add_removed(&mut self, container: Container) {
        let cgroup = container.cgroup_id;
        self.by_cgroup
            .entry(cgroup)
            .or_insert_with(|| Arc::new(container));
    }

    /// Takes a container out at its owner's wish; its kills count as unregistered from now on.
    pub(crate) fn remove(&mut self, id: &ContainerId) -> Result<Arc<Container>, RegistryError> {
        self.live_ids
            .remove(id)
            .and_then(|cgroup| self.by_cgroup.remove(&cgroup))
            .ok_or_else(|| RegistryError::Unknown(id.clone()))
    }

    /// The cgroup is gone: frees the id for reuse, and keeps the container for late events.
    pub(crate) fn cgroup_removed(&mut self, cgroup: CgroupId) {
        if let Some(container) = self.by_cgroup.get(&cgroup)
            && self.live_ids.get(&container.id) == Some(&cgroup)
        {
            self.live_ids.remove(&container.id);
        }
    }

    /// Forgets a removed cgroup for good.
    pub(crate) fn forget(&mut self, cgroup: CgroupId) {
        self.cgroup_removed(cgroup);
        self.by_cgroup.remove(&cgroup);
    }

    /// The container registered on exactly this cgroup, dead or alive.
    pub(crate) fn get(&self, cgroup: CgroupId) -> Option<&Arc<Container>> {
        self.by_cgroup.get(&cgroup)
    }

    /// Number of containers that are alive.
    pub(crate) fn live_count(&self) -> usize {
        self.live_ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, cgroup: u64) -> Container {
        Container {
            id: ContainerId::new(id).unwrap(),
            cgroup_id: CgroupId(cgroup),
            details: ContainerDetails::default(),
        }
    }

    #[test]
    fn one_that_is_gone_leaves_its_id_to_another() {
        let mut registry = Registry::default();
        registry.add(container("a", 3)).unwrap();
        registry.add_removed(container("a", 2));
        assert_eq!(registry.get(CgroupId(2)).unwrap().id.as_str(), "a");
        registry.cgroup_removed(CgroupId(2));
        assert_eq!(registry.live_count(), 1);
    }

    #[test]
    fn ids_and_cgroups_are_unique_among_the_living() {
        let mut registry = Registry::default();
        registry.add(container("a", 2)).unwrap();
        assert!(matches!(
            registry.add(container("a", 3)),
            Err(RegistryError::DuplicateId(_))
        ));
        assert!(matches!(
            registry.add(container("b", 2)),
            Err(RegistryError::DuplicateCgroup { .. })
        ));
        assert_eq!(registry.live_count(), 1);
    }

    #[test]
    fn an_id_may_come_back_on_a_new_cgroup() {
        let mut registry = Registry::default();
        registry.add(container("a", 2)).unwrap();
        registry.cgroup_removed(CgroupId(2));
        registry.add(container("a", 3)).unwrap();
        assert!(registry.get(CgroupId(2)).is_some());
        registry.forget(CgroupId(2));
        assert!(registry.get(CgroupId(2)).is_none());
        assert_eq!(registry.live_count(), 1);
    }

    #[test]
    fn removing_an_unknown_id_names_it() {
        let error = Registry::default().remove(&ContainerId::new("x").unwrap());
        assert_eq!(
            error.unwrap_err().to_string(),
            "no container x is registered"
        );
    }
}
