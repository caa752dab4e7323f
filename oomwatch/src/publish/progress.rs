//! The progress of a publisher: numbers that its task and its queue share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The outcome of a publisher's events so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) queued: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) lost_in_queue: AtomicU64,
    pub(super) lost_by_publisher: AtomicU64,
    /// Events of the store with an outcome, although an earlier one has none.
    pub(super) settled_ahead: AtomicU64,
    /// The publisher was closed before its first event, and wants none.
    pub(super) is_unwanted: AtomicBool,
}

/// Adds to a count, and returns the sum.
pub(super) fn add(count: &AtomicU64, number: u64) -> u64 {
    count.fetch_add(number, Ordering::Relaxed) + number
}

pub(super) fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
