//! Where cgroups are: the [`tree`] that records and scans build, names as it keeps them, and a scan's result as data
//! ([`walk`]). [`owners`] asks who made them. Pure: it reads no file and knows no container.

mod name;
pub(crate) mod owners;
pub(crate) mod skipped;
pub(crate) mod tree;
pub(crate) mod walk;
