//! Containers that are found where records were lost: when they are registered, and where their books begin.
//!
//! What records told last of a counter lags behind what was lost. A book that begins there tells what
//! was lost since; and another book may have told that already, one above it or one that was on it before.
//! So once victims were lost, what is found waits until its counter is read, and its kills are claimed.
//! Knows which counters those are; whoever drives the engine reads them.

use std::collections::BTreeMap;

use super::{Engine, discovery::DISCOVERY_LEVELS};
use crate::CgroupId;

/// A container that waits for its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Find {
    pub(crate) cgroup: CgroupId,
    /// No book has ever been on it, and what its counter has was counted while we watched.
    is_new: bool,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Finds {
    /// Whether all that was there at the start is known.
    is_start_over: bool,
    /// Whether records of victims were lost in this run.
    after_loss: bool,
    /// By depth: those below come first, so that a book is opened after those below it.
    waiting: BTreeMap<(usize, CgroupId), Find>,
}

impl Engine {
    /// All cgroups that were there at the start are known: of one that is met from now on, the counters
    /// began at 0 while we watched.
    pub(crate) fn start_is_over(&mut self) {
        self.finds.is_start_over = true;
    }

    pub(super) fn is_start_over(&self) -> bool {
        self.finds.is_start_over
    }

    /// Records of victims were lost, before those that are yet to be worked through.
    pub(crate) fn lost_victims(&mut self) {
        self.finds.after_loss = true;
    }

    /// A cgroup may be a container that is not registered. What it lost before is its own to tell if
    /// `is_new`: no book has been on it, and its counter began in this run.
    pub(super) fn find(&mut self, cgroup: CgroupId, is_new: bool) {
        if !self.finds.after_loss {
            return self.discover(cgroup, &[]);
        }
        if self.container_at(cgroup).is_some() {
            let key = self.find_key(cgroup);
            self.finds.waiting.insert(key, Find { cgroup, is_new });
        }
    }

    /// The next that wait, `limit` at most, none above another. [`Self::register_find`] is to follow for each.
    pub(crate) fn next_finds(&self, limit: usize) -> Vec<Find> {
        let Some((&(deepest, _), _)) = self.finds.waiting.last_key_value() else {
            return Vec::new();
        };
        let level = self.finds.waiting.range((deepest, CgroupId(0))..);
        level.map(|(_, find)| *find).take(limit).collect()
    }

    /// Whose counters are to be read for it, in this order, as by [`Self::to_be_read`]. None, where nobody
    /// else can have told what was lost in it: then its book begins where records have left its counter.
    pub(crate) fn to_be_read_for(&self, find: Find) -> Vec<CgroupId> {
        let to_be_read = self.to_be_read(find.cgroup);
        // What records have told of those below has moved its counter too.
        let is_above_others = to_be_read.len() > 1 && self.last_known(find.cgroup) != Some(0);
        if find.is_new && !self.is_below_book(find.cgroup) && !is_above_others {
            return Vec::new();
        }
        to_be_read
    }

    fn is_below_book(&self, cgroup: CgroupId) -> bool {
        let mut above = self.tree.lineage(cgroup).skip(1);
        above.any(|id| self.reconciler.has_account(id))
    }

    /// Registers it, with the counters that were read; only for its kills, if it is gone meanwhile.
    pub(crate) fn register_find(&mut self, find: Find, read: &[(CgroupId, u64)]) {
        let key = self.find_key(find.cgroup);
        if self.finds.waiting.remove(&key).is_none() {
            return;
        }
        if self.tree.is_live(find.cgroup) {
            self.discover(find.cgroup, read);
        } else if let Some(container) = self.container_at(find.cgroup) {
            self.register_removed(container);
        }
    }

    /// Its removal has come, with its last counters: they are held against its book, if no other one
    /// has told what is in them.
    pub(super) fn find_removed(&mut self, cgroup: CgroupId) {
        // None that is deeper waits, and the way up from there may be long.
        let Some(depth) = self.tree.depth_within(cgroup, DISCOVERY_LEVELS + 1) else {
            return;
        };
        if let Some(&find) = self.finds.waiting.get(&(depth, cgroup))
            && self.to_be_read_for(find).is_empty()
        {
            self.register_find(find, &[]);
        }
    }

    /// The first word of a container is its removal. What it lost and nobody told of, is told by the last
    /// counters that come with it, unless a book above it has them.
    pub(super) fn open_account_of_removed(&mut self, cgroup: CgroupId) {
        if self.finds.is_start_over && !self.is_below_book(cgroup) {
            self.reconciler.created(cgroup, 0);
            self.open_account(cgroup, &[]);
        }
    }

    fn find_key(&self, cgroup: CgroupId) -> (usize, CgroupId) {
        (self.tree.lineage(cgroup).count(), cgroup)
    }
}

#[cfg(test)]
mod tests;
