//! What the API needs of the watcher, and no more: tests have one of their own.

use std::{future::Future, path::Path, pin::Pin};

use crate::{
    engine::naming::Registered,
    watcher::{AddError, Handle, Status},
};

/// An answer of the watcher.
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, AddError>> + Send + 'a>>;

/// A watcher that can be asked. See [`Handle`] for what each does.
pub(super) trait Watched: Send + Sync + 'static {
    fn status(&self) -> Answer<'_, Status>;
    fn containers(&self) -> Answer<'_, Vec<Registered>>;
    fn add<'a>(&'a self, id: &'a str, cgroup: &'a Path) -> Answer<'a, ()>;
    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
}

impl Watched for Handle {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(Self::status(self))
    }

    fn containers(&self) -> Answer<'_, Vec<Registered>> {
        Box::pin(Self::containers(self))
    }

    fn add<'a>(&'a self, id: &'a str, cgroup: &'a Path) -> Answer<'a, ()> {
        Box::pin(Self::add(self, id, cgroup))
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(Self::remove(self, id))
    }
}
