//! The books of every registered container: by how much its counter rose since registration, and
//! what of that was said.
//!
//! The law that is kept here, at every audit:
//! `rise of oom_kill == kills + counter_only + recounts`. What is missing on the right becomes
//! `counter_only`, once. Pure: counter values come in as arguments.

use std::collections::HashMap;

use crate::{CgroupId, record::Memcg};

/// What an increment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Kill,
    /// A kill that only the counter told of.
    CounterOnly,
    /// The kernel's second count of one kill.
    Recount,
}

/// A container's numbers since its registration, with those of all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// By how much its counter rose, as far as it was last seen.
    pub(crate) rise: u64,
    pub(crate) kills: u64,
    pub(crate) counter_only: u64,
    pub(crate) recounts: u64,
}

impl Book {
    /// What was said of the rise.
    fn told(&self) -> u64 {
        self.kills + self.counter_only + self.recounts
    }

    /// What cannot be reconciled: 0 where the law holds, less than 0 where more was said than
    /// was counted.
    pub(crate) fn residual(&self) -> i64 {
        self.rise.wrapping_sub(self.told()).cast_signed()
    }

    fn enter(&mut self, entry: Entry, count: u64) {
        *match entry {
            Entry::Kill => &mut self.kills,
            Entry::CounterOnly => &mut self.counter_only,
            Entry::Recount => &mut self.recounts,
        } += count;
    }
}

/// One container's book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    /// Serial of the counters; `None` until a record told it.
    serial: Option<u32>,
    /// The counter at registration.
    base: u64,
    /// Its rise since, and what was said of it.
    page: Book,
    /// The same of counters that were there before these.
    closed: Book,
    noted: Option<Noted>,
}

/// A counter that was read, to be compared when the records of all that it counted have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    oom_kill: u64,
    /// What was said since of increments that came later: it does not make up for a loss before.
    beyond: u64,
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

    /// All books as they stand, in no order.
    pub(crate) fn books(&self) -> impl Iterator<Item = (CgroupId, Book)> {
        self.0
            .iter()
            .map(|(&cgroup, account)| (cgroup, account.book()))
    }

    /// Enters `count` counted increments into the books of all containers that they were charged
    /// to. A container registered after them has them in its base.
    pub(crate) fn enter(&mut self, chain: &[Memcg], entry: Entry, count: u64) {
        for memcg in chain {
            let (Some(account), Some(oom_kill)) =
                (self.0.get_mut(&memcg.cgroup_id), memcg.oom_kill)
            else {
                continue;
            };
            account.meet(memcg.serial);
            account.see(oom_kill);
            if oom_kill > account.base {
                account.page.enter(entry, count);
                if let Some(noted) = account.noted.as_mut()
                    && oom_kill > noted.oom_kill
                {
                    noted.beyond += count;
                }
            }
        }
    }

    /// Keeps a container's counter as it was read now.
    pub(crate) fn note(&mut self, cgroup: CgroupId, oom_kill: u64) {
        if let Some(account) = self.0.get_mut(&cgroup) {
            account.see(oom_kill);
            account.noted = Some(Noted {
                oom_kill,
                beyond: 0,
            });
        }
    }

    /// How many of the increments in the counter that was noted nobody spoke of, and that counter.
    /// `None` where none was noted, or other counters have taken its place.
    pub(crate) fn missing_noted(&mut self, cgroup: CgroupId) -> Option<(u64, u64)> {
        let account = self.0.get_mut(&cgroup)?;
        let noted = account.noted.take()?;
        let told = account.page.told().saturating_sub(noted.beyond);
        let rise = noted.oom_kill.saturating_sub(account.base);
        Some((rise.saturating_sub(told), noted.oom_kill))
    }

    /// How many increments of a container that is gone nobody spoke of.
    pub(crate) fn missing(&mut self, last: &Memcg) -> u64 {
        let (Some(account), Some(oom_kill)) = (self.0.get_mut(&last.cgroup_id), last.oom_kill)
        else {
            return 0;
        };
        account.meet(last.serial);
        account.see(oom_kill);
        let rise = oom_kill.saturating_sub(account.base);
        rise.saturating_sub(account.page.told())
    }

    /// Enters increments that no record of a kill told of, into the books of a container and of
    /// those above it. Where those above were noted before, they may hide a loss there until
    /// the next audit: which came first is not known.
    pub(crate) fn enter_missing(
        &mut self,
        lineage: impl Iterator<Item = CgroupId>,
        entry: Entry,
        count: u64,
    ) {
        for cgroup in lineage {
            if let Some(account) = self.0.get_mut(&cgroup) {
                account.page.enter(entry, count);
            }
        }
    }
}

impl Account {
    /// Other counters than before start from 0: the controller was switched off and on.
    fn meet(&mut self, serial: u32) {
        if self.serial.is_some_and(|known| known != serial) {
            self.closed = self.book();
            self.page = Book::default();
            self.base = 0;
            self.noted = None;
        }
        self.serial = Some(serial);
    }

    /// The counter was seen at this value.
    fn see(&mut self, oom_kill: u64) {
        self.page.rise = self.page.rise.max(oom_kill.saturating_sub(self.base));
    }

