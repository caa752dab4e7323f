//! Cgroups: the tree as the kernel told it ([`tree`], pure), the files under the mount
//! ([`hierarchy`]), the way through them ([`scan`]), what that finds as plain data ([`walk`]), names as they are
//! kept ([`name`], pure), and the text of `memory.events` ([`memory_events`], pure).

pub(crate) mod counter_walk;
pub(crate) mod hierarchy;
pub(crate) mod memory_events;
mod name;
pub(crate) mod scan;
pub(crate) mod tree;
pub(crate) mod walk;
