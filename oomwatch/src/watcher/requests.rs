//! What the API and the metrics ask a running watcher, behind a trait: their tests have one of their own.

use std::{future::Future, path::Path, pin::Pin};

use super::{AddError, Handle, Status, Stopped};
use crate::engine::naming::Registered;

/// An answer of the watcher.
pub(crate) type Answer<'a, T, E = Stopped> =
    Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A watcher that can be asked. See [`Handle`] for what each does.
pub(crate) trait Requests: Send + Sync + 'static {
    fn status(&self) -> Answer<'_, Status>;
    fn containers(&self) -> Answer<'_, Vec<Registered>>;
    fn add<'a>(&'a self, id: &'a str, cgroup: &'a Path) -> Answer<'a, (), AddError>;
    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, (), AddError>;
}

impl Requests for Handle {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(Self::status(self))
    }

    fn containers(&self) -> Answer<'_, Vec<Registered>> {
        Box::pin(Self::containers(self))
    }

    fn add<'a>(&'a self, id: &'a str, cgroup: &'a Path) -> Answer<'a, (), AddError> {
        Box::pin(Self::add(self, id, cgroup))
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, (), AddError> {
        Box::pin(Self::remove(self, id))
    }
}
