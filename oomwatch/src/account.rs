//! The books of every registered container: by how much its counter rose since registration, and
//! what of that was said.
//!
//! The law that is kept here, at every audit:
//! `rise of oom_kill == kills + counter_only + recounts`. What is missing on the right becomes
//! `counter_only`, once. Pure: counter values come in as arguments.

use hashbrown::{HashMap, HashSet};

use crate::{CgroupId, ContainerId, record::Memcg};

/// One container's book, as it is kept from one run of the daemon to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) cgroup_id: CgroupId,
    pub(crate) container_id: ContainerId,
    /// Registered by hand: nothing finds it again by itself.
    pub(crate) by_hand: bool,
    /// `None` where there are no counters to keep books of.
    pub(crate) page: Option<Page>,
    /// Double counts of the kernel; `accounted` has them too.
    pub(crate) recounts: u64,
}

/// What a book says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Serial of the counters; `None` until a record told it.
    pub(crate) serial: Option<u32>,
    /// The counter at registration.
    pub(crate) base: u64,
    /// What was said of its rise: kills, counter-only kills and recounts.
    pub(crate) accounted: u64,
}

/// What a mark without a known past is to a book from an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// No such book in its chain.
    Unknown,
    /// Everything in the counter was spoken of before: the mark was not counted.
    None,
    /// There was something to speak of, and it is entered.
    Entered,
}

/// All books.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pages: HashMap<CgroupId, Page>,
    /// Those from an earlier run of the daemon, and not audited in this one: what is missing
    /// happened while it was down.
    resumed: HashSet<CgroupId>,
    /// Books that changed since they were last asked for; `None` where nobody keeps them.
    changed: Option<HashSet<CgroupId>>,
}

impl Accounts {
    /// Opens a book for a container whose counter is `base` now; one from an earlier run goes on.
    pub(crate) fn open(&mut self, cgroup: CgroupId, base: u64) {
        self.pages.entry(cgroup).or_insert(Page {
            base,
            ..Page::default()
        });
        self.touch(cgroup);
    }

    /// Closes a book for good.
    pub(crate) fn close(&mut self, cgroup: CgroupId) {
        self.resumed.remove(&cgroup);
        if self.pages.remove(&cgroup).is_some() {
            self.touch(cgroup);
        }
    }

    /// Whether there is a book.
    pub(crate) fn has(&self, cgroup: CgroupId) -> bool {
        self.pages.contains_key(&cgroup)
    }

    /// From now on changes are remembered for [`Self::take_changed`].
    pub(crate) fn keep(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Goes on with a book from an earlier run.
    pub(crate) fn resume(&mut self, cgroup: CgroupId, page: Page) {
        self.pages.insert(cgroup, page);
        self.resumed.insert(cgroup);
        self.touch(cgroup);
    }

    /// Whether a book is from an earlier run; asked once, right before its first audit.
    pub(crate) fn take_resumed(&mut self, cgroup: CgroupId) -> bool {
        self.resumed.remove(&cgroup)
    }

    /// Whether a book is from an earlier run, and not audited in this one.
    pub(crate) fn is_resumed(&self, cgroup: CgroupId) -> bool {
        self.resumed.contains(&cgroup)
    }

    /// The counter of a cgroup was read for the first time in this run. Behind a book from an
    /// earlier one, it began again at 0 meanwhile: the book starts a new page. Tells whether.
    pub(crate) fn meet_counter(&mut self, cgroup: CgroupId, oom_kill: u64) -> bool {
        let Some(page) = self.pages.get_mut(&cgroup) else {
            return false;
        };
        let began_again = self.resumed.contains(&cgroup) && oom_kill < page.told();
        if began_again {
            *page = Page::default();
            self.touch(cgroup);
        }
        began_again
    }

    /// What a book says now.
    pub(crate) fn page(&self, cgroup: CgroupId) -> Option<Page> {
        self.pages.get(&cgroup).copied()
    }

    /// The cgroups of all books.
    pub(crate) fn cgroups(&self) -> impl Iterator<Item = CgroupId> + '_ {
        self.pages.keys().copied()
    }

    /// A book is to be among the changed ones.
    pub(crate) fn touch(&mut self, cgroup: CgroupId) {
        if let Some(changed) = &mut self.changed {
            changed.insert(cgroup);
        }
    }

