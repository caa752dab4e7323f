//! Books, and a place for them, for tests of the store.

use crate::{
    CgroupId, ContainerId,
    account::{Book, Page},
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
