//! The files under the cgroup mount: [`hierarchy`] finds and opens them, [`scan`] goes through all directories,
//! and [`walk`] holds what a scan found against what was known.

pub(crate) mod hierarchy;
pub(crate) mod scan;
pub(crate) mod walk;
