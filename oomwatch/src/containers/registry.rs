//! The registered containers: which cgroup is which container, and what is known of it.
//!
//! Keyed by cgroup id, never by container id. The same container id may come back on a new cgroup, and kills of the
//! old cgroup still belong to the old container. A removed container stays until its cgroup's tombstone is forgotten.
//! Pure.

use std::{hash::BuildHasher as _, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::{
    containers::{by_path::by_path, container::Container},
    id::{CgroupId, ContainerId},
    topology::tree::Tree,
};

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
///
/// Most containers are found by their cgroup's path, and nothing else is known of them. They are not kept, but made
/// from the path when they are asked for: the tree has it anyway.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Containers of which more is known than the path says, or something else.
    given: HashMap<CgroupId, Arc<Container>>,
    /// The cgroups of containers that are what their path says.
    by_path: HashSet<CgroupId>,
    /// The living, by their id.
    live: HashTable<Live>,
    hasher: DefaultHashBuilder,
    /// Whether systemd's units are among those by path.
    units: bool,
}

/// A container that is alive: the hash of its id, and where it is.
#[derive(Clone, Copy, Debug)]
struct Live {
    hash: u64,
    cgroup: CgroupId,
}

impl Registry {
    /// An empty registry; `units` tells whether systemd's units are found by path.
    pub(crate) fn new(units: bool) -> Self {
        Self {
            units,
            ..Self::default()
        }
    }

    /// Registers a container.
    pub(crate) fn add(&mut self, tree: &Tree, container: Container) -> Result<(), RegistryError> {
        self.admit(tree, &container)?;
        self.given.insert(container.cgroup_id, Arc::new(container));
        Ok(())
    }

    /// Registers the container that [`by_path`] makes of its cgroup.
    pub(crate) fn add_found(
        &mut self,
        tree: &Tree,
        container: Container,
    ) -> Result<(), RegistryError> {
        // A path is forgotten with its tombstone, before the container is.
        if !tree.is_live(container.cgroup_id) {
            return self.add(tree, container);
        }
        self.admit(tree, &container)?;
        self.by_path.insert(container.cgroup_id);
        Ok(())
    }

    /// Takes the id, if both it and the cgroup are free.
    fn admit(&mut self, tree: &Tree, container: &Container) -> Result<(), RegistryError> {
        if self.find(tree, &container.id).is_some() {
            return Err(RegistryError::DuplicateId(container.id.clone()));
        }
        let cgroup = container.cgroup_id;
        if let Some(other) = self.get(tree, cgroup) {
            if self.find(tree, &other.id).is_some() {
                return Err(RegistryError::DuplicateCgroup {
                    id: container.id.clone(),
                    other: other.id.clone(),
                });
            }
            self.drop_container(cgroup);
        }
        let hash = self.hash(&container.id);
        let live = Live { hash, cgroup };
        self.live.insert_unique(hash, live, |live| live.hash);
        Ok(())
    }

    /// Adds a container whose cgroup is gone, for late events. Its id may be in use again.
    pub(crate) fn add_removed(&mut self, container: Container) {
        let cgroup = container.cgroup_id;
        if !self.contains(cgroup) {
            self.given.insert(cgroup, Arc::new(container));
        }
    }

    /// Removes a container at its owner's wish; its kills count as unregistered from now on.
    pub(crate) fn remove(
        &mut self,
        tree: &Tree,
        id: &ContainerId,
    ) -> Result<Arc<Container>, RegistryError> {
        let container = self
            .find(tree, id)
            .and_then(|cgroup| self.get(tree, cgroup))
            .ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        self.free_id(&container);
        self.drop_container(container.cgroup_id);
        Ok(container)
    }

    /// The cgroup is gone: frees the id for reuse, and keeps the container for late events.
    pub(crate) fn cgroup_removed(&mut self, tree: &Tree, cgroup: CgroupId) {
        if let Some(container) = self.get(tree, cgroup) {
            self.free_id(&container);
        }
    }

    /// Forgets a removed cgroup for good.
    pub(crate) fn forget(&mut self, cgroup: CgroupId) {
        if let Some(container) = self.given.get(&cgroup).cloned() {
            self.free_id(&container);
        }
        self.drop_container(cgroup);
    }

    /// The container registered on exactly this cgroup, dead or alive.
    pub(crate) fn get(&self, tree: &Tree, cgroup: CgroupId) -> Option<Arc<Container>> {
        if self.by_path.contains(&cgroup) {
            by_path(tree, cgroup, self.units).map(Arc::new)
        } else {
            self.given.get(&cgroup).cloned()
        }
    }

    /// Whether a container is registered on exactly this cgroup, dead or alive.
    pub(crate) fn contains(&self, cgroup: CgroupId) -> bool {
        self.by_path.contains(&cgroup) || self.given.contains_key(&cgroup)
    }

    /// The cgroups of all that are alive, in order.
    pub(crate) fn live_cgroups(&self) -> Vec<CgroupId> {
        let mut cgroups: Vec<_> = self.live.iter().map(|live| live.cgroup).collect();
        cgroups.sort_unstable();
        cgroups
    }

