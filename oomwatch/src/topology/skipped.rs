//! What a scan left out, and whether another one may find it.

use std::fmt::Display;

use crate::id::CgroupId;

/// Bytes of a path that are kept for the log.
const SHOWN_BYTES: usize = 256;

/// The parts of the hierarchy that a scan left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Cgroups that may have more below them than was found.
    pub(crate) below: Vec<CgroupId>,
    /// How many of them could not be read.
    pub(crate) failed: u64,
    /// The first of those, and why.
    pub(crate) first_failed: Option<(Vec<u8>, String)>,
    /// How many of them have their children beyond the limit of depth.
    pub(crate) too_deep: u64,
    /// The first of those.
    pub(crate) first_too_deep: Option<Vec<u8>>,
    /// Whether another scan may find what is below some of them.
    pub(crate) may_pass: bool,
}

impl Skipped {
    /// A cgroup, or what is below it, could not be read.
    ///
    /// `may_pass` tells whether another scan may succeed.
    pub(crate) fn failed(
        &mut self,
        id: CgroupId,
        (error, may_pass): (impl Display, bool),
        path: impl FnOnce() -> Vec<u8>,
    ) {
        self.below.push(id);
        self.failed += 1;
        self.first_failed
            .get_or_insert_with(|| (shown(path()), error.to_string()));
        self.may_pass |= may_pass;
    }

    /// The children of a cgroup are too deep.
    pub(crate) fn too_deep(&mut self, id: CgroupId, path: impl FnOnce() -> Vec<u8>) {
        self.below.push(id);
        self.too_deep += 1;
        self.first_too_deep.get_or_insert_with(|| shown(path()));
    }

    /// Adds what a second scan left out: most of it is the same.
    pub(crate) fn add(&mut self, again: Self) {
        self.below.extend(again.below);
        self.failed = self.failed.max(again.failed);
        self.first_failed = self.first_failed.take().or(again.first_failed);
        self.too_deep = self.too_deep.max(again.too_deep);
        self.first_too_deep = self.first_too_deep.take().or(again.first_too_deep);
        self.may_pass |= again.may_pass;
    }
}

fn shown(mut path: Vec<u8>) -> Vec<u8> {
    if path.len() > SHOWN_BYTES {
        path.truncate(SHOWN_BYTES);
        path.extend_from_slice("…".as_bytes());
    }
    path
}
