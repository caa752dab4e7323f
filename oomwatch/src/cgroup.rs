//! Cgroups: the tree as the kernel told it ([`tree`], pure), the files under the mount
//! ([`hierarchy`]), a walk over all of them ([`walk`]), names as they are kept ([`name`], pure), and the text of
//! `memory.events` ([`memory_events`], pure).

pub(crate) mod hierarchy;
pub(crate) mod memory_events;
mod name;
pub(crate) mod tree;
pub(crate) mod walk;
