//! Sources of containers: the runtimes that know their names.
//!
//! A source follows one runtime over its socket and passes on each container that it sees. It knows no engine and no
//! event. [`drive`] keeps it connected, with a growing delay between tries. After each connection it lists
//! everything, so it misses nothing that happened in between. A source that hangs or fails disturbs neither another
//! source nor the probe. Its task only fills a bounded queue, and waits where that is full.

mod connected;
mod listing;
mod looks;
mod place;
mod socket;
pub(crate) mod speaker;
mod wanted;

use std::{error::Error, future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

pub(crate) use self::{
    connected::Connected,
    listing::{Listing, MAX_LISTED},
    looks::Looks,
    place::{Asked, ContainerPlace, Process},
    socket::source,
    wanted::Wanted,
};
use self::{
    place::Places,
    speaker::{Peer, Speaker},
};
use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::{
        container::ContainerDetails,
        sighting::{Realm, RuntimeApi, RuntimeKey, Sighting},
    },
    log::warn,
    retry::{LAST_RETRY, REQUEST_LIMIT, causes, delays},
    runtimes::grpc::GrpcError,
};

/// Sightings that wait for the watcher's task at most. Beyond this a source waits.
pub(crate) const SIGHTING_QUEUE: usize = 256;
/// Time until the source asks again a runtime without the interface. Such a runtime would need a new configuration.
const UNSUPPORTED_RETRY: Duration = Duration::from_secs(600);
/// A connection that held this long was good: the next try comes soon.
const STABLE: Duration = Duration::from_secs(60);
/// Why the source follows a runtime no longer, or not yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SourceError {
    /// The socket.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// A request failed.
    #[error("{request} failed")]
    Request {
        /// The request.
        request: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer within [`REQUEST_LIMIT`].
    #[error("no answer to {request} within {} s", REQUEST_LIMIT.as_secs())]
    Hangs {
        /// The request.
        request: &'static str,
    },
    /// The runtime listens there, and does not know the interface.
    #[error("the interface is not spoken there")]
    Unsupported,
    /// The stream of events ended.
    #[error("the runtime closed the connection")]
    Closed,
    /// The watcher is gone.
    #[error("nobody listens any more")]
    Stopped,
}

impl From<GrpcError> for SourceError {
    fn from(error: GrpcError) -> Self {
        match error {
            GrpcError::Connect(source) => Self::Connect(Box::new(source)),
            GrpcError::Closed => Self::Closed,
            GrpcError::Hangs { method, .. } => Self::Hangs { request: method },
            GrpcError::Refused { method, status } => Self::Request {
                request: method,
                source: status,
            },
        }
    }
}

/// The outcome of following a runtime. It ends when the connection does.
pub(crate) type FollowFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + 'a>>;

/// One runtime.
pub(crate) trait RuntimeSource: Send + 'static {
    /// The interface.
    fn api(&self) -> RuntimeApi;

    /// Where the runtime listens.
    fn socket(&self) -> &Path;

    /// Connects, subscribes to events, *then* lists and calls [`Sightings::listed`]. Then it passes on each change,
    /// and each container in `wanted`, until the connection ends.
    fn follow<'a>(
        &'a mut self,
        sightings: &'a Sightings,
        wanted: &'a mut Wanted,
    ) -> FollowFuture<'a>;
}

/// A container as its runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The runtime's own id.
    pub(crate) id: String,
    /// Where its cgroup may be found. Not needed where the path holds the id.
    pub(crate) place: ContainerPlace,
    /// Whether it has processes.
    pub(crate) is_running: bool,
    /// Names.
    pub(crate) details: ContainerDetails,
}

/// The way from a source to the watcher.
#[derive(Clone, Debug)]
pub(crate) struct Sightings {
    api: RuntimeApi,
    hierarchy: Arc<Hierarchy>,
    sender: mpsc::Sender<Sighting>,
    #[cfg(test)]
    as_if: Option<Speaker>,
}

impl Sightings {
    pub(crate) fn new(
        api: RuntimeApi,
        hierarchy: Arc<Hierarchy>,
        sender: mpsc::Sender<Sighting>,
    ) -> Self {
        Self {
            api,
            hierarchy,
            sender,
            #[cfg(test)]
            as_if: None,
        }
    }

    /// As if `speaker` answered, whoever runs the test.
    #[cfg(test)]
    pub(crate) fn as_if(api: RuntimeApi, speaker: Speaker, sender: mpsc::Sender<Sighting>) -> Self {
        Self {
            as_if: Some(speaker),
            ..Self::new(api, Arc::new(Hierarchy::at("/nowhere")), sender)
        }
    }

    /// The same, for what this peer says.
    pub(crate) fn of(&self, peer: Peer) -> Connected<'_> {
        #[cfg(test)]
        if let Some(speaker) = &self.as_if {
            return self.by(speaker.clone());
        }
        self.by(Speaker::new(peer, &self.hierarchy))
    }

    /// Passes on a container's details from an event, before the source asks for that container. Drops them while the
    /// watcher's queue is full.
    pub(crate) fn told(&self, realm: &Realm, mut seen: Seen) {
        listing::fit(&mut seen.details);
        let _ = self.sender.try_send(Sighting::Details {
            api: self.api,
            key: key(realm, seen.id),
            details: Box::new(seen.details),
        });
    }

    fn by(&self, speaker: Speaker) -> Connected<'_> {
        Connected::new(self, Places::new(self.hierarchy.clone(), speaker))
    }

    async fn send(&self, sighting: Sighting) -> Result<(), SourceError> {
        let sent = self.sender.send(sighting).await;
        sent.map_err(|_| SourceError::Stopped)
    }
}

pub(crate) fn key(realm: &Realm, id: String) -> RuntimeKey {
    let realm = realm.clone();
    RuntimeKey { id, realm }
}

/// Follows a runtime for as long as the watcher runs.
pub(crate) async fn drive(
    mut source: Box<dyn RuntimeSource>,
    sightings: Sightings,
    mut wanted: Wanted,
) {
    let mut delays = delays();
    let mut failures = 0_u32;
    loop {
        let since = Instant::now();
        let Err(error) = source.follow(&sightings, &mut wanted).await else {
            return;
        };
        if matches!(error, SourceError::Stopped) {
            return;
        }
        let lost = Sighting::Lost { api: source.api() };
        if sightings.send(lost).await.is_err() {
            return;
        }
        if since.elapsed() > STABLE {
            delays = crate::retry::delays();
            failures = 0;
        }
        failures = failures.saturating_add(1);
        say(source.as_ref(), &error, failures);
        let delay = match error {
            SourceError::Unsupported => UNSUPPORTED_RETRY,
            _ => delays.next().unwrap_or(LAST_RETRY),
        };
        tokio::time::sleep(delay).await;
    }
}

/// Warns of the first failure in a row. The others are the same one and go to the debug log.
fn say(source: &dyn RuntimeSource, error: &SourceError, failures: u32) {
    let (api, socket) = (source.api(), source.socket().display());
    let cause = causes(error);
    if matches!(error, SourceError::Unsupported) {
        debug!(source = %api, %socket, "a runtime does not speak this interface");
    } else if failures == 1 {
        warn!(source = %api, %socket, %error, cause, "cannot follow a container runtime for now: names may be missing");
    } else {
        debug!(source = %api, %socket, %error, cause, failures, "a runtime is still not followed");
    }
}

#[cfg(test)]
mod tests;
