//! The HTTP API of a running watcher: a control socket, and a read-only listener.
//!
//! [`Api`] answers requests from the latest events (`recent`), which its publisher collects, and from the watcher
//! behind one small trait ([`Requests`]). `routes` has the table of routes. [`ControlSocket`] and
//! [`ReadOnlyListener`] make the sockets before anything is attached, and `serve` moves their connections. Every
//! size, number and time that a client influences is bounded. Never touches the engine, the ring or a cgroup.

mod answer;
mod containers;
mod control;
mod events;
#[cfg(test)]
mod fake;
mod history;
mod host;
mod listen;
mod observe;
mod page;
mod problem;
mod recent;
mod routes;
mod serve;
mod stream;

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use self::{
    control::{ControlAccess, ControlError, ControlSocket},
    listen::{ListenError, ReadOnlyListener},
    recent::ApiPublisher,
};
use self::{recent::Recent, serve::Listen};
use crate::watcher::{Handle, requests::Requests};

/// Streams of events that are open at a time, on all sockets together.
const MAX_STREAMS: usize = 64;
/// Answers with all containers or much history that exist at a time and are not yet sent.
const MAX_LARGE_ANSWERS: usize = 4;
/// Time from the stop until the last connection is cut.
const GRACE: Duration = Duration::from_secs(2);

/// The text of the metrics, once it is made.
pub type MetricsFuture = Pin<Box<dyn Future<Output = String> + Send>>;
type Metrics = Box<dyn Fn() -> MetricsFuture + Send + Sync>;

/// The HTTP API of a watcher: its sockets, and the sources of its answers.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use oomwatch::{Api, ControlAccess, ControlSocket, Watcher};
///
/// let (api, publisher) = Api::new();
/// let socket = ControlSocket::bind("/run/example.sock", ControlAccess::Owner).await?;
/// let watcher = Watcher::builder().publisher(publisher).start().await?;
/// let mut serving = api.control(socket).serve(watcher.handle());
/// // Later: no new connections, then the last events, then the end.
/// serving.stop();
/// watcher.shutdown().await?;
/// serving.finish().await;
/// # Ok(())
/// # }
/// ```
pub struct Api {
    recent: watch::Receiver<Recent>,
    state_dir: Option<PathBuf>,
    metrics: Option<Metrics>,
    control: Option<ControlSocket>,
    read_only: Option<ReadOnlyListener>,
}

impl Api {
    /// Makes an API and its publisher. The API knows only events that the [`crate::watcher::Builder`] gives to that
    /// publisher.
    #[must_use]
    pub fn new() -> (Self, ApiPublisher) {
        let (publisher, recent) = recent::channel();
        let api = Self {
            recent,
            state_dir: None,
            metrics: None,
            control: None,
            read_only: None,
        };
        (api, publisher)
    }

    /// Serves everything on this socket.
    #[must_use]
    pub fn control(mut self, socket: ControlSocket) -> Self {
        self.control = Some(socket);
        self
    }

    /// Serves the read-only routes and the status page on this listener.
    #[must_use]
    pub fn read_only(mut self, listener: ReadOnlyListener) -> Self {
        self.read_only = Some(listener);
        self
    }

    /// Answers `/v1/history` from this state directory.
    #[must_use]
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Answers `/metrics` with this, in the OpenMetrics text format.
    #[must_use]
    pub fn metrics(mut self, metrics: impl Fn() -> MetricsFuture + Send + Sync + 'static) -> Self {
        self.metrics = Some(Box::new(metrics));
        self
    }

    /// Serves on tasks of the tokio runtime that this is called in.
    #[must_use]
    pub fn serve(self, handle: Handle) -> Serving {
        self.serve_for(handle)
    }

    fn serve_for(self, watched: impl Requests) -> Serving {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            watched: Box::new(watched),
            recent: self.recent,
            state_dir: self.state_dir,
            metrics: self.metrics,
            started: Instant::now(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            large_answers: Arc::new(Semaphore::new(MAX_LARGE_ANSWERS)),
            stop: stop.clone(),
        });
        let mut tasks = JoinSet::new();
        if let Some(socket) = self.control {
            let router = routes::control(Arc::clone(&shared));
            tasks.spawn(serve::serve(Listen::Control(socket), router, stop.clone()));
        }
        if let Some(listener) = self.read_only {
            let router = routes::read_only(Arc::clone(&shared), listener.is_loopback());
            tasks.spawn(serve::serve(
                Listen::ReadOnly(listener),
                router,
                stop.clone(),
            ));
        }
        Serving {
            tasks,
            stop,
            ends_at: None,
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("state_dir", &self.state_dir)
            .field("control", &self.control)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// The sockets being served. Dropping it ends that at once.
#[derive(Debug)]
pub struct Serving {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    ends_at: Option<tokio::time::Instant>,
}

impl Serving {
    /// Closes the sockets, and each connection once its request is answered. Streams continue until the watcher's
    /// last event, for 2 s at most.
    pub fn stop(&mut self) {
        self.stop.cancel();
        self.ends_at
            .get_or_insert_with(|| tokio::time::Instant::now() + GRACE);
    }

    /// Stops, unless [`Self::stop`] was called before, and waits for the end.
    pub async fn finish(mut self) {
        self.stop();
        let ends_at = self.ends_at.unwrap_or_else(tokio::time::Instant::now);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(ends_at, all).await.is_err() {
            debug!("connections of the API were cut");
        }
        // So that the socket's file is gone when this returns.
        self.tasks.shutdown().await;
    }
}

/// The state that all requests share.
struct Shared {
    watched: Box<dyn Requests>,
    recent: watch::Receiver<Recent>,
    state_dir: Option<PathBuf>,
    metrics: Option<Metrics>,
    started: Instant,
    /// A permit goes with each stream.
    streams: Arc<Semaphore>,
    /// A permit goes with each large answer until most of it is sent.
    large_answers: Arc<Semaphore>,
    stop: CancellationToken,
}

#[cfg(test)]
mod tests;
