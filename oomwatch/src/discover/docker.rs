//! Containers by Docker's HTTP API.

use std::path::{Path, PathBuf};

use super::source::{FollowFuture, RuntimeApi, Sightings, Source, SourceError};

/// One runtime's socket.
#[derive(Debug)]
pub(crate) struct Docker {
    socket: PathBuf,
}

impl Docker {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Source for Docker {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Docker
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn follow<'a>(&'a mut self, _sightings: &'a Sightings) -> FollowFuture<'a> {
        Box::pin(async { Err(SourceError::Closed) })
    }
}