    fn book(&self) -> Book {
        let Self { page, closed, .. } = self;
        Book {
            rise: closed.rise + page.rise,
            kills: closed.kills + page.kills,
            counter_only: closed.counter_only + page.counter_only,
            recounts: closed.recounts + page.recounts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::memcg;

    const C: CgroupId = CgroupId(10);
    const POD: CgroupId = CgroupId(5);

    /// Read and compared at once.
    fn missing(accounts: &mut Accounts, cgroup: CgroupId, oom_kill: u64) -> u64 {
        accounts.note(cgroup, oom_kill);
        accounts.missing_noted(cgroup).unwrap().0
    }

    #[test]
    fn what_is_entered_is_not_missing() {
        let mut accounts = Accounts::default();
        accounts.open(C, 3);
        accounts.enter(&[memcg(10, 4)], Entry::Kill, 1);
        assert_eq!(missing(&mut accounts, C, 4), 0);
        assert_eq!(missing(&mut accounts, C, 6), 2);
        accounts.enter_missing([C].into_iter(), Entry::CounterOnly, 2);
        assert_eq!(missing(&mut accounts, C, 6), 0);
    }

    #[test]
    fn increments_before_the_registration_are_in_the_base() {
        let mut accounts = Accounts::default();
        accounts.open(C, 3);
        accounts.enter(&[memcg(10, 3)], Entry::Kill, 1);
        assert_eq!(missing(&mut accounts, C, 4), 1);
    }

    #[test]
    fn a_parents_book_has_its_childrens_entries() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        accounts.open(POD, 0);
        accounts.enter(&[memcg(10, 1), memcg(5, 1)], Entry::Kill, 1);
        accounts.enter_missing([C, POD].into_iter(), Entry::CounterOnly, 1);
        assert_eq!(missing(&mut accounts, POD, 2), 0);
        assert_eq!(missing(&mut accounts, C, 2), 0);
    }

    #[test]
    fn counters_that_started_again_start_a_new_page() {
        let mut accounts = Accounts::default();
        accounts.open(C, 7);
        accounts.enter(&[memcg(10, 8)], Entry::Kill, 1);
        let mut again = memcg(10, 1);
        again.serial += 1;
        assert_eq!(accounts.missing(&again), 1);
    }

    fn book(accounts: &Accounts, cgroup: CgroupId) -> Book {
        let mut books = accounts.books();
        books.find(|(found, _)| *found == cgroup).unwrap().1
    }

    #[test]
    fn a_book_tells_what_was_entered_as_what() {
        let mut accounts = Accounts::default();
        accounts.open(C, 3);
        accounts.enter(&[memcg(10, 4)], Entry::Kill, 1);
        accounts.enter(&[memcg(10, 5)], Entry::Recount, 1);
        assert_eq!(missing(&mut accounts, C, 7), 2);
        assert_eq!(book(&accounts, C).residual(), 2);
        accounts.enter_missing([C].into_iter(), Entry::CounterOnly, 2);
        let expected = Book {
            rise: 4,
            kills: 1,
            counter_only: 2,
            recounts: 1,
        };
        assert_eq!(book(&accounts, C), expected);
        assert_eq!(expected.residual(), 0);
    }

    #[test]
    fn more_said_than_counted_is_a_residual_below_zero() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        accounts.enter(&[memcg(10, 1)], Entry::Kill, 1);
        accounts.enter_missing([C].into_iter(), Entry::CounterOnly, 1);
        assert_eq!(book(&accounts, C).residual(), -1);
    }

    #[test]
    fn the_page_before_counters_started_again_is_kept() {
        let mut accounts = Accounts::default();
        accounts.open(C, 7);
        accounts.enter(&[memcg(10, 8)], Entry::Kill, 1);
        let mut again = memcg(10, 1);
        again.serial += 1;
        accounts.enter(&[again], Entry::Kill, 1);
        let kept = book(&accounts, C);
        assert_eq!((kept.rise, kept.kills, kept.residual()), (2, 2, 0));
    }

    /// The counter moves before its record is made: compared at once, the kill was told twice.
    #[test]
    fn a_kill_that_was_under_way_when_the_counter_was_read_is_not_missing() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        accounts.note(C, 1);
        accounts.enter(&[memcg(10, 1)], Entry::Kill, 1);
        assert_eq!(accounts.missing_noted(C), Some((0, 1)));
        assert_eq!(book(&accounts, C).residual(), 0);
    }

    #[test]
    fn kills_after_the_counter_was_read_do_not_hide_a_loss_before() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        accounts.note(C, 2);
        accounts.enter(&[memcg(10, 2)], Entry::Kill, 1);
        accounts.enter(&[memcg(10, 3)], Entry::Kill, 1);
        assert_eq!(accounts.missing_noted(C), Some((1, 2)));
    }

    #[test]
    fn a_counter_that_was_noted_is_no_word_on_its_successor() {
        let mut accounts = Accounts::default();
        accounts.open(C, 0);
        accounts.enter(&[memcg(10, 1)], Entry::Kill, 1);
        accounts.note(C, 5);
        let mut again = memcg(10, 1);
        again.serial += 1;
        accounts.enter(&[again], Entry::Kill, 1);
        assert_eq!(accounts.missing_noted(C), None);
    }
}
