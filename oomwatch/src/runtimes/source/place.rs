//! Where the cgroup of a container is, on evidence. The runtime names the cgroup in its configuration, or a process
//! that runs. Only [`ground`] looks at directories and reads `/proc`; [`configured`] and [`judged`] decide by text
//! alone.
//!
//! A wrong place is worse than none: it marks somebody else's container. In doubt there is no place.

mod configured;
mod ground;
mod judged;
mod neighbours;
mod process;

use std::sync::Arc;

pub(crate) use self::{
    configured::is_plain,
    process::{Asked, Process},
};
use self::{
    configured::{candidates, joined},
    ground::Ground,
    judged::{Verdict, judge},
    neighbours::Neighbours,
};
use super::speaker::Speaker;
use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::sighting::{Owner, RuntimeKey},
    id::CgroupId,
};

/// A container's place as its runtime gives it. All of it is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerPlace {
    /// Paths of its cgroup as a runtime configures it: `/default/web`, or systemd's `slice:prefix:name`. Several where
    /// the runtime's driver is not known.
    pub(crate) configured: Vec<String>,
    /// Its first process. Only of a container that runs by the runtime's own word.
    pub(crate) process: Option<Process>,
}

/// Looks for the places of one runtime's containers.
#[derive(Debug)]
pub(crate) struct Places<G = Arc<Hierarchy>> {
    ground: G,
    speaker: Speaker,
    neighbours: Neighbours,
}

impl<G: Ground> Places<G> {
    pub(crate) fn new(ground: G, speaker: Speaker) -> Self {
        Self {
            ground,
            speaker,
            neighbours: Neighbours::default(),
        }
    }

    pub(crate) fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Notes that the runtime names this process for a container.
    pub(crate) fn mention(&mut self, key: &RuntimeKey, pid: u32) {
        self.neighbours.mention(key, pid);
    }

    /// Forgets a container that was removed.
    pub(crate) fn forget(&mut self, key: &RuntimeKey) {
        self.neighbours.retain(|known| known != key);
    }

    /// Forgets all containers but these.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&RuntimeKey) -> bool) {
        self.neighbours.retain(is_known);
    }

    /// The container's cgroup, if it exists on the v2 hierarchy and the evidence holds.
    pub(crate) fn find(&mut self, key: &RuntimeKey, place: &ContainerPlace) -> Option<CgroupId> {
        let process = place.process.as_ref();
        if let Some(process) = process {
            self.neighbours.mention(key, process.pid);
        }
        let candidates = self.candidates(key, place);
        if let Some(found) = self.only_one(&candidates) {
            return self.neighbours.take(found, key, true).then_some(found);
        }
        self.of_process(key, process?, &candidates)
    }

    /// The paths that the configuration may mean, from the root of the hierarchy.
    fn candidates(&self, key: &RuntimeKey, place: &ContainerPlace) -> Vec<String> {
        let Some(root) = self.speaker.root() else {
            return Vec::new();
        };
        let configured = place.configured.iter();
        let paths = configured.flat_map(|path| candidates(path, &key.id, self.speaker.owner()));
        let mut paths: Vec<String> = paths.map(|path| joined(root, &path)).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// The cgroup at the one path that exists. Two that exist prove nothing.
    fn only_one(&self, candidates: &[String]) -> Option<CgroupId> {
        let mut found = candidates.iter().filter_map(|path| self.cgroup(path));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn of_process(
        &mut self,
        key: &RuntimeKey,
        process: &Process,
        candidates: &[String],
    ) -> Option<CgroupId> {
        if !self.speaker.counts_processes_as_we_do() {
            return None;
        }
        let path = self.ground.path_of(process)?;
        match judge(&path, &key.id) {
            Verdict::Own(path) => self.taken(path, key),
            _ if candidates.contains(&path) => self.taken(&path, key),
            Verdict::Unclaimed if !self.neighbours.is_shared(key, process.pid) => {
                self.taken(&path, key)
            }
            Verdict::Unclaimed | Verdict::Refused => None,
        }
    }

    /// The cgroup at a path that does not name the container, unless another container has it.
    fn taken(&mut self, path: &str, key: &RuntimeKey) -> Option<CgroupId> {
        let found = self.cgroup(path)?;
        self.neighbours.take(found, key, false).then_some(found)
    }

    /// The cgroup at a path, if it exists and the runtime may speak for it.
    fn cgroup(&self, path: &str) -> Option<CgroupId> {
        let found = self.ground.cgroup(path)?;
        match self.speaker.owner() {
            Owner::Host => Some(found),
            Owner::User(uid) => self.is_below_own(path, uid).then_some(found),
        }
    }

    /// Whether a user owns a directory above a path.
    fn is_below_own(&self, path: &str, uid: u32) -> bool {
        path.match_indices('/')
            .filter_map(|(end, _)| path.get(..end))
            .filter(|above| !above.is_empty())
            .any(|above| self.ground.owner(above) == Some(uid))
    }
}

#[cfg(test)]
mod tests;