    /// Number of containers that are alive.
    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// The cgroup of the living container with this id.
    pub(crate) fn find(&self, tree: &Tree, id: &ContainerId) -> Option<CgroupId> {
        let hash = self.hash(id);
        let has_id = |live: &Live| {
            let found = (live.hash == hash).then(|| self.get(tree, live.cgroup));
            found.flatten().is_some_and(|found| found.id == *id)
        };
        self.live.find(hash, has_id).map(|live| live.cgroup)
    }

    fn free_id(&mut self, container: &Container) {
        let hash = self.hash(&container.id);
        let cgroup = container.cgroup_id;
        if let Ok(entry) = self.live.find_entry(hash, |live| live.cgroup == cgroup) {
            entry.remove();
        }
    }

    fn drop_container(&mut self, cgroup: CgroupId) {
        self.given.remove(&cgroup);
        self.by_path.remove(&cgroup);
    }

    fn hash(&self, id: &ContainerId) -> u64 {
        self.hasher.hash_one(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::{container::ContainerDetails, identity::Identity};

    fn container(id: &str, cgroup: u64) -> Container {
        Container {
            id: ContainerId::new(id).unwrap(),
            cgroup_id: CgroupId(cgroup),
            identity: Identity::Manual,
            inside: None,
            details: ContainerDetails::default(),
        }
    }

    const POD: CgroupId = CgroupId(2);
    const OTHER: CgroupId = CgroupId(3);

    fn tree() -> Tree {
        let mut tree = Tree::new(CgroupId::ROOT);
        tree.insert(POD, CgroupId::ROOT, b"a");
        tree.insert(OTHER, CgroupId::ROOT, b"b");
        tree
    }

    /// As it is found by the path of its cgroup.
    fn found(tree: &Tree, cgroup: CgroupId) -> Container {
        by_path(tree, cgroup, false).unwrap()
    }

    #[test]
    fn one_that_is_gone_leaves_its_id_to_another() {
        let (tree, mut registry) = (tree(), Registry::default());
        registry.add(&tree, container("a", 3)).unwrap();
        registry.add_removed(container("a", 2));
        let gone = registry.get(&tree, CgroupId(2)).unwrap();
        assert_eq!(gone.id.as_str(), "a");
        registry.cgroup_removed(&tree, CgroupId(2));
        assert_eq!(registry.live_count(), 1);
    }

    #[test]
    fn ids_and_cgroups_are_unique_among_the_living() {
        let (tree, mut registry) = (tree(), Registry::default());
        registry.add(&tree, container("a", 2)).unwrap();
        assert!(matches!(
            registry.add(&tree, container("a", 3)),
            Err(RegistryError::DuplicateId(_))
        ));
        assert!(matches!(
            registry.add(&tree, container("b", 2)),
            Err(RegistryError::DuplicateCgroup { .. })
        ));
        assert_eq!(registry.live_count(), 1);
    }

    #[test]
    fn an_id_may_come_back_on_a_new_cgroup() {
        let (tree, mut registry) = (tree(), Registry::default());
        registry.add(&tree, container("a", 2)).unwrap();
        registry.cgroup_removed(&tree, CgroupId(2));
        registry.add(&tree, container("a", 3)).unwrap();
        assert!(registry.get(&tree, CgroupId(2)).is_some());
        registry.forget(CgroupId(2));
        assert!(registry.get(&tree, CgroupId(2)).is_none());
        assert_eq!(registry.live_count(), 1);
    }

    #[test]
    fn removing_an_unknown_id_names_it() {
        let error = Registry::default().remove(&tree(), &ContainerId::new("x").unwrap());
        assert_eq!(
            error.unwrap_err().to_string(),
            "no container x is registered"
        );
    }

    #[test]
    fn what_a_path_says_is_not_kept() {
        let (tree, mut registry) = (tree(), Registry::default());
        registry.add_found(&tree, found(&tree, POD)).unwrap();
        registry.add(&tree, container("x", OTHER.0)).unwrap();
        assert!(registry.by_path.contains(&POD) && registry.given.contains_key(&OTHER));
        assert_eq!(
            registry.get(&tree, POD).as_deref(),
            Some(&found(&tree, POD))
        );
        let again = registry.add(&tree, container("/a", 9));
        assert!(matches!(again, Err(RegistryError::DuplicateId(_))));
        registry
            .remove(&tree, &ContainerId::new("/a").unwrap())
            .unwrap();
        assert!(!registry.contains(POD));
        assert_eq!(registry.live_count(), 1);
    }

    /// The path is forgotten first.
    #[test]
    fn a_dead_cgroups_container_is_kept() {
        let (mut tree, mut registry) = (tree(), Registry::default());
        let late = found(&tree, POD);
        tree.remove(POD, 0);
        registry.add_found(&tree, late).unwrap();
        tree.expire(u64::MAX);
        assert!(registry.get(&tree, POD).is_some());
        registry.forget(POD);
        assert_eq!(registry.live_count(), 0);
    }

    #[test]
    fn many_are_found_again_by_id() {
        let (mut tree, mut registry) = (tree(), Registry::default());
        for number in 10..1_000 {
            let cgroup = CgroupId(number);
            tree.insert(cgroup, POD, format!("c{number}").as_bytes());
            registry.add_found(&tree, found(&tree, cgroup)).unwrap();
        }
        for number in 10..1_000 {
            let id = ContainerId::new(&format!("/a/c{number}")).unwrap();
            assert_eq!(registry.find(&tree, &id), Some(CgroupId(number)));
        }
    }
}
