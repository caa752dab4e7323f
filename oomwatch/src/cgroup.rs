//! The files under the cgroup mount. [`hierarchy`] finds and opens them, [`scan`] goes through all directories, and
//! [`walk`] compares a scan with the known cgroups. It also tells who owns a directory.

pub(crate) mod hierarchy;
mod owners;
pub(crate) mod scan;
pub(crate) mod walk;
