//! Containers by Podman's HTTP API.

use std::path::{Path, PathBuf};

use super::source::{FollowFuture, RuntimeApi, Sightings, Source, SourceError};

/// One runtime's socket.
#[derive(Debug)]
pub(crate) struct Podman {
    socket: PathBuf,
}

impl Podman {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Source for Podman {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Podman
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn follow<'a>(&'a mut self, _sightings: &'a Sightings) -> FollowFuture<'a> {
        Box::pin(async { Err(SourceError::Closed) })
    }
}
