//! Containers by the Kubernetes container runtime interface.

use std::path::{Path, PathBuf};

use super::source::{FollowFuture, RuntimeApi, Sightings, Source, SourceError};

/// One runtime's socket.
#[derive(Debug)]
pub(crate) struct Cri {
    socket: PathBuf,
}

impl Cri {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Source for Cri {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Cri
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn follow<'a>(&'a mut self, _sightings: &'a Sightings) -> FollowFuture<'a> {
        Box::pin(async { Err(SourceError::Closed) })
    }
}
