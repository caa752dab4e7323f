//! The result of a walk over the whole hierarchy, as data: the cgroups that are there, and cgroups of the tree that
//! are gone. By the time the engine takes it in, records have reported more.

use super::skipped::Skipped;
use crate::id::CgroupId;

/// A cgroup that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveCgroup {
    pub(crate) id: CgroupId,
    pub(crate) parent: CgroupId,
    pub(crate) name: Box<[u8]>,
}

/// What a walk saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// When it began, on the boot-time clock.
    pub(crate) began_ns: u64,
    /// Parents first.
    pub(crate) found: Vec<LiveCgroup>,
    /// Cgroups that were alive in the tree when the walk began, and that it did not find. They are gone, except those
    /// below what was skipped.
    pub(crate) missing: Vec<CgroupId>,
    /// The cgroups that the walk skipped.
    pub(crate) skipped: Skipped,
}
