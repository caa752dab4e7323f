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
    /// Cgroups that were not known, and have no counter yet.
    pub(crate) new: Vec<CgroupId>,
    /// Removals since it began are forgotten already, so some of the new ones may be gone: only
    /// another walk can tell.
    pub(crate) is_outdated: bool,
}

impl Engine {
    /// Takes in a walk. To be called with all records worked through that were in the ring when it was
    /// done: those of what it found are among them, unless they were lost.
    pub(crate) fn walked(&mut self, walk: &Walk, now: Now) -> Walked {
        let any_gone = self.mark_gone(&walk.missing, now);
        let mut new = Vec::new();
        for Found { id, parent, name } in &walk.found {
            // Below a cgroup that is gone there is nothing.
            let is_possible = self.tree.is_root(*parent) || self.tree.is_live(*parent);
            if is_possible && self.learn(*id, *parent, name) {
                new.push(*id);
            }
        }
        if any_gone && self.discovers() {
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
