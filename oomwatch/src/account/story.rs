//! One container's account: its page of the book, and what happened to it in this run. Knows no other
//! container.

use hashbrown::HashMap;

use super::{Numbers, Page, Told};
use crate::CgroupId;

/// A counter that was read, to be compared when the records of all that it counted have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) oom_kill: u64,
    /// What was said since of increments that came later: it does not make up for a loss before.
    pub(super) beyond: u64,
}

/// What happened to a container in this run; most of them never lose a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Story {
    pub(super) numbers: Numbers,
    /// How far the book's beginning is before the counter that it was opened at.
    pub(super) moved: u64,
    /// Double counts that late claims have brought in.
    pub(super) claimed_recounts: u64,
    pub(super) noted: Option<Noted>,
}

/// One container's account, put together from where its parts are kept: most containers have but a
/// page.
pub(super) struct Account<'a> {
    pub(super) cgroup: CgroupId,
    pub(super) page: &'a mut Page,
    pub(super) resumed: bool,
    pub(super) stories: &'a mut HashMap<CgroupId, Story>,
}

impl Account<'_> {
    /// To be asked for before the page is changed: the story begins where all of it was told.
    pub(super) fn story(&mut self) -> &mut Story {
        let start = self.page.told();
        self.stories.entry(self.cgroup).or_insert_with(|| Story {
            numbers: Numbers::starting_at(start),
            ..Story::default()
        })
    }

    /// Other counters than before start from 0: the controller was switched off and on.
    pub(super) fn meet(&mut self, serial: u32) {
        if self.page.meet(serial) {
            self.begin_again();
        }
    }

    pub(super) fn begin_again(&mut self) {
        if let Some(story) = self.stories.get_mut(&self.cgroup) {
            story.numbers.begin_again();
            story.moved = 0;
            story.noted = None;
        }
    }

    /// The counter was seen at this value.
    pub(super) fn see(&mut self, oom_kill: u64) {
        if oom_kill > self.page.told() || self.stories.contains_key(&self.cgroup) {
            self.story().numbers.see(oom_kill);
        }
    }

    /// The counter that it was opened at: a mark up to this is older than the book.
    pub(super) fn opened(&self) -> u64 {
        let story = self.stories.get(&self.cgroup);
        self.page.base + story.map_or(0, |story| story.moved)
    }

    /// Moves the beginning to before `count` increments, which are yet to be entered; returns how many
    /// there were.
    pub(super) fn move_back(&mut self, count: u64) -> u64 {
        let count = count.min(self.page.base);
        let story = self.story();
        story.moved += count;
        let numbers = &mut story.numbers;
        numbers.see(numbers.start);
        numbers.start = numbers.start.saturating_sub(count);
        self.page.base -= count;
        count
    }

    pub(super) fn enter(&mut self, told: Told, count: u64) {
        self.story().numbers.enter(told, count);
        self.page.accounted += count;
    }

    /// Enters increments of which the counter is known that they led to.
    pub(super) fn enter_at(&mut self, oom_kill: u64, told: Told, count: u64) {
        self.enter(told, count);
        if let Some(noted) = self.story().noted.as_mut()
            && oom_kill > noted.oom_kill
        {
            noted.beyond += count;
        }
    }
}
