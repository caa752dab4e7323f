//! The clocks: boot time, which the kernel stamps records with, and wall time.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::event::Now;

/// Reads both clocks.
pub(crate) fn now() -> Now {
    Now {
        boottime_ns: u64::try_from(nanoseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0),
        unix_time_ns: nanoseconds(clock_gettime(ClockId::Realtime)),
    }
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
