//! The books of every registered container: by how much its counter rose since registration, and
//! what of that was said.
//!
//! The law that is kept here, at every audit:
//! `rise of oom_kill == kills + counter_only + recounts`. What is missing on the right becomes
//! `counter_only`, once. Pure: counter values come in as arguments.

use std::collections::HashMap;

use crate::{CgroupId, record::Memcg};

/// One container's book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    /// Serial of the counters; `None` until a record told it.
    serial: Option<u32>,
    /// The counter at registration.
    base: u64,
    /// What was said of its rise: kills, counter-only kills and recounts.
    accounted: u64,
}

/// All books.
#[derive(Debug, Default)]
pub(crate) struct Accounts(HashMap<CgroupId, Account>);

impl Accounts {
    /// Opens a book for a container whose counter is `base` now.
    pub(crate) fn open(&mut self, cgroup: CgroupId, base: u64) {
        self.0.entry(cgroup).or_insert(Account {
            base,
            ..Account::default()
        });
    }

    /// Closes a book for good.
    pub(crate) fn close(&mut self, cgroup: CgroupId) {
        self.0.remove(&cgroup);
    }

    /// Whether there is a book.
    pub(crate) fn has(&self, cgroup: CgroupId) -> bool {
        self.0.contains_key(&cgroup)
    }

    /// Enters `count` counted increments into the books of all containers that they were charged
    /// to. A container registered after them has them in its base.
    pub(crate) fn enter(&mut self, chain: &[Memcg], count: u64) {
        for memcg in chain {
            let (Some(account), Some(oom_kill)) =
                (self.0.get_mut(&memcg.cgroup_id), memcg.oom_kill)
            else {
                continue;
            };
            account.meet(memcg.serial);
            if oom_kill > account.base {
                account.accounted += count;
            }
        }
    }

    /// How many increments of a container nobody spoke of, with its counter at `oom_kill`. A
    /// counter behind the books is not news: the ring was quicker than the file.
    pub(crate) fn missing(&mut self, cgroup: CgroupId, oom_kill: u64, serial: Option<u32>) -> u64 {
        let Some(account) = self.0.get_mut(&cgroup) else {
            return 0;
        };
        if let Some(serial) = serial {
            account.meet(serial);
        }
        oom_kill
            .saturating_sub(account.base)
            .saturating_sub(account.accounted)
    }

    /// Enters increments that only a counter told of, into the books of a container and of those
    /// above it.
    pub(crate) fn enter_missing(&mut self, lineage: impl Iterator<Item = CgroupId>, count: u64) {
        for cgroup in lineage {
            if let Some(account) = self.0.get_mut(&cgroup) {
                account.accounted += count;
            }
        }
    }
}

impl Account {
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
}
