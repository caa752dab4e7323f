//! The engine's books from one run of the daemon to the next: what is to be kept of them, and how
//! a new run goes on with them. Knows no store: books come in and go out as plain data.

use std::collections::{HashMap, HashSet};

use super::Engine;
use crate::{
    CgroupId, Container, ContainerDetails, ContainerId,
    account::Book,
    log::{info, warn},
};

/// What is to be kept beside the books themselves.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Containers registered by hand, which nothing finds again by itself.
    by_hand: HashSet<CgroupId>,
    /// Of those, the ones that only the store has spoken for in this run.
    restored: HashSet<CgroupId>,
    /// Whose book is from an earlier run and whose container is not registered yet: a source of
    /// containers may take its time.
    waiting: HashMap<CgroupId, ContainerId>,
    /// A container with a book from an earlier run was registered: its counter is to be read.
    audit_wanted: bool,
}

/// What changed since it was last asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) books: Vec<Book>,
    /// Cgroups that have no book any more.
    pub(crate) closed: Vec<CgroupId>,
}

impl Kept {
    /// A container is registered. Tells whether the book that waits on its cgroup is another's.
    pub(super) fn registered(&mut self, cgroup: CgroupId, id: &ContainerId) -> bool {
        self.waiting
            .remove(&cgroup)
            .is_some_and(|waiting| waiting != *id)
    }

    pub(super) fn want_audit(&mut self) {
        self.audit_wanted = true;
    }

    /// Cgroups whose containers are not registered yet.
    pub(super) fn all_waiting(&self) -> impl Iterator<Item = CgroupId> + '_ {
        self.waiting.keys().copied()
    }

    /// The container that the book of a cgroup waits for.
    pub(super) fn waiting(&self, cgroup: CgroupId) -> Option<&ContainerId> {
        self.waiting.get(&cgroup)
    }

    pub(super) fn unregistered(&mut self, cgroup: CgroupId) {
        self.by_hand.remove(&cgroup);
        self.restored.remove(&cgroup);
        self.waiting.remove(&cgroup);
    }
}

impl Engine {
    /// Goes on with the books of an earlier run, and remembers from now on which change. Before
    /// the first scan.
    pub(crate) fn resume(&mut self, books: Vec<Book>) {
        self.reconciler.keep_books();
        for book in books {
            self.reconciler.resume(&book);
            if book.by_hand {
                self.kept.by_hand.insert(book.cgroup_id);
            }
            self.kept.waiting.insert(book.cgroup_id, book.container_id);
        }
    }

    /// After the first scan: registers again what was registered by hand, and drops the books of
    /// cgroups that are gone.
    pub(crate) fn settle_resumed(&mut self) {
        let waiting: Vec<CgroupId> = self.kept.all_waiting().collect();
        let mut vanished = 0;
        for cgroup in waiting {
            if !self.tree.is_live(cgroup) {
                vanished += 1;
                self.reconciler.forget(cgroup);
                self.kept.unregistered(cgroup);
            } else if self.kept.by_hand.contains(&cgroup) {
                self.register_again(cgroup);
            }
        }
        if vanished > 0 {
            info!(
                containers = vanished,
                "containers went away while no daemon ran: what their counters told last is not known"
            );
        }
    }

    /// Whether a container's counter is to be held against a book from an earlier run; told once.
    pub(crate) fn take_audit_wanted(&mut self) -> bool {
        std::mem::take(&mut self.kept.audit_wanted)
    }

    fn register_again(&mut self, cgroup: CgroupId) {
        let Some(id) = self.kept.waiting(cgroup).cloned() else {
            return;
        };
        let container = Container {
            id: id.clone(),
            cgroup_id: cgroup,
            details: ContainerDetails::default(),
        };
        match self.register(container) {
            Ok(()) => {
                self.kept.restored.insert(cgroup);
                info!(container = %id, cgroup = cgroup.0, "registered as before");
            }
            Err(error) => {
                self.kept.by_hand.remove(&cgroup);
                warn!(%error, "a container cannot be registered as before");
            }
        }
    }

    /// A registration by hand is to outlive this run.
    pub(crate) fn keep_registration(&mut self, cgroup: CgroupId) {
        self.kept.by_hand.insert(cgroup);
        self.reconciler.touch(cgroup);
    }

    /// Whether a container is registered because it was so in an earlier run; its owner, who
    /// registers it again, is told so once.
    pub(crate) fn take_restored(&mut self, id: &ContainerId, cgroup: CgroupId) -> bool {
        self.container(cgroup).is_some_and(|found| found.id == *id)
            && self.kept.restored.remove(&cgroup)
    }

    /// The books that changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for cgroup in self.reconciler.take_changed() {
            match self.book(cgroup) {
                Some(book) => changes.books.push(book),
                None => changes.closed.push(cgroup),
            }
        }
        changes
    }

    /// All books; none of them counts as changed any more.
    pub(crate) fn all_books(&mut self) -> Vec<Book> {
        self.reconciler.take_changed();
        let booked = self.reconciler.booked();
        let by_hand = self.kept.by_hand.iter().copied();
        let without_book = by_hand.filter(|&cgroup| self.reconciler.page(cgroup).is_none());
        booked
            .chain(without_book)
            .filter_map(|cgroup| self.book(cgroup))
            .collect()
    }

    /// The book of a cgroup that is alive; without a page where there are no counters, but a
    /// registration to keep.
    fn book(&self, cgroup: CgroupId) -> Option<Book> {
        let page = self.reconciler.page(cgroup);
        let by_hand = self.kept.by_hand.contains(&cgroup);
        if !self.tree.is_live(cgroup) || (page.is_none() && !by_hand) {
            return None;
        }
        let container_id = match self.container(cgroup) {
            Some(container) => container.id.clone(),
            None => self.kept.waiting(cgroup)?.clone(),
        };
        Some(Book {
            cgroup_id: cgroup,
            container_id,
            by_hand,
            page,
            recounts: self.reconciler.recounts(cgroup),
        })
    }
}

#[cfg(test)]
mod tests;
