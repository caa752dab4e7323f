//! Containers that are found by the paths of their cgroups: when they are registered, and on what evidence.
//!
//! A path is evidence if root made it and no other container is above it. All else is a claim: it is registered and
//! shown as one, gets nobody's name and takes nobody's place. What root made is only a claim too while another
//! container has the id, or while its runtime says that it is elsewhere. Such a claim is looked at again as soon as
//! that changes.

use std::sync::Arc;

use super::Engine;
use crate::{
    containers::{
        by_path::{CgroupDiscovery, container_at, leaf_at, place_at, unit_at},
        container::{Container, ContainerDetails},
        identity::Identity,
        path::Kind,
    },
    event::{Place, PlaceKind},
    id::{CgroupId, ContainerId, into_printable},
    log::warn,
    topology::owners::MadeBy,
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

    /// Registers a cgroup as a container, if its path says so and nobody took it out.
    pub(super) fn discover(&mut self, id: CgroupId) {
        if self.discovers()
            && !self.is_said(id)
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
    pub(super) fn container_at(&mut self, id: CgroupId) -> Option<Container> {
        let path = into_printable(self.tree.path_within(id, DISCOVERY_LEVELS)?);
        let by_form = container_at(id, &path).filter(|_| self.discovery != CgroupDiscovery::Off);
        if let Some(found) = by_form {
            return Some(self.judged(found));
        }
        self.note_place(id, &path);
        if self.units
            && let Some(unit) = unit_at(id, &path)
            && self.outer(id).is_none()
        {
            return self.judged_unit(unit, &path);
        }
        let is_leaf = self.discovery == CgroupDiscovery::Leaves && self.tree.is_leaf(id);
        leaf_at(id, &path).filter(|_| is_leaf)
    }

    /// Remembers a pod's or an engine's cgroup that root made.
    fn note_place(&mut self, id: CgroupId, path: &str) {
        if place_at(path).is_some() && self.outer(id).is_none() && self.made_by(id) == MadeBy::Root
        {
            self.places.insert(id);
        }
    }

    /// The place that a victim of no container was in.
    pub(super) fn place_of(&self, victim: CgroupId) -> Option<Box<Place>> {
        let mut above = self.tree.lineage(victim);
        let id = above.find(|id| self.places.contains(id))?;
        let found = place_at(&self.tree.printable_path(id)?)?;
        Some(Box::new(Place {
            kind: match found.kind {
                Kind::Build => PlaceKind::Build,
                Kind::Monitor => PlaceKind::Monitor,
                Kind::Overhead => PlaceKind::Overhead,
                Kind::Sandbox => PlaceKind::Sandbox,
                _ => PlaceKind::Pod,
            },
            id: found.id,
            runtime: found.details.runtime,
            realm: found.details.realm,
            pod_uid: found.details.pod_uid,
        }))
    }

    /// Decides on what evidence a path's container has its id.
    fn judged(&mut self, found: Container) -> Container {
        if let Some(outer) = self.outer(found.cgroup_id) {
            let realm = format!("in:{}", outer.cgroup_id);
            let inside = match outer.identity {
                Identity::Claimed => outer.inside.clone(),
                _ => Some(outer),
            };
            return claimed(found, Some(realm), inside);
        }
        if let Some(above) = self.taken_out_above(found.cgroup_id) {
            return claimed(found, Some(format!("in:{above}")), None);
        }
        match self.made_by(found.cgroup_id) {
            MadeBy::Root if self.is_free(&found) => found,
            MadeBy::Root => {
                self.refused.insert(found.cgroup_id);
                claimed(found, None, None)
            }
            MadeBy::User(uid) => claimed(found, Some(format!("uid:{uid}")), None),
            MadeBy::Unknown => claimed(found, None, None),
        }
    }

    /// A unit has its name only where root made its cgroup. Elsewhere it is a claim under its path.
    fn judged_unit(&mut self, unit: Container, path: &str) -> Option<Container> {
        let realm = match self.made_by(unit.cgroup_id) {
            MadeBy::Root => return Some(unit),
            MadeBy::User(uid) => Some(format!("uid:{uid}")),
            MadeBy::Unknown => None,
        };
        let id = ContainerId::new(path).ok()?;
        Some(claimed(Container { id, ..unit }, realm, None))
    }

    /// The nearest cgroup above whose container a person took out. What is below is in that container all the same.
    fn taken_out_above(&self, id: CgroupId) -> Option<CgroupId> {
        let mut above = self.tree.lineage(id).skip(1);
        above.find(|id| self.is_taken_out(*id))
    }

    /// The nearest container above a cgroup. What a person registered may be anything, such as a pod: its path tells.
    fn outer(&self, id: CgroupId) -> Option<Arc<Container>> {
        let above = self.tree.lineage(id).skip(1);
        let mut containers = above
            .filter(|&id| self.registry.contains(id))
            .filter_map(|id| self.container(id));
        containers.find(|outer| match outer.identity {
            Identity::Manual => self.has_containers_path(outer.cgroup_id),
            _ => is_border(outer),
        })
    }

    fn has_containers_path(&self, id: CgroupId) -> bool {
        let path = self.tree.printable_path(id);
        path.is_some_and(|path| container_at(id, &path).is_some())
    }

    /// Whether nobody else has the id, and its runtime does not say that it is elsewhere.
    fn is_free(&self, found: &Container) -> bool {
        let (cgroup, runtime) = (found.cgroup_id, found.details.runtime.as_deref());
        let place = self.names.place(&found.id, runtime);
        let is_elsewhere = place.is_some_and(|place| place != cgroup && self.tree.is_live(place));
        let is_same = |other: &Container| {
            let others = other.details.runtime.as_deref();
            others == runtime || others.is_none() || runtime.is_none()
        };
        let mut alike = self.registry.with_id(&self.tree, &found.id).into_iter();
        !is_elsewhere
            && !alike.any(|other| {
                other.cgroup_id != cgroup
                    && other.identity.is_evidence()
                    && is_same(&other)
                    && !self.is_of_a_part(&other)
            })
    }

    /// Whether only runtimes that speak for a part of the host, such as a user's, say that this is a container. Their ids
    /// are not the host's.
    fn is_of_a_part(&self, container: &Container) -> bool {
        container.identity == Identity::Runtime
            && self.names.is_of_a_part(&container.id, container.cgroup_id)
    }

    /// Who made a cgroup.
    fn made_by(&mut self, cgroup: CgroupId) -> MadeBy {
        let parent = self.tree.parent(cgroup);
        parent.map_or(MadeBy::Unknown, |parent| self.made_in(parent))
    }

    /// Who makes cgroups in a directory: the first owner on the way from the root that is not root. Within a batch of
    /// records each directory is looked at once. All of them are older.
    fn made_in(&mut self, directory: CgroupId) -> MadeBy {
        let mut made_by = MadeBy::Root;
        let mut unknown = Vec::new();
        for id in self.tree.lineage(directory) {
            if let Some(&known) = self.made_in.get(&id) {
                made_by = known;
                break;
            }
            unknown.push(id);
        }
        for id in unknown.into_iter().rev() {
            if made_by == MadeBy::Root {
                let path = self.tree.path(id);
                made_by = path.map_or(MadeBy::Unknown, |path| self.owners.owner(&path));
            }
            self.made_in.insert(id, made_by);
        }
        made_by
    }

    /// Judges a container again that is registered by its path.
    pub(super) fn judge_again(&mut self, cgroup: CgroupId) {
        let Some(there) = self.container(cgroup) else {
            return;
        };
        let is_by_path = matches!(there.identity, Identity::Path | Identity::Claimed);
        if !is_by_path || is_makeshift(&there) || !self.tree.is_live(cgroup) {
            return;
        }
        if let Some(container) = self.container_at(cgroup).filter(|new| *new != *there) {
            self.registry.take(&self.tree, cgroup);
            // The cgroup is free.
            let _ = self.register_found(container);
        }
    }

    /// An id may have become free, or its runtime may say something else: claims of what root made are judged again.
    pub(super) fn judge_refused(&mut self) {
        for cgroup in std::mem::take(&mut self.refused) {
            self.judge_again(cgroup);
        }
    }

    /// Containers were registered above cgroups that were there before: what is below them is judged again.
    pub(crate) fn judge_below_borders(&mut self) {
        if self.borders.is_empty() {
            return;
        }
        let borders = std::mem::take(&mut self.borders);
        let below = |&id: &CgroupId| {
            self.tree
                .lineage(id)
                .skip(1)
                .any(|id| borders.contains(&id))
        };
        let inner: Vec<_> = self.registry.live_cgroups();
        let inner: Vec<_> = inner.into_iter().filter(below).collect();
        for cgroup in inner {
            self.judge_again(cgroup);
        }
    }

    /// A runtime has named a cgroup's container: whatever is below it is in that container.
    pub(super) fn note_border(&mut self, cgroup: CgroupId) {
        if !self.tree.is_leaf(cgroup) {
            self.borders.insert(cgroup);
        }
    }

    /// Forgets what a batch of records was judged by.
    pub(super) fn look_anew(&mut self) {
        self.made_in.clear();
    }

    /// A cgroup with a child is no leaf; a container that was recognised stays one.
    pub(super) fn leaf_gained_child(&mut self, parent: CgroupId) {
        if self.discovery != CgroupDiscovery::Leaves {
            return;
        }
        let Some(former) = self.container(parent) else {
            return;
        };
        let path = self.tree.printable_path(former.cgroup_id);
        if path.as_deref() == Some(former.id.as_str()) {
            self.withdraw(parent);
        }
    }
}

/// Whether what is below a container is in it.
fn is_border(container: &Container) -> bool {
    use Identity::{Claimed, Path, Runtime};
    matches!(container.identity, Runtime | Path | Claimed) && !is_makeshift(container)
}

/// A leaf under its path, or a systemd unit: registered for want of something better.
pub(super) fn is_makeshift(container: &Container) -> bool {
    container.id.as_str().starts_with('/') || container.identity == Identity::Unit
}

/// A claim says no more than which id somebody gave it, and by which runtime's manner.
fn claimed(found: Container, realm: Option<String>, inside: Option<Arc<Container>>) -> Container {
    Container {
        identity: Identity::Claimed,
        inside,
        details: ContainerDetails {
            runtime: found.details.runtime,
            realm,
            ..ContainerDetails::default()
        },
        ..found
    }
}

#[cfg(test)]
mod tests;
