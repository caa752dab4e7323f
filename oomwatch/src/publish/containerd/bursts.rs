//! Which kills still need an announcement: kills on one side, the shims' announcements on the other.
//!
//! Pure: time is an argument. A kill opens a burst. Further kills of its container join the burst until it is due,
//! and one announcement covers all of them. Bursts stay in the order of their kills. A burst leaves once it is sent,
//! or once it is due and a shim has announced it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How long a shim may take to announce a kill.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bursts that wait at most. Further kills stay in the publisher's queue.
const MAX_BURSTS: usize = 1024;
/// Announcements that are remembered for kills that come later.
const MAX_ANNOUNCEMENTS: usize = 4096;
/// Error of a kill's time stamp, in nanoseconds. It is the kernel's time, turned into wall-clock time.
const EXACT_SLACK_NS: i128 = 10_000_000;
/// The same for `counter_only` kills, in nanoseconds. Their time is when the counter was read: after the settling
/// time, and that long after the shim.
const COUNTED_SLACK_NS: i128 = 3_000_000_000;

/// A container of containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) namespace: String,
    pub(super) id: String,
}

/// A kill to be announced.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) task: Task,
    pub(super) unix_ns: i128,
    /// Whether that is the kernel's own time.
    pub(super) is_exact: bool,
}

/// Kills of one container, close together.
#[derive(Debug)]
struct Burst {
    task: Task,
    /// The first kill.
    unix_ns: i128,
    /// An earlier announcement belongs to another kill.
    since_unix_ns: i128,
    due: Instant,
    is_announced: bool,
}

impl Burst {
    fn is_meant(&self, task: &Task, unix_ns: i128) -> bool {
        self.task == *task && self.since_unix_ns <= unix_ns
    }
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    waiting: VecDeque<Burst>,
    /// Announcements by shims that match no known kill yet.
    announced: VecDeque<(Task, i128)>,
    /// Our own announcements, which come back to us.
    sent: VecDeque<(Task, i128)>,
}

impl Bursts {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_BURSTS
    }

    /// The subscription stands. Shims get their time again for announcements that they held back.
    pub(super) fn listening(&mut self, now: Instant) {
        for burst in &mut self.waiting {
            burst.due = burst.due.max(now + PATIENCE);
        }
    }

    pub(super) fn kill(&mut self, kill: Kill, now: Instant) {
        if self.joins(&kill.task, now) {
            return;
        }
        let slack_ns = if kill.is_exact {
            EXACT_SLACK_NS
        } else {
            COUNTED_SLACK_NS
        };
        let mut burst = Burst {
            unix_ns: kill.unix_ns,
            since_unix_ns: kill.unix_ns - slack_ns,
            due: now + PATIENCE,
            is_announced: false,
            task: kill.task,
        };
        let before = self.announced.len();
        self.announced
            .retain(|(task, unix_ns)| !burst.is_meant(task, *unix_ns));
        burst.is_announced = self.announced.len() < before;
        self.waiting.push_back(burst);
    }

    fn joins(&self, task: &Task, now: Instant) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|burst| burst.task == *task && now < burst.due)
    }

    /// Somebody announced a kill.
    pub(super) fn announced(&mut self, task: Task, unix_ns: i128) {
        if let Some(own) = position(&self.sent, &task, unix_ns) {
            self.sent.remove(own);
            return;
        }
        let mut is_known = false;
        for burst in &mut self.waiting {
            if burst.is_meant(&task, unix_ns) {
                burst.is_announced = true;
                is_known = true;
            }
        }
        if !is_known {
            self.announced.push_back((task, unix_ns));
            self.announced
                .drain(..self.announced.len().saturating_sub(MAX_ANNOUNCEMENTS));
        }
    }

    /// When there is something to do again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|burst| burst.due)
    }

    /// The announcement to send now, and its time. The caller then calls [`Self::sent`].
    pub(super) fn due(&mut self, now: Instant) -> Option<(Task, i128)> {
        while let Some(burst) = self.waiting.pop_front_if(|burst| burst.due <= now) {
            if !burst.is_announced {
                let due = (burst.task.clone(), burst.unix_ns);
                self.waiting.push_front(burst);
                return Some(due);
            }
        }
        None
    }

    /// The due announcement was sent.
    pub(super) fn sent(&mut self) {
        if let Some(burst) = self.waiting.pop_front() {
            self.sent.push_back((burst.task, burst.unix_ns));
            self.sent
                .drain(..self.sent.len().saturating_sub(MAX_ANNOUNCEMENTS));
        }
    }
}

fn position(of: &VecDeque<(Task, i128)>, task: &Task, unix_ns: i128) -> Option<usize> {
    of.iter()
        .position(|(other, other_ns)| other == task && *other_ns == unix_ns)
}

#[cfg(test)]
mod tests;
