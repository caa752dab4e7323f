//! containerd as a publisher: `TaskOOM` on `/tasks/oom`, in the container's namespace and with the kernel's time, for
//! CRI and Docker to see.
//!
//! In [`ContainerdMode::Missing`] a task of its own holds the connection, and [`bursts`] decides. It compares the
//! kills with the announcements of containerd's shims. In [`ContainerdMode::Always`] each kill is sent as it comes.
//! The publisher knows containers only from their events. It ignores kills of another containerd's containers, of
//! containers without a namespace, and of a pod's sandbox.

mod bursts;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tonic::Code;
use tracing::debug;

use self::bursts::{Bursts, Kill, Task};
use super::{Delivery, PublishError, PublishFuture, Publisher};
use crate::{
    containers::container::Container,
    event::{Kind, OomEvent},
    log::{info, warn},
    retry::{REQUEST_LIMIT, causes, delays},
    runtimes::grpc::{
        GrpcError,
        containerd::{
            Services,
            messages::{Any, Envelope, TaskOom, Timestamp},
        },
    },
};

const TOPIC: &str = "/tasks/oom";
const FILTER: &str = r#"topic=="/tasks/oom""#;
const TYPE: &str = "containerd.events.TaskOOM";
/// Kills on their way to the task.
const QUEUE: usize = 64;
/// How long the end waits for the rest: longer than a shim may take to announce a kill.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
const NANOS: i128 = 1_000_000_000;

/// Which kills are published into containerd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerdMode {
    /// Kills that containerd's shim did not announce within 2 s. All kills of a container in that time become one
    /// `TaskOOM`, because CRI and Docker treat each one as a separate exit.
    #[default]
    Missing,
    /// All kills. With [`crate::watcher::Builder::state_dir`], also those from before the watcher's start.
    Always,
}

/// Publishes kills into containerd, as `TaskOOM` on `/tasks/oom`.
///
/// Publishes only kills whose container the watcher knows from this containerd
/// ([`crate::watcher::Builder::runtime`]). It publishes in order, and through a restart of containerd.
/// [`ContainerdMode::Missing`] leaves out kills from before the watcher's start, because nobody knows what was
/// announced then.
#[derive(Debug)]
pub struct ContainerdPublisher {
    name: String,
    socket: PathBuf,
    mode: ContainerdMode,
    /// With [`ContainerdMode::Missing`].
    worker: Option<Worker>,
    /// With [`ContainerdMode::Always`].
    services: Option<Services>,
}

#[derive(Debug)]
struct Worker {
    kills: mpsc::Sender<Kill>,
    task: JoinHandle<()>,
}

impl ContainerdPublisher {
    /// Publishes to the containerd at this socket, from when the watcher starts.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, mode: ContainerdMode) -> Self {
        let socket = socket.into();
        Self {
            name: format!("containerd:{}", socket.display()),
            socket,
            mode,
            worker: None,
            services: None,
        }
    }

    /// The kill that an event announces, if any.
    fn kill(&self, event: &OomEvent) -> Option<Kill> {
        let is_kill = match event.kind {
            Kind::Kill | Kind::CounterOnly => true,
            Kind::AlreadyExiting => false,
        };
        let is_old = event.while_down && self.mode == ContainerdMode::Missing;
        if !is_kill || is_old {
            return None;
        }
        Some(Kill {
            task: task(event.answerable()?, &self.socket)?,
            unix_ns: event.unix_time_ns,
            is_exact: event.kind == Kind::Kill,
        })
    }

    /// Leaves it to the worker.
    async fn hand_over(&self, kill: Kill) -> Result<(), PublishError> {
        let worker = self.worker.as_ref().ok_or(PublishError::Closed)?;
        let sent = worker.kills.send(kill).await;
        sent.map_err(|_| PublishError::Closed)
    }

    /// Sends it at once.
    async fn forward(&mut self, kill: &Kill) -> Result<(), PublishError> {
        let services = match self.services.take() {
            Some(services) => services,
            None => Services::connect(&self.socket, REQUEST_LIMIT)
                .await
                .map_err(|error| PublishError::Failed(Box::new(error)))?,
        };
        match services.forward(envelope(&kill.task, kill.unix_ns)).await {
            Ok(()) => self.services = Some(services),
            Err(error) if is_final(&error) => {
                self.services = Some(services);
                return Err(PublishError::Refused(Box::new(error)));
            }
            // The next try is on a new connection.
            Err(error) => return Err(PublishError::Failed(Box::new(error))),
        }
        Ok(())
    }
}

impl Publisher for ContainerdPublisher {
    fn name(&self) -> &str {
        &self.name
    }

    fn delivery(&self) -> Delivery {
        match self.mode {
            ContainerdMode::Missing => Delivery::BestEffort,
            ContainerdMode::Always => Delivery::AtLeastOnce,
        }
    }

    fn open(&mut self) -> PublishFuture<'_> {
        if self.mode == ContainerdMode::Missing {
            let (kills, receiver) = mpsc::channel(QUEUE);
            let task = tokio::spawn(work(self.socket.clone(), receiver));
            self.worker = Some(Worker { kills, task });
        }
        Box::pin(async { Ok(()) })
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        Box::pin(async move {
            let Some(kill) = self.kill(&event) else {
                return Ok(());
            };
            match self.mode {
                ContainerdMode::Missing => self.hand_over(kill).await,
                ContainerdMode::Always => self.forward(&kill).await,
            }
        })
    }

    fn flush(&mut self) -> PublishFuture<'_> {
        Box::pin(async move {
            let Some(Worker { kills, mut task }) = self.worker.take() else {
                return Ok(());
            };
            drop(kills);
            let ended = timeout(FLUSH_LIMIT, &mut task).await;
            task.abort();
            ended.map_or_else(
                |error| Err(PublishError::Failed(Box::new(error))),
                |_| Ok(()),
            )
        })
    }
}

