//! The books of every registered container: by how much its counter rose since registration, and
//! what of that was said.
//!
//! The law that is kept here, at every audit:
//! `rise of oom_kill == kills + counter_only + recounts`. What is missing on the right becomes
//! `counter_only`, once. Pure: counter values come in as arguments.

mod numbers;
mod story;

use hashbrown::{HashMap, HashSet, hash_map::Entry};

pub(crate) use self::numbers::{Numbers, Told};
use self::story::{Account, Noted, Story};
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
    /// The counter at registration, less what is told of later though it was counted before.
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
    /// With the counter that was read first in this one.
    resumed: HashMap<CgroupId, Option<u64>>,
    /// Of the few that something happened to.
    stories: HashMap<CgroupId, Story>,
    /// Increments of the whole node that were spoken of.
    node_told: u64,
    /// Books that changed since they were last asked for; `None` where nobody keeps them.
    changed: Option<HashSet<CgroupId>>,
}

impl Accounts {
    fn account(&mut self, cgroup: CgroupId) -> Option<Account<'_>> {
        Some(Account {
            cgroup,
            page: self.pages.get_mut(&cgroup)?,
            resumed: self.resumed.contains_key(&cgroup),
            stories: &mut self.stories,
        })
    }

    /// Opens a book for a container whose counter is `base` now; one from an earlier run goes on. What
    /// books below it have yet to tell, `owed`, will be entered, so it begins before that.
    pub(crate) fn open(&mut self, cgroup: CgroupId, base: u64, owed: u64) {
        if let Entry::Vacant(page) = self.pages.entry(cgroup) {
            page.insert(Page {
                base,
                ..Page::default()
            });
            self.owe(cgroup, owed);
        }
        self.touch(cgroup);
    }

    /// A book begins before `owed` increments that one below it has yet to tell.
    pub(crate) fn owe(&mut self, cgroup: CgroupId, owed: u64) {
        if owed > 0
            && let Some(mut account) = self.account(cgroup)
        {
            account.move_back(owed);
            self.touch(cgroup);
        }
    }

    /// A book takes the place of another on its cgroup, which had `owed` increments to tell: their marks,
    /// if there are any, are this book's.
    pub(crate) fn take_over(&mut self, cgroup: CgroupId, owed: u64) {
        if owed > 0
            && let Some(mut account) = self.account(cgroup)
        {
            let owed = account.move_back(owed);
            account.story().moved -= owed;
            self.touch(cgroup);
        }
    }

    /// How many increments nobody spoke of, of a counter that was read.
    pub(crate) fn untold(&self, cgroup: CgroupId, oom_kill: u64) -> u64 {
        let page = self.pages.get(&cgroup);
        page.map_or(0, |page| oom_kill.saturating_sub(page.told()))
    }

    /// What was noted of a container is not to be compared: the next audit has it.
    pub(crate) fn drop_note(&mut self, cgroup: CgroupId) {
        if let Some(story) = self.stories.get_mut(&cgroup) {
            story.noted = None;
        }
    }

    /// Closes a book for good.
    pub(crate) fn close(&mut self, cgroup: CgroupId) {
        self.resumed.remove(&cgroup);
        self.stories.remove(&cgroup);
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
        self.resumed.insert(cgroup, None);
        self.touch(cgroup);
    }

    /// Whether a book is from an earlier run; asked once, right before its first audit.
    pub(crate) fn take_resumed(&mut self, cgroup: CgroupId) -> bool {
        self.resumed.remove(&cgroup).is_some()
    }

    /// Whether a book is from an earlier run, and not audited in this one.
    pub(crate) fn is_resumed(&self, cgroup: CgroupId) -> bool {
        self.resumed.contains_key(&cgroup)
    }

    /// The counter of a book from an earlier run was read; returns what of it nobody spoke of, the first
    /// time.
    pub(crate) fn read_resumed(&mut self, cgroup: CgroupId, oom_kill: u64) -> u64 {
        match self.resumed.get_mut(&cgroup) {
            Some(first) if first.is_none() => *first = Some(oom_kill),
            _ => return 0,
        }
        self.untold(cgroup, oom_kill)
    }

    /// Whether a book from an earlier run was behind the counter that was read first in this one.
    pub(crate) fn has_missed(&self, cgroup: CgroupId) -> bool {
        let first = self.resumed.get(&cgroup).copied().flatten();
        first.is_some_and(|oom_kill| self.untold(cgroup, oom_kill) > 0)
    }

    /// Books from an earlier run, with the counter that was read first in this one.
    pub(crate) fn resumed(&self) -> impl Iterator<Item = (CgroupId, u64)> + '_ {
        let resumed = self.resumed.iter();
        resumed.filter_map(|(&cgroup, first)| Some((cgroup, (*first)?)))
    }

    /// The counter of a cgroup was read for the first time in this run. Behind a book from an
    /// earlier one, it began again at 0 meanwhile: the book starts a new page. Tells whether.
    pub(crate) fn meet_counter(&mut self, cgroup: CgroupId, oom_kill: u64) -> bool {
        let Some(mut account) = self.account(cgroup) else {
            return false;
        };
        let began_again = account.resumed && oom_kill < account.page.told();
        if began_again {
            *account.page = Page::default();
            account.begin_again();
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

    /// Increments that were spoken of, of all containers and of none.
    pub(crate) fn node_told(&self) -> u64 {
        self.node_told
    }

    /// Increments were spoken of that are in no book.
    pub(crate) fn tell_outside(&mut self, count: u64) {
        self.node_told += count;
    }

    /// Enters a mark of which only the chain's counters are known, into the books from an earlier
    /// run that have something left to speak of, and into those above them that begin before that. Others
    /// have it in their base.
    pub(crate) fn enter_unjudged(&mut self, chain: &[Memcg]) -> Room {
        let mut room = Room::Unknown;
        for memcg in chain {
            let (Some(mut account), Some(oom_kill)) =
                (self.account(memcg.cgroup_id), memcg.oom_kill)
            else {
                continue;
            };
            if !account.resumed {
                if room == Room::Entered {
                    account.enter_at(oom_kill, Told::Kill, 1);
                    self.touch(memcg.cgroup_id);
                }
                continue;
            }
            account.meet(memcg.serial);
            account.see(oom_kill);
            if oom_kill > account.page.told() && room != Room::None {
                account.enter_at(oom_kill, Told::Kill, 1);
                room = Room::Entered;
            } else if room == Room::Unknown {
                // The lowest decides, as with marks that have a past.
                room = Room::None;
            }
            self.touch(memcg.cgroup_id);
        }
        self.node_told += u64::from(room != Room::None);
        room
    }

    /// Enters `count` counted increments into the books of all containers that they were charged
    /// to. The book of a container that was registered meanwhile has them in its base, which is moved to
    /// before them; unless it begins before all that one below it had to tell.
    pub(crate) fn enter(&mut self, chain: &[Memcg], told: Told, count: u64) {
        self.node_told += count;
        let mut is_owed = false;
        for memcg in chain {
            let (Some(mut account), Some(oom_kill)) =
                (self.account(memcg.cgroup_id), memcg.oom_kill)
            else {
                continue;
            };
            account.meet(memcg.serial);
            account.see(oom_kill);
            if is_owed || oom_kill > account.opened() {
                is_owed = true;
                account.enter_at(oom_kill, told, count);
            } else {
                let count = account.move_back(count);
                account.enter(told, count);
            }
            self.touch(memcg.cgroup_id);
        }
    }

    /// Moves the beginning of a book of this run to before `kills` and, in all, `recounts`.
    pub(crate) fn enter_claim(&mut self, cgroup: CgroupId, kills: u64, recounts: u64) {
        let Some(mut account) = self.account(cgroup) else {
            return;
        };
        if account.resumed {
            return;
        }
        let story = account.story();
        let recounts = recounts.saturating_sub(story.claimed_recounts);
        story.claimed_recounts += recounts;
        let claimed = account.move_back(kills.saturating_add(recounts));
        account.enter(Told::Kill, kills.min(claimed));
        account.enter(Told::Recount, claimed.saturating_sub(kills));
        self.touch(cgroup);
    }

    /// How many increments of a container nobody spoke of, with its counter at `oom_kill`. A
    /// counter behind the books is not news: the ring was quicker than the file.
    pub(crate) fn missing(&mut self, cgroup: CgroupId, oom_kill: u64, serial: Option<u32>) -> u64 {
        let Some(mut account) = self.account(cgroup) else {
            return 0;
        };
        if let Some(serial) = serial {
            account.meet(serial);
        }
        account.see(oom_kill);
        oom_kill.saturating_sub(account.page.told())
    }

    /// Keeps a container's counter as it was read now, for [`Self::missing_noted`].
    pub(crate) fn note(&mut self, cgroup: CgroupId, oom_kill: u64) {
        let Some(mut account) = self.account(cgroup) else {
            return;
        };
        account.see(oom_kill);
        // Where all of it was told, nothing can be missing later.
        if oom_kill > account.page.told() {
            account.story().noted = Some(Noted {
                oom_kill,
                beyond: 0,
            });
        }
    }

    /// How many of the increments in the counter that was noted nobody spoke of, and that counter.
    /// `None` where none was noted, or other counters have taken its place.
    pub(crate) fn missing_noted(&mut self, cgroup: CgroupId) -> Option<(u64, u64)> {
        let account = self.account(cgroup)?;
        let noted = account.stories.get_mut(&cgroup)?.noted.take()?;
        let told = account.page.told().saturating_sub(noted.beyond);
        Some((noted.oom_kill.saturating_sub(told), noted.oom_kill))
    }

    /// What was told as kills turned out to be second counts, in a container and those above it.
    pub(crate) fn were_recounts(&mut self, lineage: impl Iterator<Item = CgroupId>, count: u64) {
        for cgroup in lineage {
            if let Some(mut account) = self.account(cgroup) {
                let numbers = &mut account.story().numbers;
                numbers.counter_only = numbers.counter_only.saturating_sub(count);
                numbers.recounts += count;
            }
        }
    }

    /// The numbers of a container, if something happened to it in this run.
    pub(crate) fn numbers_of(&self, cgroup: CgroupId) -> Option<Numbers> {
        self.stories.get(&cgroup).map(|story| story.numbers)
    }

    /// The numbers of all containers that something happened to, in no order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (CgroupId, Numbers)> {
        let stories = self.stories.iter();
        stories.map(|(&cgroup, story)| (cgroup, story.numbers))
    }

    /// Enters increments that no record with counters told of, into the books of a container and
    /// of those above it. Where those above were noted before, they may hide a loss there until
    /// the next audit: which came first is not known.
    pub(crate) fn enter_missing(
        &mut self,
        lineage: impl Iterator<Item = CgroupId>,
        told: Told,
        count: u64,
    ) {
        self.node_told += count;
        for cgroup in lineage {
            if let Some(mut account) = self.account(cgroup) {
                account.enter(told, count);
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
    /// Tells whether.
    fn meet(&mut self, serial: u32) -> bool {
        let others = self.serial.is_some_and(|known| known != serial);
        if others {
            self.base = 0;
            self.accounted = 0;
        }
        self.serial = Some(serial);
        others
    }
}

#[cfg(test)]
mod tests;
