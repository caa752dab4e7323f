//! When to compare the counters with the ledgers, after records were lost.
//!
//! The kernel raises a counter before the record is made. So the counters are read once the storm may be over. They
//! are compared only when all that they counted has had its time to arrive. Pure: time is an argument.

/// Between a loss and the reading of the counters: the kills of a storm go on for a while.
const READ_AFTER_NS: u64 = 500_000_000;
/// Between the reading and the comparison: the kernel may log a kill on a slow console first.
const COMPARE_AFTER_NS: u64 = 1_000_000_000;

/// Where the audit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Audit {
    /// Nothing was lost since the last one.
    #[default]
    Idle,
    /// The counters are to be read.
    Read { at_ns: u64 },
    /// They were read, and must be compared. A loss since then is not in them.
    Compare { at_ns: u64, lost_since: bool },
}

impl Audit {
    /// When the next step is due.
    pub(super) fn deadline_ns(self) -> Option<u64> {
        match self {
            Self::Idle => None,
            Self::Read { at_ns } | Self::Compare { at_ns, .. } => Some(at_ns),
        }
    }

    /// Records were lost. Further losses do not delay the audit under way.
    pub(super) fn lost(&mut self, now_ns: u64) {
        match self {
            Self::Idle => *self = Self::to_read(now_ns),
            Self::Read { .. } => {}
            Self::Compare { lost_since, .. } => *lost_since = true,
        }
    }

    /// Whether records were lost that no reading shows yet.
    pub(super) fn is_loss_open(self) -> bool {
        match self {
            Self::Idle => false,
            Self::Read { .. } => true,
            Self::Compare { lost_since, .. } => lost_since,
        }
    }

    /// The counters were read out of turn.
    pub(super) fn noted(&mut self, now_ns: u64) {
        *self = Self::Compare {
            at_ns: now_ns + COMPARE_AFTER_NS,
            lost_since: !matches!(self, Self::Idle),
        };
    }

    /// The step that was due is done.
    pub(super) fn done(&mut self, now_ns: u64) {
        *self = match *self {
            Self::Read { .. } => Self::Compare {
                at_ns: now_ns + COMPARE_AFTER_NS,
                lost_since: false,
            },
            Self::Compare {
                lost_since: true, ..
            } => Self::to_read(now_ns),
            Self::Idle | Self::Compare { .. } => Self::Idle,
        };
    }

    /// The reading took until now: what was counted by then needs its time to arrive.
    pub(super) fn settle_from(&mut self, now_ns: u64) {
        if let Self::Compare { at_ns, .. } = self {
            *at_ns = now_ns + COMPARE_AFTER_NS;
        }
    }

    fn to_read(now_ns: u64) -> Self {
        Self::Read {
            at_ns: now_ns + READ_AFTER_NS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_compared_some_time_after_they_were_read() {
        let mut audit = Audit::default();
        assert_eq!(audit.deadline_ns(), None);
        audit.lost(0);
        assert_eq!(audit.deadline_ns(), Some(READ_AFTER_NS));
        audit.done(READ_AFTER_NS);
        let compare_ns = READ_AFTER_NS + COMPARE_AFTER_NS;
        assert_eq!(audit.deadline_ns(), Some(compare_ns));
        audit.done(compare_ns);
        assert_eq!(audit, Audit::Idle);
    }

    #[test]
    fn losses_that_go_on_neither_delay_an_audit_nor_go_without_one() {
        let mut audit = Audit::default();
        audit.lost(0);
        audit.lost(400_000_000);
        assert_eq!(audit.deadline_ns(), Some(READ_AFTER_NS));
        audit.done(READ_AFTER_NS);
        audit.lost(READ_AFTER_NS + 1);
        audit.done(READ_AFTER_NS + COMPARE_AFTER_NS);
        assert!(matches!(audit, Audit::Read { .. }), "{audit:?}");
    }

    #[test]
    fn what_is_lost_while_counters_are_read_is_for_the_next_audit() {
        let mut audit = Audit::default();
        audit.lost(0);
        audit.done(READ_AFTER_NS);
        audit.lost(READ_AFTER_NS + 1);
        audit.settle_from(READ_AFTER_NS + 5);
        let compare_ns = READ_AFTER_NS + 5 + COMPARE_AFTER_NS;
        assert_eq!(audit.deadline_ns(), Some(compare_ns));
        audit.done(compare_ns);
        assert!(matches!(audit, Audit::Read { .. }), "{audit:?}");
    }
}
