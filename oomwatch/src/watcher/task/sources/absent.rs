//! Stands in where the feature `runtimes` is off: there are no sources.

use std::io;

use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::{
        names::SourceNumber,
        sighting::{RuntimeKey, RuntimeSocket, Sighting},
    },
};

#[derive(Debug, Default)]
pub(in super::super) struct Sources {}

impl Sources {
    pub(in super::super) fn start(
        _wanted: &[RuntimeSocket],
        _possible: &[RuntimeSocket],
        _hierarchy: &Hierarchy,
    ) -> io::Result<Self> {
        Ok(Self {})
    }

    pub(in super::super) fn ask(&self, _source: SourceNumber, _key: RuntimeKey) {}

    pub(in super::super) fn followed(
        &self,
    ) -> impl Iterator<Item = (SourceNumber, &RuntimeSocket)> {
        std::iter::empty()
    }

    pub(super) fn told(&mut self) -> Option<(SourceNumber, Sighting)> {
        None
    }

    pub(in super::super) async fn next(&mut self) -> (SourceNumber, Sighting) {
        std::future::pending().await
    }
}
