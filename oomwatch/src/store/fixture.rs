//! Ledgers, and a place for them, for tests of the store.

use std::path::Path;

use super::{Batch, Store, database::Database, files::Files};
use crate::{
    event::{OomEvent, fixture::BOOT},
    id::{CgroupId, Css},
    ledger::{Change, Ledger},
};

pub(super) fn state_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A ledger of a cgroup that lost `reported` processes.
pub(super) fn ledger(cgroup: u64, reported: u64) -> (CgroupId, Ledger) {
    let ledger = Ledger {
        parent: Some(CgroupId(1)),
        css: Css {
            inode: Some(cgroup ^ 0xff),
            serial: None,
        },
        base: 1,
        counter: 1 + reported,
        reported,
        double_counts: 0,
        below: 2,
    };
    (CgroupId(cgroup), ledger)
}

/// The same, as a change.
pub(super) fn changed(cgroup: u64, reported: u64) -> Change {
    let (cgroup, ledger) = ledger(cgroup, reported);
    (cgroup, Some(ledger))
}

/// Hands a batch over once the one before is written.
pub(crate) fn hand_over(store: &mut Store, batch: Batch) {
    while store.is_writing() {
        std::thread::yield_now();
    }
    store.write(batch);
}

/// When a store must have ended.
pub(crate) fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + std::time::Duration::from_secs(20)
}

/// A history of these events.
pub(crate) fn write(dir: &Path, events: impl Iterator<Item = OomEvent>) {
    let files = Files::lock(dir).unwrap();
    let (mut database, _) = Database::open_or_begin(&files, BOOT).unwrap();
    let batch = Batch {
        events: events.map(Into::into).collect(),
        ..Batch::default()
    };
    database.write(&batch, BOOT).unwrap();
}
