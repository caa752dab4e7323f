//! The registered containers: which cgroup is which container, and what is known of it.
//!
//! Keyed by cgroup id, never by container id. Two containers may have one id: of two runtimes, or one inside another.
//! The same id may also come back on a new cgroup, and kills of the old cgroup still belong to the old container. A
//! removed container stays until its cgroup's tombstone is forgotten. Pure.

use std::{hash::BuildHasher as _, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::{
    containers::{by_path::by_path, container::Container, identity::Identity},
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
    /// Several containers of this id are alive.
    #[error("several containers are called {id}: name one of {}", keys.join(", "))]
    Ambiguous {
        /// What they are called.
        id: ContainerId,
        /// Their keys, `runtime/realm/id`, or the paths of their cgroups.
        keys: Vec<String>,
    },
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

    /// Registers a container on a free cgroup. Somebody may have registered its id elsewhere.
    pub(crate) fn add(&mut self, tree: &Tree, container: Container) -> Result<(), RegistryError> {
        self.admit(tree, &container)?;
        self.given.insert(container.cgroup_id, Arc::new(container));
        Ok(())
    }

    /// Registers a container by hand. No other container but a claimed one may have its id.
    pub(crate) fn add_by_hand(
        &mut self,
        tree: &Tree,
        container: Container,
    ) -> Result<(), RegistryError> {
        if self.find(tree, &container.id).is_some() {
            return Err(RegistryError::DuplicateId(container.id));
        }
        self.add(tree, container)
    }

    /// Registers the container that [`by_path`] makes of its cgroup.
    pub(crate) fn add_found(
        &mut self,
        tree: &Tree,
        container: Container,
    ) -> Result<(), RegistryError> {
        // A path is forgotten with its tombstone, before the container is.
        let cgroup = container.cgroup_id;
        let is_made_again = match container.identity {
            Identity::Path => true,
            // A unit may have got its path for an id.
            Identity::Unit => by_path(tree, cgroup, self.units).as_ref() == Some(&container),
            _ => false,
        };
        if !tree.is_live(cgroup) || !is_made_again {
            return self.add(tree, container);
        }
        self.admit(tree, &container)?;
        self.by_path.insert(cgroup);
        Ok(())
    }

    /// Takes the id, if the cgroup is free.
    fn admit(&mut self, tree: &Tree, container: &Container) -> Result<(), RegistryError> {
        let cgroup = container.cgroup_id;
        if let Some(other) = self.get(tree, cgroup) {
            if self.is_live(&other) {
                return Err(RegistryError::DuplicateCgroup {
                    id: container.id.clone(),
                    other: other.id.clone(),
                });
            }
            self.drop_container(cgroup);
        }
        let hash = self.hash(container.id.as_str());
        let live = Live { hash, cgroup };
        self.live.insert_unique(hash, live, |live| live.hash);
        Ok(())
    }

    /// Adds a container whose cgroup is gone, for late events.
    pub(crate) fn add_removed(&mut self, container: Container) {
        let cgroup = container.cgroup_id;
        if !self.contains(cgroup) {
            self.given.insert(cgroup, Arc::new(container));
        }
    }

    /// Takes a cgroup's container out; its kills count as unregistered from now on.
    pub(crate) fn take(&mut self, tree: &Tree, cgroup: CgroupId) -> Option<Arc<Container>> {
        let container = self.get(tree, cgroup)?;
        self.free_id(&container);
        self.drop_container(cgroup);
        Some(container)
    }

    /// The cgroup is gone: frees the id for reuse, and keeps the container for late events. Returns the id.
    pub(crate) fn cgroup_removed(&mut self, tree: &Tree, cgroup: CgroupId) -> Option<ContainerId> {
        let container = self.get(tree, cgroup)?;
        let was_live = self.free_id(&container);
        was_live.then(|| container.id.clone())
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

    /// The living containers with this id.
    pub(crate) fn with_id(&self, tree: &Tree, id: &ContainerId) -> Vec<Arc<Container>> {
        let hash = self.hash(id.as_str());
        let alike = self.live.iter_hash(hash).filter(|live| live.hash == hash);
        let found = alike.filter_map(|live| self.get(tree, live.cgroup));
        found.filter(|found| found.id == *id).collect()
    }

    /// The cgroup of a living container with this id that has it on evidence.
    pub(crate) fn find(&self, tree: &Tree, id: &ContainerId) -> Option<CgroupId> {
        let mut found = self.with_id(tree, id).into_iter();
        let on_evidence = found.find(|found| found.identity != Identity::Claimed)?;
        Some(on_evidence.cgroup_id)
    }

    /// Whether a living container has this id on evidence. It makes no container of its path, as [`Self::find`] does: a
    /// listing asks for each of its containers, and the hash tells nearly all apart.
    pub(crate) fn has_evidence(&self, id: &str) -> bool {
        let hash = self.hash(id);
        let mut alike = self.live.iter_hash(hash).filter(|live| live.hash == hash);
        alike.any(|live| match self.given.get(&live.cgroup) {
            Some(given) => given.id.as_str() == id && given.identity != Identity::Claimed,
            None => true,
        })
    }

    /// The living container that a person means: by its id, its key `runtime/realm/id`, or its cgroup's path. Of
    /// several with one id, a single one on evidence is meant. `named` adds what runtimes tell, and with it the key.
    pub(crate) fn meant(
        &self,
        tree: &Tree,
        id: &ContainerId,
        named: &dyn Fn(&Container) -> Option<Arc<Container>>,
    ) -> Result<CgroupId, RegistryError> {
        let alike = self.with_id(tree, id);
        let on_evidence = |found: &&Arc<Container>| found.identity != Identity::Claimed;
        let better: Vec<_> = alike.iter().filter(on_evidence).collect();
        match (better.as_slice(), alike.as_slice()) {
            ([one], _) => Ok(one.cgroup_id),
            ([], [one]) => Ok(one.cgroup_id),
            ([], []) => self
                .by_key(tree, id.as_str(), named)
                .ok_or_else(|| RegistryError::Unknown(id.clone())),
            _ => {
                let keys = alike.iter().map(|found| self.key(tree, found, named));
                let keys = keys.collect();
                Err(RegistryError::Ambiguous {
                    id: id.clone(),
                    keys,
                })
            }
        }
    }

    /// How a person names one of several with one id.
    fn key(
        &self,
        tree: &Tree,
        container: &Container,
        named: &dyn Fn(&Container) -> Option<Arc<Container>>,
    ) -> String {
        let key = key_of(container, named);
        let mut alike = self.with_id(tree, &container.id).into_iter();
        let is_unique = alike
            .all(|other| other.cgroup_id == container.cgroup_id || key_of(&other, named) != key);
        let path = || tree.printable_path(container.cgroup_id);
        key.filter(|_| is_unique).or_else(path).unwrap_or_default()
    }

    fn by_key(
        &self,
        tree: &Tree,
        key: &str,
        named: &dyn Fn(&Container) -> Option<Arc<Container>>,
    ) -> Option<CgroupId> {
        if let Some(id) = Container::id_of_key(key) {
            let mut alike = self.with_id(tree, &id).into_iter();
            let meant = alike.find(|found| key_of(found, named).as_deref() == Some(key));
            return meant.map(|found| found.cgroup_id);
        }
        let mut live = self.live.iter();
        let is_at = |live: &&Live| {
            tree.path(live.cgroup)
                .is_some_and(|path| path == key.as_bytes())
        };
        live.find(is_at)
            .filter(|_| key.starts_with('/'))
            .map(|live| live.cgroup)
    }

    fn is_live(&self, container: &Container) -> bool {
        let hash = self.hash(container.id.as_str());
        let is_this = |live: &Live| live.cgroup == container.cgroup_id;
        self.live.find(hash, is_this).is_some()
    }

    /// Tells whether the container was alive.
    fn free_id(&mut self, container: &Container) -> bool {
        let hash = self.hash(container.id.as_str());
        let cgroup = container.cgroup_id;
        let entry = self.live.find_entry(hash, |live| live.cgroup == cgroup);
        entry.map(|entry| entry.remove()).is_ok()
    }

    fn drop_container(&mut self, cgroup: CgroupId) {
        self.given.remove(&cgroup);
        self.by_path.remove(&cgroup);
    }

    fn hash(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }
}

/// The key of a container with all that is known of it.
fn key_of(
    container: &Container,
    named: &dyn Fn(&Container) -> Option<Arc<Container>>,
) -> Option<String> {
    named(container).map_or_else(|| container.key(), |named| named.key())
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
            registry.add_by_hand(&tree, container("a", 3)),
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

    /// Of two realms.
    fn of_realm(realm: &str, cgroup: u64) -> Container {
        let details = ContainerDetails {
            runtime: Some("containerd".to_owned()),
            realm: Some(realm.to_owned()),
            ..ContainerDetails::default()
        };
        Container {
            identity: Identity::Runtime,
            details,
            ..container("web", cgroup)
        }
    }

    #[test]
    fn two_of_one_id_are_told_apart_by_their_keys() {
        let (tree, mut registry) = (tree(), Registry::default());
        registry.add(&tree, of_realm("a", 2)).unwrap();
        registry.add(&tree, of_realm("b/c", 3)).unwrap();
        let id = |text: &str| ContainerId::new(text).unwrap();
        let error = registry.meant(&tree, &id("web"), &|_| None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("containerd/a/web") && text.contains("containerd/b%2Fc/web"),
            "{text}"
        );
        assert_eq!(
            registry.meant(&tree, &id("containerd/a/web"), &|_| None),
            Ok(POD)
        );
        assert_eq!(
            registry.meant(&tree, &id("containerd/b%2Fc/web"), &|_| None),
            Ok(OTHER)
        );
        assert_eq!(registry.meant(&tree, &id("/b"), &|_| None), Ok(OTHER));
        for unknown in ["containerd/x/web", "/c", "a/b/c/web"] {
            assert!(matches!(
                registry.meant(&tree, &id(unknown), &|_| None),
                Err(RegistryError::Unknown(_))
            ));
        }
    }

    #[test]
    fn a_claim_stands_in_nobodys_way() {
        let (tree, mut registry) = (tree(), Registry::default());
        let claim = Container {
            identity: Identity::Claimed,
            ..container("a", 2)
        };
        registry.add(&tree, claim).unwrap();
        let a = ContainerId::new("a").unwrap();
        assert_eq!(registry.find(&tree, &a), None);
        assert_eq!(registry.meant(&tree, &a, &|_| None), Ok(POD));
        registry.add_by_hand(&tree, container("a", 3)).unwrap();
        assert_eq!(registry.meant(&tree, &a, &|_| None), Ok(OTHER));
    }

    #[test]
    fn removing_an_unknown_id_names_it() {
        let error = Registry::default().meant(&tree(), &ContainerId::new("x").unwrap(), &|_| None);
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
        let again = registry.add_by_hand(&tree, container("/a", 9));
        assert!(matches!(again, Err(RegistryError::DuplicateId(_))));
        registry.take(&tree, POD).unwrap();
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
