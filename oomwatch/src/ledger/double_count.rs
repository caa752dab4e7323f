//! How much of a counter's increase is double counts: the kernel counts the first victim of a group kill a second
//! time. Needed where only counters show the kills.
//!
//! Each of `g` group kills in an increase of `r` killed at least one process. So at most `min(g, r - g)` increments
//! were double counts. In the usual group kill the victim is the task that hit the limit, and there is one double
//! count (5.8 to 7.3). The code takes that bound. It is wrong by one where another task ran the OOM killer and the
//! kernel did not count twice. Pure.

use std::collections::HashMap;

use crate::id::CgroupId;

/// What is known of one container.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    serial: u32,
    /// `oom_group_kill` when watching began.
    base: u64,
    /// Group kills since then, those in registered cgroups below included.
    entered: u64,
    /// Group kills since then, without those below.
    groups: u64,
    /// Increase of `oom_kill` since then, without what was reported for registered cgroups below.
    rise: u64,
    /// The part of that increase that was reported as kills.
    told: u64,
}

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct DoubleCounts(HashMap<CgroupId, Book>);

impl DoubleCounts {
    /// Splits the `missing` increments of a container (`lineage`, itself first) that nobody reported. Returns how
    /// many are double counts; the others are kills. `is_new` where the counters began at 0 while the container was
    /// watched.
    ///
    /// A reading may fall into the midst of a group kill. What was reported is not taken back, and the sum is right
    /// once the kill is over.
    pub(crate) fn share_out(
        &mut self,
        lineage: &[CgroupId],
        serial: u32,
        oom_group_kill: u64,
        missing: u64,
        is_new: bool,
    ) -> u64 {
        let Some((&cgroup, above)) = lineage.split_first() else {
            return 0;
        };
        let base = if is_new { 0 } else { oom_group_kill };
        let fresh = |base| Book {
            serial,
            base,
            ..Book::default()
        };
        let book = self.0.entry(cgroup).or_insert_with(|| fresh(base));
        if book.serial != serial {
            *book = fresh(0);
        }
        let groups = oom_group_kill.saturating_sub(book.base.saturating_add(book.entered));
        book.entered = book.entered.saturating_add(groups);
        book.groups = book.groups.saturating_add(groups);
        book.rise = book.rise.saturating_add(missing);
        let double_counts = book.groups.min(book.rise.saturating_sub(book.groups));
        let told = (book.rise - double_counts).max(book.told);
        let kills = told - book.told;
        book.told = told;
        for id in above {
            if let Some(book) = self.0.get_mut(id) {
                book.entered = book.entered.saturating_add(groups);
            }
        }
        missing.saturating_sub(kills)
    }

    /// A kill in a container (`lineage`, itself first) was reported from its victim's own record.
    pub(crate) fn told(&mut self, lineage: &[CgroupId]) {
        if let Some(book) = lineage.first().and_then(|id| self.0.get_mut(id)) {
            book.rise = book.rise.saturating_add(1);
            book.told = book.told.saturating_add(1);
        }
    }

    pub(crate) fn forget(&mut self, cgroup: CgroupId) {
        self.0.remove(&cgroup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: CgroupId = CgroupId(10);
    const POD: CgroupId = CgroupId(5);

    /// Readings of one new container: `(oom_kill, oom_group_kill)`; returns kills and double counts.
    fn read(readings: &[(u64, u64)]) -> (u64, u64) {
        let mut double_counts = DoubleCounts::default();
        let (mut before, mut kills, mut doubles) = (0, 0, 0);
        for &(oom_kill, oom_group_kill) in readings {
            let missing = oom_kill - before;
            before = oom_kill;
            let double = double_counts.share_out(&[C], 1, oom_group_kill, missing, true);
            doubles += double;
            kills += missing - double;
        }
        (kills, doubles)
    }

    #[test]
    fn a_group_of_three_counts_four() {
        assert_eq!(read(&[(4, 1)]), (3, 1));
    }

    #[test]
    fn wherever_the_readings_fall() {
        for readings in [
            &[(1, 0), (4, 1)][..],
            &[(1, 1), (2, 1), (4, 1)],
            &[(3, 1), (4, 1)],
            &[(1, 0), (2, 1), (3, 1), (4, 1), (4, 1)],
        ] {
            assert_eq!(read(readings), (3, 1), "{readings:?}");
        }
    }

    #[test]
    fn a_group_of_one_counts_two() {
        assert_eq!(read(&[(2, 1), (4, 2)]), (2, 2));
    }

    #[test]
    fn single_kills_are_not_double_counts() {
        assert_eq!(read(&[(1, 0), (3, 0)]), (3, 0));
        assert_eq!(read(&[(2, 0), (3, 0), (3, 1), (7, 1)]), (6, 1));
    }

    #[test]
    fn each_group_killed_somebody() {
        assert_eq!(read(&[(3, 2)]), (2, 1));
    }

    #[test]
    fn old_groups_are_in_the_base() {
        let mut double_counts = DoubleCounts::default();
        assert_eq!(double_counts.share_out(&[C], 1, 5, 0, false), 0);
        assert_eq!(double_counts.share_out(&[C], 1, 5, 2, false), 0);
        assert_eq!(double_counts.share_out(&[C], 1, 6, 2, false), 1);
    }

    #[test]
    fn a_group_whose_members_told_of_themselves() {
        let mut double_counts = DoubleCounts::default();
        double_counts.share_out(&[C], 1, 0, 0, true);
        for _ in 0..3 {
            double_counts.told(&[C, POD]);
        }
        assert_eq!(double_counts.share_out(&[C], 1, 1, 1, false), 1);
    }

    #[test]
    fn a_group_below_is_not_counted_above_again() {
        let mut double_counts = DoubleCounts::default();
        double_counts.share_out(&[POD], 1, 0, 0, true);
        double_counts.share_out(&[C, POD], 2, 0, 0, true);
        assert_eq!(double_counts.share_out(&[C, POD], 2, 1, 4, true), 1);
        assert_eq!(double_counts.share_out(&[POD], 1, 1, 2, true), 0);
    }

    #[test]
    fn other_counters_start_a_new_page() {
        let mut double_counts = DoubleCounts::default();
        double_counts.share_out(&[C], 1, 7, 0, false);
        assert_eq!(double_counts.share_out(&[C], 2, 1, 2, false), 1);
    }
}
