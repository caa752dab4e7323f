//! What a container's rise was made of in this run of the daemon: for people and for tests, and not
//! what the books are balanced by.

/// What an increment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Kill,
    /// A kill that only the counter told of.
    CounterOnly,
    /// The kernel's second count of one kill.
    Recount,
}

/// A container's numbers in this run of the daemon, with those of all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The counter up to which all was told before this run, or before the registration in it.
    pub(super) start: u64,
    /// The counter as it was seen last.
    seen: u64,
    /// The rise of counters that were there before these.
    closed: u64,
    pub(crate) kills: u64,
    pub(crate) counter_only: u64,
    pub(crate) recounts: u64,
}

impl Numbers {
    pub(super) fn starting_at(start: u64) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// By how much the counter rose, as far as it was seen.
    pub(crate) fn rise(&self) -> u64 {
        self.closed + self.seen.saturating_sub(self.start)
    }

    /// What of the rise cannot be reconciled: 0 where the law holds, less than 0 where more was
    /// told than was counted.
    pub(crate) fn residual(&self) -> i64 {
        let told = self.kills + self.counter_only + self.recounts;
        self.rise().wrapping_sub(told).cast_signed()
    }

    pub(super) fn see(&mut self, oom_kill: u64) {
        self.seen = self.seen.max(oom_kill);
    }

    pub(super) fn enter(&mut self, told: Told, count: u64) {
        *match told {
            Told::Kill => &mut self.kills,
            Told::CounterOnly => &mut self.counter_only,
            Told::Recount => &mut self.recounts,
        } += count;
    }

    /// The counter began again at 0.
    pub(super) fn begin_again(&mut self) {
        self.closed = self.rise();
        self.start = 0;
        self.seen = 0;
    }
}
