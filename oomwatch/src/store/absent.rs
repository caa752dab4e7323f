//! Stands in for the store where the feature `store` is off. Nobody can have a store then, so none of this is called.

use std::{convert::Infallible, sync::Arc};

use tokio::time::Instant;

use self::outbox::Outbox;
use super::{Batch, Saved, StoreConfig};

#[derive(Debug)]
pub(crate) enum Store {}

impl Store {
    /// Nobody can ask for one: there is no `Builder::state_dir`.
    pub(crate) fn open_in_time(
        _config: StoreConfig,
        _boot_id: Arc<str>,
    ) -> Result<(Self, Saved), Infallible> {
        unreachable!("a store, without the feature")
    }

    pub(crate) fn take_outbox(&mut self, _publisher: &str) -> Option<Outbox> {
        match *self {}
    }

    pub(crate) fn wants_whole(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn wanted(&self) {
        match *self {}
    }

    pub(crate) fn is_writing(&self) -> bool {
        match *self {}
    }

    pub(crate) fn was_written(&self) -> bool {
        match *self {}
    }

    pub(crate) fn write(&mut self, _batch: Batch) {
        match *self {}
    }

    pub(crate) fn lose(&mut self, _events: usize) {
        match *self {}
    }

    pub(crate) fn lost_events(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn hurry(&self) {
        match *self {}
    }

    pub(crate) fn close(&self) {
        match *self {}
    }

    pub(crate) async fn finish(self, _until: Instant) -> u64 {
        match self {}
    }
}

pub(crate) mod outbox {
    use std::sync::Arc;

    use crate::event::OomEvent;

    #[derive(Debug)]
    pub(crate) enum Outbox {}

    #[derive(Debug)]
    pub(crate) enum Backlog {}

    #[derive(Debug)]
    pub(crate) enum OutboxRead {
        Event(Arc<OomEvent>),
        Lost(u64),
    }

    impl Outbox {
        pub(crate) async fn next(&mut self) -> Option<OutboxRead> {
            match *self {}
        }

        pub(crate) fn given(&self) -> i64 {
            match *self {}
        }

        pub(crate) fn done(&self, _number: i64) {
            match *self {}
        }

        pub(crate) fn backlog(&self) -> Backlog {
            match *self {}
        }
    }

    impl Backlog {
        pub(crate) fn len(&self) -> u64 {
            match *self {}
        }
    }
}