/// The container as this containerd knows it. A sandbox, or a container of another one, is `None`.
fn task(container: &Container, socket: &Path) -> Option<Task> {
    let details = &container.details;
    let is_here = details.containerd_address.as_deref().map(Path::new) == Some(socket);
    if !is_here || details.is_sandbox == Some(true) {
        return None;
    }
    let namespace = details.containerd_namespace.clone()?;
    // The watcher calls it `namespace/id` where another namespace has the same id.
    let id = container.id.as_str();
    let own = id
        .strip_prefix(&namespace)
        .and_then(|id| id.strip_prefix('/'));
    let id = own.unwrap_or(id).to_owned();
    Some(Task { namespace, id })
}

/// Keeps connected until there is nothing left to do.
async fn work(socket: PathBuf, mut kills: mpsc::Receiver<Kill>) {
    let mut bursts = Bursts::default();
    let mut waits = delays();
    let mut failures = 0_u32;
    loop {
        let since = Instant::now();
        let Err(error) = session(&socket, &mut kills, &mut bursts).await else {
            return;
        };
        if since.elapsed() > REQUEST_LIMIT {
            waits = delays();
            failures = 0;
        }
        failures += 1;
        say(&socket, &error, failures);
        tokio::time::sleep(waits.next().unwrap_or(REQUEST_LIMIT)).await;
    }
}

/// Warns of the first failure in a row. The others are the same one and go to the debug log.
fn say(socket: &Path, error: &GrpcError, failures: u32) {
    let (socket, cause) = (socket.display(), causes(error));
    if failures == 1 {
        warn!(publisher = "containerd", %socket, %error, cause, "cannot reach containerd: kills wait");
    } else {
        debug!(publisher = "containerd", %socket, %error, cause, failures, "still not connected");
    }
}

/// Works over one connection. Ends well once no more kills come and all are dealt with.
async fn session(
    socket: &Path,
    kills: &mut mpsc::Receiver<Kill>,
    bursts: &mut Bursts,
) -> Result<(), GrpcError> {
    let services = Services::connect(socket, REQUEST_LIMIT).await?;
    let mut announcements = services.subscribe(&[FILTER]);
    // An answer to anything shows that containerd is up, and the subscription with it.
    services.namespaces().await?;
    info!(publisher = "containerd", socket = %socket.display(), "connected");
    bursts.listening(Instant::now());
    let mut more = true;
    while more || !bursts.is_empty() {
        tokio::select! {
            // Announcements of shims are read before anything is sent, however late we are.
            biased;
            announced = announcements.next() => match announced? {
                Some(envelope) => announced_by_shim(bursts, &envelope),
                None => return Err(GrpcError::Closed),
            },
            kill = kills.recv(), if more && bursts.has_room() => match kill {
                Some(kill) => bursts.kill(kill, Instant::now()),
                None => more = false,
            },
            () = due(bursts.next_due()) => send_due(&services, bursts).await?,
        }
    }
    Ok(())
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn send_due(services: &Services, bursts: &mut Bursts) -> Result<(), GrpcError> {
    while let Some((task, unix_ns)) = bursts.due(Instant::now()) {
        match services.forward(envelope(&task, unix_ns)).await {
            Ok(()) => debug!(
                namespace = task.namespace,
                id = task.id,
                "TaskOOM published"
            ),
            Err(error) if is_final(&error) => {
                warn!(
                    namespace = task.namespace,
                    id = task.id,
                    cause = causes(&error),
                    "containerd refuses a TaskOOM"
                );
            }
            // Still the first in line.
            Err(error) => return Err(error),
        }
        bursts.sent();
    }
    Ok(())
}

/// Whether it would be refused again.
fn is_final(error: &GrpcError) -> bool {
    matches!(
        error.code(),
        Some(
            Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::PermissionDenied
                | Code::Unimplemented
        )
    )
}

fn envelope(task: &Task, unix_ns: i128) -> Envelope {
    let event = TaskOom {
        container_id: task.id.clone(),
    };
    Envelope {
        timestamp: Some(Timestamp {
            seconds: i64::try_from(unix_ns.div_euclid(NANOS)).unwrap_or(i64::MAX),
            nanos: i32::try_from(unix_ns.rem_euclid(NANOS)).unwrap_or(0),
        }),
        namespace: task.namespace.clone(),
        topic: TOPIC.to_owned(),
        event: Some(Any {
            type_url: TYPE.to_owned(),
            value: event.encode_to_vec(),
        }),
    }
}

fn announced_by_shim(bursts: &mut Bursts, envelope: &Envelope) {
    let event = envelope.event.as_ref();
    let oom = event.and_then(|event| TaskOom::decode(event.value.as_slice()).ok());
    let Some((oom, time)) = oom.zip(envelope.timestamp) else {
        return;
    };
    let task = Task {
        namespace: envelope.namespace.clone(),
        id: oom.container_id,
    };
    let unix_ns = i128::from(time.seconds) * NANOS + i128::from(time.nanos);
    bursts.announced(task, unix_ns);
}

#[cfg(test)]
mod tests;
