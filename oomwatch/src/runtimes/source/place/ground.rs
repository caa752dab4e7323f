//! What is really there: directories of the hierarchy, and processes.

use std::{fmt, os::unix::fs::MetadataExt as _, sync::Arc};

use super::process::Process;
use crate::{cgroup::hierarchy::Hierarchy, id::CgroupId};

/// Where a runtime's word is compared with the facts. Paths are from the root of the hierarchy.
pub(crate) trait Ground: fmt::Debug {
    /// The cgroup at a path.
    fn cgroup(&self, path: &str) -> Option<CgroupId>;

    /// The owner of a cgroup's directory.
    fn owner(&self, path: &str) -> Option<u32>;

    /// The path of a process's cgroup, if the process is still the one that was named.
    fn path_of(&self, process: &Process) -> Option<String>;
}

impl Ground for Arc<Hierarchy> {
    fn cgroup(&self, path: &str) -> Option<CgroupId> {
        self.id(&self.directory(path.as_bytes())).ok()
    }

    fn owner(&self, path: &str) -> Option<u32> {
        let directory = self.directory(path.as_bytes());
        directory.symlink_metadata().ok().map(|found| found.uid())
    }

    fn path_of(&self, process: &Process) -> Option<String> {
        process.cgroup_path()
    }
}
