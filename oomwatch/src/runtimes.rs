//! The container runtimes, which know the names. A [`source`] follows each over its socket.
//!
//! It registers no container and makes no event: sightings go to the watcher.

pub(crate) mod containerd;
pub(crate) mod cri;
pub(crate) mod docker;
pub(crate) mod grpc;
mod http;
mod labels;
pub(crate) mod podman;
pub(crate) mod source;
mod spec;
