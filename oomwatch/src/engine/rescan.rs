//! Takes the result of a walk over the hierarchy into the tree: cgroups whose creation no record reported, and
//! cgroups whose removal no record reported.
//!
//! The walk may be older than records that were worked through since. A cgroup id is never used again, so a tombstone
//! is final: a cgroup that was removed meanwhile does not come back.
//!
//! A walk may have skipped cgroups. A cgroup that it did not find below them is not gone. What the first walk skipped
//! is as old as the rest of what it found, whenever it is found. [`Engine::unseen`] holds the skipped cgroups.

use hashbrown::HashSet;

use super::Engine;
use crate::{
    event::Now,
    id::CgroupId,
    topology::walk::{LiveCgroup, Walk},
};

/// What became of a walk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Cgroups that were not known.
    pub(crate) new: Vec<CgroupId>,
    /// Those of them whose counters must still be read: they may be older than this run.
    pub(crate) unread: Vec<CgroupId>,
    /// Removals since the walk began are forgotten already, so some of the new cgroups may be gone. Only another walk
    /// can tell.
    pub(crate) is_outdated: bool,
}

impl Engine {
    /// Takes in the walk that everything begins with. No counter of the cgroups that it found is read yet.
    pub(crate) fn walked(&mut self, walk: &Walk, now: Now) -> Walked {
        let mut walked = self.take_in(walk, now, |engine, found| {
            engine.learn(found.id, found.parent, &found.name)
        });
        let tree = &self.tree;
        self.reconciler.ledgers.found(|id| tree.is_live(id));
        self.note_skipped(walk);
        walked.unread.clone_from(&walked.new);
        walked
    }

    /// Takes in a walk that was made because records of cgroups were lost. Call it when all records are worked
    /// through that were in the ring when the walk ended. The records of the cgroups that it found are among them,
    /// unless they were lost. These cgroups are younger than the first walk, so their counters began at 0 while we
    /// watched. The exceptions are those that the first walk skipped.
    pub(crate) fn walked_again(&mut self, walk: &Walk, now: Now) -> Walked {
        let old = self.old_ones(walk);
        let mut walked = self.take_in(walk, now, |engine, found| {
            engine.learn(found.id, found.parent, &found.name)
        });
        self.note_skipped(walk);
        let new = walked.new.iter().copied();
        walked.unread = new.filter(|id| old.contains(id)).collect();
        walked
    }

    /// Cgroups that are not known, and whose counters began at 0 while we watched.
    pub(crate) fn young_ones<'a>(&self, walk: &'a Walk) -> Vec<&'a LiveCgroup> {
        let old = self.old_ones(walk);
        let found = walk.found.iter();
        found
            .filter(|found| !old.contains(&found.id) && !self.tree.contains(found.id))
            .collect()
    }

    /// Cgroups that are missing and not below skipped ones.
    pub(crate) fn gone(&self, walk: &Walk) -> Vec<CgroupId> {
        if walk.skipped.below.is_empty() {
            return walk.missing.clone();
        }
        let skipped = walk.skipped.below.iter().copied().collect();
        let missing = walk.missing.iter().copied();
        let unknown = self.tree.within(missing.clone(), &skipped);
        missing.filter(|id| !unknown.contains(id)).collect()
    }

    /// Cgroups found where no walk has been before. They may have been there all the time.
    fn old_ones(&self, walk: &Walk) -> HashSet<CgroupId> {
        let mut old = HashSet::new();
        if !self.unseen.is_empty() {
            for found in &walk.found {
                if self.unseen.contains(&found.parent) || old.contains(&found.parent) {
                    old.insert(found.id);
                }
            }
        }
        old
    }

    /// Updates where no walk has been yet: of the cgroups that this walk skipped, only those that all walks before it
    /// skipped too.
    fn note_skipped(&mut self, walk: &Walk) {
        let skipped: HashSet<CgroupId> = walk.skipped.below.iter().copied().collect();
        if !self.is_start_over {
            self.unseen = skipped;
            return;
        }
        if self.unseen.is_empty() {
            return;
        }
        let further_down = self.tree.within(skipped.iter().copied(), &self.unseen);
        let still = self.tree.within(self.unseen.iter().copied(), &skipped);
        self.unseen = &further_down | &still;
    }

    fn take_in(
        &mut self,
        walk: &Walk,
        now: Now,
        mut learn: impl FnMut(&mut Self, &LiveCgroup) -> bool,
    ) -> Walked {
        self.look_anew();
        let any_gone = self.mark_gone(&self.gone(walk), now);
        let mut new = Vec::new();
        for found in &walk.found {
            // Below a cgroup that is gone there is nothing.
            let is_possible = self.tree.is_root(found.parent) || self.tree.is_live(found.parent);
            if is_possible && learn(self, found) {
                new.push(found.id);
            }
        }
        self.learn_placed();
        if any_gone {
            self.judge_refused();
        }
        Walked {
            is_outdated: !new.is_empty() && self.tree.has_forgotten_since(walk.began_ns),
            new,
            unread: Vec::new(),
        }
    }

    /// The records of their removal found no room. Tells whether any of them was alive.
    fn mark_gone(&mut self, gone: &[CgroupId], now: Now) -> bool {
        let mut any = false;
        for &id in gone {
            if self.tree.remove(id, now.boottime_ns) {
                self.cgroup_removed(id);
                self.reconciler.ledgers.remove(id);
                self.forget_by_hand(id);
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests;
