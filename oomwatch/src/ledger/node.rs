//! The node's own count of OOM kills against everything that was reported of them.
//!
//! `/proc/vmstat` counts each kill of the node, in whichever cgroup, and the kernel's double counts. The part of its
//! increase that nobody reported is the residual. Those are kills outside every container whose records were lost, or
//! kills of containers that came and went unseen. Pure: values come in as arguments.

/// What was reported in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Increments of the node's count.
    pub(crate) all: u64,
    /// Of those, the kills that a counter alone showed: they may have been in the residual before.
    pub(crate) counter_only: u64,
}

/// The ledger of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeLedger {
    /// The count when nothing was reported. In a run that continues another, it may be ahead.
    base: u64,
    residual: u64,
    /// The part of the residual that the log has.
    warned: u64,
    /// `counter_only` of [`Reported`], at the last comparison.
    counter_only: u64,
}

impl NodeLedger {
    /// Begins with the count at `oom_kill`: all of it was reported or is past.
    pub(crate) fn begin(oom_kill: u64, reported: Reported) -> Self {
        Self {
            base: oom_kill.saturating_sub(reported.all),
            ..Self::default()
        }
    }

    /// Continues where another run had nothing more to report up to `reported_up_to`.
    pub(crate) fn resume(reported_up_to: u64) -> Self {
        Self {
            base: reported_up_to,
            ..Self::default()
        }
    }

    /// The count up to which the next run has nothing to report. A residual that the log has is past by then, unless
    /// something explained it since.
    pub(crate) fn reported_up_to(&self, reported: Reported) -> u64 {
        let explained = reported.counter_only.saturating_sub(self.counter_only);
        let warned = self.warned.min(self.residual).saturating_sub(explained);
        self.base
            .saturating_add(reported.all)
            .saturating_add(warned)
    }

    /// Compares the count with what was reported; returns the whole residual. `before` was read before the last
    /// record was: what it counts was seen or lost. `after` was read after that record: it includes all that was
    /// seen.
    pub(crate) fn compare(&mut self, (before, after): (u64, u64), reported: Reported) -> u64 {
        self.counter_only = reported.counter_only;
        let known = self.base.saturating_add(reported.all);
        self.residual = before.saturating_sub(known);
        if after < known {
            // A record was quicker than the count at the start, so the base was too high.
            self.base = after.saturating_sub(reported.all);
        }
        self.residual
    }

    /// The residual at the last comparison.
    pub(crate) fn residual(&self) -> u64 {
        self.residual
    }

    /// The residual, if the log has less of it; it counts as warned of from then on.
    pub(crate) fn take_warning(&mut self) -> Option<u64> {
        let is_more = self.residual > self.warned;
        self.warned = self.residual;
        is_more.then_some(self.residual)
    }
}

/// `oom_kill` of the text of `/proc/vmstat`; since v4.13.
pub(crate) fn oom_kill(vmstat: &str) -> Option<u64> {
    vmstat
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_by_its_whole_name() {
        assert_eq!(
            oom_kill("pgfree 1\noom_kill 42\ndrop_pagecache 0\n"),
            Some(42)
        );
        assert_eq!(oom_kill("xoom_kill 1\noom_kill_x 2\n"), None);
        assert_eq!(oom_kill("oom_kill many\n"), None);
    }

    fn reported(all: u64) -> Reported {
        Reported {
            all,
            counter_only: 0,
        }
    }

    #[test]
    fn what_nobody_reported_is_the_residual() {
        let mut node = NodeLedger::begin(100, reported(3));
        assert_eq!(node.compare((100, 100), reported(3)), 0);
        assert_eq!(node.compare((105, 105), reported(8)), 0);
        assert_eq!(node.compare((109, 109), reported(9)), 3);
        assert_eq!(node.residual(), 3);
        assert_eq!(
            node.compare((109, 109), reported(12)),
            0,
            "a counter told of them"
        );
    }

    #[test]
    fn a_record_that_was_quicker_than_the_count_is_no_residual() {
        let mut node = NodeLedger::begin(100, reported(0));
        assert_eq!(node.compare((100, 100), reported(1)), 0);
        assert_eq!(
            node.compare((101, 101), reported(1)),
            1,
            "and from then on all counts"
        );
    }

    /// It once lowered the base, and was a residual of 1 later.
    #[test]
    fn a_kill_between_the_count_and_the_ring_is_no_residual() {
        let mut node = NodeLedger::begin(100, reported(0));
        assert_eq!(node.compare((100, 101), reported(1)), 0);
        assert_eq!(node.compare((101, 101), reported(1)), 0);
    }

    #[test]
    fn a_run_goes_on_where_another_ended() {
        let before = NodeLedger::begin(100, reported(0)).reported_up_to(reported(7));
        let mut node = NodeLedger::resume(before);
        assert_eq!(node.compare((109, 109), reported(0)), 2);
    }

    /// Found from outside: the log warned of 36 lost records, then a counter showed them. The next run took the 36 as
    /// reported beyond the count, and hid that many kills.
    #[test]
    fn a_residual_that_was_warned_of_and_explained_since_hides_nothing() {
        let mut node = NodeLedger::begin(100, reported(0));
        assert_eq!(node.compare((142, 142), reported(6)), 36);
        assert_eq!(node.take_warning(), Some(36));
        assert_eq!(node.take_warning(), None);
        assert_eq!(
            node.reported_up_to(reported(6)),
            142,
            "what was warned of is past"
        );
        let explained = Reported {
            all: 43,
            counter_only: 36,
        };
        assert_eq!(node.reported_up_to(explained), 143);
        assert_eq!(node.compare((143, 143), explained), 0);
        assert_eq!(node.reported_up_to(explained), 143);
    }
}
