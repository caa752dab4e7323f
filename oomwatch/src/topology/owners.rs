//! Who made a cgroup: the owners of the directories above it. Whoever owns a directory names the cgroups in it. A rename
//! is not possible on cgroup v2, so a name is its maker's for good.
//!
//! The engine asks by this trait and touches no file.

use std::fmt;

/// Who owns every directory above a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MadeBy {
    Root,
    /// A directory is this user's.
    User(u32),
    /// A directory is gone, or others may write to it.
    Unknown,
}

/// Looks at directories of the hierarchy.
pub(crate) trait Owners: fmt::Debug + Send + Sync {
    /// Who makes cgroups in the one with this path, as far as its own directory says.
    fn owner(&self, directory: &[u8]) -> MadeBy;
}

/// A host on which all directories are root's.
#[cfg(any(test, feature = "bench"))]
#[derive(Debug)]
pub(crate) struct AllRoots;

#[cfg(any(test, feature = "bench"))]
impl Owners for AllRoots {
    fn owner(&self, _directory: &[u8]) -> MadeBy {
        MadeBy::Root
    }
}
