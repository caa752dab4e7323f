//! What a walk over the hierarchy found, taken into the tree: cgroups that no record told of, and those
//! whose removal none told of.
//!
//! The walk may be older than records that were worked through since. A cgroup id is never used again, so
//! a tombstone is the last word: what was removed meanwhile does not come back.

use super::Engine;
use crate::{
    CgroupId,
    cgroup::walk::{Found, Walk},
    event::build::Now,
};

/// What became of a walk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Cgroups that were not known.
    pub(crate) new: Vec<CgroupId>,
    /// Removals since it began are forgotten already, so some of the new ones may be gone: only
    /// another walk can tell.
    pub(crate) is_outdated: bool,
}

impl Engine {
    /// Takes in the walk that everything begins with. What it found has no counter yet.
    pub(crate) fn walked(&mut self, walk: &Walk, now: Now) -> Walked {
        self.take_in(walk, now, |engine, found| {
            engine.learn(found.id, found.parent, &found.name)
        })
    }

    /// Takes in a walk that was made because records of cgroups were lost. To be called with all
    /// records worked through that were in the ring when it was done: those of what it found are among
    /// them, unless they were lost. What it found is younger than the first walk, so its counters began
    /// at 0 while we watched.
    pub(crate) fn walked_again(&mut self, walk: &Walk, now: Now) -> Walked {
        self.take_in(walk, now, |engine, found| {
            let is_new = engine.tree.insert(found.id, found.parent, &found.name);
            if is_new {
                engine.reconciler.created(found.id, 0);
                engine.leaf_gained_child(found.parent);
                engine.find(found.id, true);
            }
            is_new
        })
    }

    fn take_in(
        &mut self,
        walk: &Walk,
        now: Now,
        mut learn: impl FnMut(&mut Self, &Found) -> bool,
    ) -> Walked {
        let any_gone = self.mark_gone(&walk.missing, now);
        let mut new = Vec::new();
        for found in &walk.found {
            // Below a cgroup that is gone there is nothing.
            let is_possible = self.tree.is_root(found.parent) || self.tree.is_live(found.parent);
            if is_possible && learn(self, found) {
                new.push(found.id);
            }
        }
        if any_gone {
            self.discover_refused();
        }
        Walked {
            is_outdated: !new.is_empty() && self.tree.has_forgotten_since(walk.began_ns),
            new,
        }
    }

    /// Their removal was among records that found no room. Tells whether any was alive.
    fn mark_gone(&mut self, missing: &[CgroupId], now: Now) -> bool {
        let mut any = false;
        for &id in missing {
            if self.tree.remove(id, now.boottime_ns) {
                self.registry.cgroup_removed(&self.tree, id);
                self.reconciler.touch(id);
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests;
