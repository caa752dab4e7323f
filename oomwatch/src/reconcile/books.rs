//! The books as the engine sees them: opened, claimed for, kept from one run to the next.

use hashbrown::HashSet;

use super::{Counting, Reconciler};
use crate::{
    CgroupId,
    account::{Book, Page},
};

impl Reconciler {
    /// A container was registered: from now on its counter's rise is accounted for, and what is `owed`
    /// from before by books below it. Not where nothing is known of its counter. A ledger lags behind
    /// lost records, so the counter as it was `read` says more; but marks may have told of more since.
    pub(crate) fn open_account(&mut self, cgroup: CgroupId, read: Option<u64>, owed: u64) {
        if self.counting == Counting::Hierarchical
            && let Some(known) = self.last_known(cgroup).max(read)
        {
            self.accounts.open(cgroup, known, owed);
        }
    }

    /// What a book has yet to tell of a counter that was read.
    pub(crate) fn untold(&self, cgroup: CgroupId, read: u64) -> u64 {
        let known = self.last_known(cgroup).unwrap_or(0);
        self.accounts.untold(cgroup, known.max(read))
    }

    /// A book begins before what one below it has yet to tell.
    pub(crate) fn owe(&mut self, cgroup: CgroupId, owed: u64) {
        self.accounts.owe(cgroup, owed);
    }

    /// A book takes over what another one on its cgroup had yet to tell.
    pub(crate) fn take_over(&mut self, cgroup: CgroupId, owed: u64) {
        self.accounts.take_over(cgroup, owed);
    }

    /// What a book from an earlier run has yet to tell, its counter being read for the first time.
    pub(crate) fn read_resumed(&mut self, cgroup: CgroupId, oom_kill: u64) -> u64 {
        self.accounts.read_resumed(cgroup, oom_kill)
    }

    /// Books from an earlier run, with the counter that was read first in this one.
    pub(crate) fn resumed(&self) -> impl Iterator<Item = (CgroupId, u64)> + '_ {
        self.accounts.resumed()
    }

    /// Whether a book from an earlier run was behind the counter that was read first in this one.
    pub(crate) fn has_missed(&self, cgroup: CgroupId) -> bool {
        self.accounts.has_missed(cgroup)
    }

    /// What was noted of a container is for the next audit.
    pub(crate) fn drop_note(&mut self, cgroup: CgroupId) {
        self.accounts.drop_note(cgroup);
    }

    /// A container was registered after `kills` counted ones of its own, and `recounts`: its book
    /// begins before them. One from an earlier run has them already.
    pub(crate) fn enter_claim(&mut self, cgroup: CgroupId, kills: u64, recounts: u64) {
        self.accounts.enter_claim(cgroup, kills, recounts);
    }

    /// How many increments of the node's `oom_kill` were spoken of so far.
    pub(crate) fn node_told(&self) -> u64 {
        self.accounts.node_told()
    }

    /// Increments were spoken of that belong to no container.
    pub(crate) fn tell_outside(&mut self, count: u64) {
        self.accounts.tell_outside(count);
    }

    /// A container was unregistered.
    pub(crate) fn close_account(&mut self, cgroup: CgroupId) {
        self.accounts.close(cgroup);
    }

    /// Whether a container's rise is accounted for.
    pub(crate) fn has_account(&self, cgroup: CgroupId) -> bool {
        self.accounts.has(cgroup)
    }

    /// From now on changes of the books are remembered for [`Self::take_changed`].
    pub(crate) fn keep_books(&mut self) {
        self.accounts.keep();
    }

    /// Goes on with a book from an earlier run, before its container is registered again. Not
    /// where counters are not those that books are about.
    pub(crate) fn resume(&mut self, book: &Book) {
        if self.counting == Counting::Hierarchical
            && let Some(page) = book.page
        {
            self.accounts.resume(book.cgroup_id, page);
            if book.recounts > 0 {
                self.recounts.insert(book.cgroup_id, book.recounts);
            }
        }
    }

    /// Whether what is missing from a book happened while no daemon ran; asked once, right before
    /// its first audit.
    pub(crate) fn take_resumed(&mut self, cgroup: CgroupId) -> bool {
        self.accounts.take_resumed(cgroup)
    }

    /// Whether a book is from an earlier run, and not audited in this one.
    pub(crate) fn is_resumed(&self, cgroup: CgroupId) -> bool {
        self.accounts.is_resumed(cgroup)
    }

    /// Cgroups that have a book.
    pub(crate) fn booked(&self) -> impl Iterator<Item = CgroupId> + '_ {
        self.accounts.cgroups()
    }

    /// What a cgroup's book says.
    pub(crate) fn page(&self, cgroup: CgroupId) -> Option<Page> {
        self.accounts.page(cgroup)
    }

    /// A cgroup's book is to be among the changed ones.
    pub(crate) fn touch(&mut self, cgroup: CgroupId) {
        self.accounts.touch(cgroup);
    }

    /// Cgroups whose book changed, or was closed, since the last call.
    pub(crate) fn take_changed(&mut self) -> HashSet<CgroupId> {
        self.accounts.take_changed()
    }
}
