//! Where cgroups are: the [`tree`] as records and scans told it, names as it keeps them, and what a scan found, as
//! data ([`walk`]). Pure: it reads no file and knows no container.

mod name;
pub(crate) mod skipped;
pub(crate) mod tree;
pub(crate) mod walk;
