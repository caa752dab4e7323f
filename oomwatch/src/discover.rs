//! Discovery: where registered containers, and their names, come from.
//!
//! [`cgroup`] registers by path, at once and without asking anybody. [`source`]s add what the
//! runtimes know, and register containers whose path says nothing.

pub(crate) mod cgroup;
pub(crate) mod containerd;
pub(crate) mod cri;
pub(crate) mod docker;
mod http;
pub(crate) mod names;
// The parser is fuzzed from outside.
#[doc(hidden)]
pub mod path;
pub(crate) mod podman;
pub(crate) mod source;