    /// Books that changed, or were closed, since the last call.
    pub(crate) fn take_changed(&mut self) -> HashSet<CgroupId> {
        self.changed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Enters a mark of which only the chain's counters are known, into the books from an earlier
    /// run that have something left to speak of. Books of this run have it in their base.
    pub(crate) fn enter_unjudged(&mut self, chain: &[Memcg]) -> Room {
        let mut room = Room::Unknown;
        for memcg in chain {
            let (Some(page), Some(oom_kill)) =
                (self.pages.get_mut(&memcg.cgroup_id), memcg.oom_kill)
            else {
                continue;
            };
            if !self.resumed.contains(&memcg.cgroup_id) {
                continue;
            }
            page.meet(memcg.serial);
            if oom_kill > page.told() && room != Room::None {
                page.accounted += 1;
                room = Room::Entered;
            } else if room == Room::Unknown {
                // The lowest decides, as with marks that have a past.
                room = Room::None;
            }
            self.touch(memcg.cgroup_id);
        }
        room
    }

    /// Enters `count` counted increments into the books of all containers that they were charged
    /// to. A container registered after them has them in its base.
    pub(crate) fn enter(&mut self, chain: &[Memcg], count: u64) {
        for memcg in chain {
            let (Some(page), Some(oom_kill)) =
                (self.pages.get_mut(&memcg.cgroup_id), memcg.oom_kill)
            else {
                continue;
            };
            page.meet(memcg.serial);
            if oom_kill > page.base {
                page.accounted += count;
            }
            self.touch(memcg.cgroup_id);
        }
    }

    /// How many increments of a container nobody spoke of, with its counter at `oom_kill`. A
    /// counter behind the books is not news: the ring was quicker than the file.
    pub(crate) fn missing(&mut self, cgroup: CgroupId, oom_kill: u64, serial: Option<u32>) -> u64 {
        let Some(page) = self.pages.get_mut(&cgroup) else {
            return 0;
        };
        if let Some(serial) = serial {
            page.meet(serial);
        }
        oom_kill.saturating_sub(page.told())
    }

    /// Enters increments that only a counter told of, into the books of a container and of those
    /// above it.
    pub(crate) fn enter_missing(&mut self, lineage: impl Iterator<Item = CgroupId>, count: u64) {
        for cgroup in lineage {
            if let Some(page) = self.pages.get_mut(&cgroup) {
                page.accounted += count;
                self.touch(cgroup);
            }
        }
    }
}

impl Page {
    /// The counter up to which all was spoken of.
    fn told(&self) -> u64 {
        self.base.saturating_add(self.accounted)
    }

    /// Other counters than before start from 0: the controller was switched off and on.
    fn meet(&mut self, serial: u32) {
        if self.serial.is_some_and(|known| known != serial) {
            self.base = 0;
            self.accounted = 0;
        }
        self.serial = Some(serial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::memcg;

    const C: CgroupId = CgroupId(10);
    const POD: CgroupId = CgroupId(5);

    #[test]
    fn what_is_entered_is_not_missing() {
        let mut accounts = Accounts::default();
        accounts.open(C, 3);
        accounts.enter(&[memcg(10, 4)], 1);
        assert_eq!(accounts.missing(C, 4, None), 0);
        assert_eq!(accounts.missing(C, 6, None), 2);
        accounts.enter_missing([C].into_iter(), 2);
        assert_eq!(accounts.missing(C, 6, None), 0);
    }

    #[test]
    fn increments_before_the_registration_are_in_the_base() {
        let mut accounts = Accounts::default();
        accounts.open(C, 3);
        accounts.enter(&[memcg(10, 3)], 1);
        assert_eq!(accounts.missing(C, 4, None), 1);
    }

    #[test]
    fn a_parents_book_has_its_childrens_entries() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        accounts.open(POD, 0);
        accounts.enter(&[memcg(10, 1), memcg(5, 1)], 1);
        accounts.enter_missing([C, POD].into_iter(), 1);
        assert_eq!(accounts.missing(POD, 2, None), 0);
        assert_eq!(accounts.missing(C, 2, None), 0);
    }

    #[test]
    fn counters_that_started_again_start_a_new_page() {
        let mut accounts = Accounts::default();
        accounts.open(C, 7);
        accounts.enter(&[memcg(10, 8)], 1);
        assert_eq!(accounts.missing(C, 1, Some(2)), 1);
    }

    fn resumed(page: Page) -> Accounts {
        let mut accounts = Accounts::default();
        accounts.resume(C, page);
        accounts
    }

    const TOLD_5: Page = Page {
        serial: Some(1),
        base: 3,
        accounted: 2,
    };

    #[test]
    fn a_book_from_an_earlier_run_misses_what_rose_meanwhile() {
        let mut accounts = resumed(TOLD_5);
        accounts.open(C, 9);
        assert!(!accounts.meet_counter(C, 9));
        assert_eq!(accounts.missing(C, 9, None), 4);
        assert!(accounts.take_resumed(C));
        assert!(!accounts.take_resumed(C), "said once");
    }

    #[test]
    fn a_counter_behind_a_book_from_an_earlier_run_began_again() {
        let mut accounts = resumed(TOLD_5);
        assert!(accounts.meet_counter(C, 2));
        assert_eq!(accounts.missing(C, 2, None), 2);
    }

    #[test]
    fn counters_that_another_run_did_not_know_start_a_new_page() {
        let mut accounts = resumed(TOLD_5);
        let mut other = memcg(10, 9);
        other.serial = 2;
        assert_eq!(accounts.enter_unjudged(&[other]), Room::Entered);
        assert_eq!(accounts.missing(C, 9, None), 8);
    }

    #[test]
    fn a_mark_that_an_earlier_run_spoke_of_has_no_room() {
        let mut accounts = resumed(TOLD_5);
        assert_eq!(accounts.enter_unjudged(&[memcg(10, 5)]), Room::None);
        assert_eq!(accounts.enter_unjudged(&[memcg(10, 6)]), Room::Entered);
        assert_eq!(accounts.missing(C, 6, None), 0);
        assert_eq!(accounts.enter_unjudged(&[memcg(11, 6)]), Room::Unknown);
    }

    #[test]
    fn changes_are_remembered_only_where_they_are_kept() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        assert!(accounts.take_changed().is_empty());
        accounts.keep();
        accounts.enter(&[memcg(10, 1), memcg(5, 1)], 1);
        assert!(accounts.take_changed().contains(&C));
        accounts.close(C);
        accounts.close(POD);
        assert_eq!(accounts.take_changed().into_iter().collect::<Vec<_>>(), [C]);
    }
}
