//! Books, and a place for them, for tests of the store.

use std::path::Path;

use super::{Batch, Store, database::Database, files::Files};
use crate::{
    CgroupId, ContainerId, OomEvent,
    account::{Book, Page},
    event::fixture::BOOT,
};

pub(super) fn state_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A book whose container lost `accounted` processes.
pub(super) fn book(cgroup: u64, accounted: u64) -> Book {
    Book {
        cgroup_id: CgroupId(cgroup),
        container_id: ContainerId::new(&format!("c{cgroup}")).unwrap(),
        by_hand: cgroup.is_multiple_of(2),
        page: Some(Page {
            serial: Some(7),
            base: 1,
            accounted,
        }),
        recounts: 1,
    }
}

/// Hands a batch over once the one before is written.
pub(crate) fn hand_over(store: &mut Store, batch: Batch) {
    while store.is_writing() {
        std::thread::yield_now();
    }
    store.write(batch);
}

/// When a store is to have come to its end.
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
