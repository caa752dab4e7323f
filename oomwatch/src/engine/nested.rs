//! Books above and below one another: that no kill is told by both, and none by neither.
//!
//! What a book tells is entered into those above it. So one that is opened later than a book below it begins
//! before what that one has yet to tell; and what one above has told, a book below that was not there yet
//! does not tell again.

use super::Engine;
use crate::CgroupId;

impl Engine {
    /// Whose counters are to be read right before a container is registered on this cgroup, in this order:
    /// what is counted meanwhile is then in its own. The ring is to be worked through after that.
    pub(crate) fn to_be_read(&self, cgroup: CgroupId) -> Vec<CgroupId> {
        let mut ids = Vec::new();
        if !self.tree.is_leaf(cgroup) {
            let booked = self.reconciler.booked();
            ids.extend(booked.filter(|&id| self.is_next_below(id, cgroup)));
        }
        ids.push(cgroup);
        ids
    }

    /// Opens a container's book at its counter as it was `read`, or else as it is known.
    pub(super) fn open_account(&mut self, cgroup: CgroupId, read: &[(CgroupId, u64)]) {
        let is_above = !self.reconciler.has_account(cgroup) && !self.tree.is_leaf(cgroup);
        let owed = if is_above { self.owed(cgroup, read) } else { 0 };
        let own = read.iter().find(|(id, _)| *id == cgroup);
        self.reconciler
            .open_account(cgroup, own.map(|(_, oom_kill)| *oom_kill), owed);
    }

    /// What the books below a cgroup have yet to tell, and will. Of those that were not `read` only books
    /// from an earlier run have anything; what books of this run between them and the cgroup have to tell
    /// is the same.
    fn owed(&self, cgroup: CgroupId, read: &[(CgroupId, u64)]) -> u64 {
        let is_read = |id: CgroupId| read.iter().any(|(known, _)| *known == id);
        let was_read = |&(id, _): &(CgroupId, u64)| self.is_next_below(id, cgroup);
        let resumed = self.reconciler.resumed().filter(|(id, _)| {
            let mut above = self.tree.lineage(*id).skip(1);
            let next =
                above.find(|&id| is_read(id) || self.reconciler.is_resumed(id) || id == cgroup);
            !is_read(*id) && next == Some(cgroup)
        });
        read.iter()
            .copied()
            .filter(was_read)
            .chain(resumed)
            .map(|(id, oom_kill)| self.reconciler.untold(id, oom_kill))
            .sum()
    }

    /// What a cgroup's own book has yet to tell.
    pub(super) fn untold(&self, cgroup: CgroupId, read: &[(CgroupId, u64)]) -> u64 {
        let own = read.iter().find(|(id, _)| *id == cgroup);
        own.map_or(0, |&(id, oom_kill)| self.reconciler.untold(id, oom_kill))
    }

    /// Whether a book is below a cgroup, and none is between them.
    fn is_next_below(&self, id: CgroupId, cgroup: CgroupId) -> bool {
        let mut above = self.tree.lineage(id).skip(1);
        above.find(|&id| id == cgroup || self.reconciler.has_account(id)) == Some(cgroup)
    }

    /// The counter of a cgroup was read: if its book is from an earlier run, the books of this one above
    /// it begin before what it has yet to tell.
    pub(super) fn read_resumed(&mut self, cgroup: CgroupId, oom_kill: u64) {
        let owed = self.reconciler.read_resumed(cgroup, oom_kill);
        if owed == 0 {
            return;
        }
        for above in self.tree.lineage(cgroup).skip(1) {
            if self.reconciler.is_resumed(above) {
                return;
            }
            self.reconciler.owe(above, owed);
        }
    }

    /// A book from an earlier run is to be audited; and those above it only together with it, or they
    /// would tell what it has to tell.
    pub(super) fn want_audit(&mut self, cgroup: CgroupId) {
        self.kept.want_audit();
        for above in self.tree.lineage(cgroup).skip(1) {
            self.reconciler.drop_note(above);
        }
    }

    /// A container tells what its counter has more. Some of it may have been in containers below that are
    /// not registered yet: their books from an earlier run are not gone on with. Tells whether any of them
    /// was missing something when this run began.
    pub(super) fn give_up_below(&mut self, cgroup: CgroupId) -> bool {
        let is_below = |id: &CgroupId| self.tree.lineage(*id).skip(1).any(|above| above == cgroup);
        let given_up: Vec<CgroupId> = self.kept.all_waiting().filter(is_below).collect();
        let mut missed = false;
        for id in given_up {
            missed |= self.reconciler.has_missed(id);
            self.reconciler.close_account(id);
            self.kept.unregistered(id);
        }
        missed
    }
}

#[cfg(test)]
mod tests;
