//! What a walk over the whole hierarchy saw, as data: what is there, and what of the tree is not any more. When it is
//! taken in, records have told of more.

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
    /// Of those that were alive in the tree when it began, the ones that were not found. They are gone,
    /// but for those below what was skipped.
    pub(crate) missing: Vec<CgroupId>,
    /// What was not looked at.
    pub(crate) skipped: Skipped,
}
