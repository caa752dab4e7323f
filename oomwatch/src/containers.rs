//! Containers: which cgroup is which container, and its names.
//!
//! The [`registry`] holds them. [`by_path`] makes a container of a cgroup's [`path`], at once and without asking
//! anybody. A [`sighting`] is one report of a runtime, and [`names`] keeps what the sightings say. Pure: it asks no
//! runtime.

pub(crate) mod by_path;
pub(crate) mod container;
pub(crate) mod identity;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod registry;
pub(crate) mod sighting;
