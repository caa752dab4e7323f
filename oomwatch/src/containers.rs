//! Containers: which cgroup is which container, and what it is called.
//!
//! The [`registry`] holds them. [`by_path`] makes one of a cgroup's [`path`], at once and without asking anybody;
//! a [`sighting`] is what a runtime says, and [`names`] keeps what it said. Pure: it asks no runtime.

pub(crate) mod by_path;
pub(crate) mod container;
pub(crate) mod names;
// The parser is fuzzed from outside.
#[doc(hidden)]
pub mod path;
pub(crate) mod registry;
pub(crate) mod sighting;
