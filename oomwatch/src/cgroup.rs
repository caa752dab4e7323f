//! The files under the cgroup mount. [`hierarchy`] finds and opens them, [`scan`] goes through all directories, and
//! [`walk`] compares a scan with the known cgroups.

pub(crate) mod hierarchy;
pub(crate) mod scan;
pub(crate) mod walk;
