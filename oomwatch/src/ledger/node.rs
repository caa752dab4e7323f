//! The node's own count of OOM kills against everything that was said of them.
//!
//! `/proc/vmstat` counts each kill of the node, in whichever cgroup, and the kernel's double counts.
//! What of its rise nobody spoke of is the residual: kills outside of all containers whose records
//! were lost, or of containers that came and went unseen. Pure: values come in as arguments.

/// The books of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeBook {
    /// What the count was when nothing was spoken of; in a run that goes on after another, it may
    /// be ahead.
    base: u64,
    residual: u64,
}

impl NodeBook {
    /// Begins with the count at `oom_kill`, of which all was spoken of or is past.
    pub(crate) fn begin(oom_kill: u64, told: u64) -> Self {
        Self {
            base: oom_kill.saturating_sub(told),
            residual: 0,
        }
    }

    /// Goes on where another run had spoken of everything up to `told_up_to`.
    pub(crate) fn resume(told_up_to: u64) -> Self {
        Self {
            base: told_up_to,
            residual: 0,
        }
    }

    /// The count up to which everything was spoken of, and the residual is known.
    pub(crate) fn told_up_to(&self, told: u64) -> u64 {
        self.base.saturating_add(told)
    }

    /// Compares the count with what was spoken of; returns what nobody spoke of, in all. The count
    /// must have been read before the last record was: then what it has was seen or lost.
    pub(crate) fn compare(&mut self, oom_kill: u64, told: u64) -> u64 {
        match oom_kill.checked_sub(self.told_up_to(told)) {
            Some(residual) => self.residual = residual,
            // The record was quicker than the count, at the start: the base was too high.
            None => {
                self.base = oom_kill.saturating_sub(told);
                self.residual = 0;
            }
        }
        self.residual
    }

    /// What nobody spoke of, when it was compared last.
    pub(crate) fn residual(&self) -> u64 {
        self.residual
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

    #[test]
    fn what_nobody_spoke_of_is_the_residual() {
        let mut book = NodeBook::begin(100, 3);
        assert_eq!(book.compare(100, 3), 0);
        assert_eq!(book.compare(105, 8), 0);
        assert_eq!(book.compare(109, 9), 3);
        assert_eq!(book.residual(), 3);
        assert_eq!(book.compare(109, 12), 0, "a counter told of them since");
    }

    #[test]
    fn a_record_that_was_quicker_than_the_count_is_no_residual() {
        let mut book = NodeBook::begin(100, 0);
        assert_eq!(book.compare(100, 1), 0);
        assert_eq!(book.compare(101, 1), 1, "and from then on all counts");
    }

    #[test]
    fn a_run_goes_on_where_another_ended() {
        let before = NodeBook::begin(100, 0).told_up_to(7);
        let mut book = NodeBook::resume(before);
        assert_eq!(book.compare(109, 0), 2);
    }
}
