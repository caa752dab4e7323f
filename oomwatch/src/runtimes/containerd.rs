//! Containers by containerd's gRPC services: all namespaces, with labels and image.
//!
//! The source follows `/tasks/create`. That event comes while containerd still holds back the container's init, so
//! the watcher registers the container before its workload runs. `/containers/*` brings names. A listing has no places:
//! the source asks for each that the watcher lacks.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tracing::debug;

use super::{
    labels::{self, label},
    source::{
        Asked, Connected, ContainerPlace, FollowFuture, Listing, Looks, MAX_LISTED, Process,
        RuntimeSource, Seen, Sightings, SourceError, Wanted,
    },
    spec,
};
use crate::{
    containers::{
        container::ContainerDetails,
        names::{is_dockers, is_runtimes_id},
        sighting::{RuntimeApi, RuntimeKey},
    },
    retry::REQUEST_LIMIT,
    runtimes::grpc::{
        GrpcError,
        containerd::{
            Services,
            messages::{
                self, Container, ContainerChange, Envelope, SpecifiedContainer, TaskCreate,
            },
        },
    },
};

/// Topics for new containers, names and ends.
const FILTERS: &[&str] = &[
    r#"topic=="/tasks/create""#,
    r#"topic=="/containers/create""#,
    r#"topic=="/containers/update""#,
    r#"topic=="/containers/delete""#,
];

/// By the CRI plugin: whether it is a pod's sandbox.
const CRI_KIND: &str = "io.cri-containerd.kind";
const NERDCTL_NAME: &str = "nerdctl/name";

/// One containerd.
#[derive(Debug)]
pub(crate) struct Containerd {
    socket: PathBuf,
}

impl Containerd {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl RuntimeSource for Containerd {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Containerd
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn follow<'a>(
        &'a mut self,
        sightings: &'a Sightings,
        wanted: &'a mut Wanted,
    ) -> FollowFuture<'a> {
        Box::pin(follow(&self.socket, sightings, wanted))
    }
}

async fn follow(
    socket: &Path,
    sightings: &Sightings,
    wanted: &mut Wanted,
) -> Result<(), SourceError> {
    let services = Services::connect(socket, REQUEST_LIMIT).await?;
    let peer = services.peer().ok_or(SourceError::Closed)?;
    // No answer confirms the subscription. The listing begins a round trip later.
    let mut events = services.subscribe(FILTERS);
    let mut follower = Follower {
        socket,
        services,
        connected: sightings.of(peer),
        looks: Looks::new(),
    };
    wanted.during(follower.list()).await?;
    loop {
        tokio::select! {
            envelope = events.next() => match envelope? {
                Some(envelope) => follower.changed(envelope).await?,
                None => return Err(SourceError::Closed),
            },
            key = wanted.next(), if follower.looks.has_room() => follower.ask(key),
            Some(looked) = follower.looks.next() => {
                let looked = looked.map_err(|_| SourceError::Closed)?;
                follower.looked(looked?).await?;
            }
        }
    }
}

struct Follower<'a> {
    socket: &'a Path,
    services: Services,
    connected: Connected<'a>,
    looks: Looks<RuntimeKey, Result<Looked, GrpcError>>,
}

/// A container that the watcher asked for.
struct Looked {
    namespace: String,
    container: Option<SpecifiedContainer>,
    process: Option<Process>,
    is_running: bool,
}

impl Follower<'_> {
    async fn list(&mut self) -> Result<(), SourceError> {
        let mut listing = Listing::default();
        for namespace in self.services.namespaces().await? {
            self.list_namespace(&namespace, &mut listing).await?;
        }
        self.connected.listed(listing).await
    }

    async fn list_namespace(
        &mut self,
        namespace: &str,
        listing: &mut Listing,
    ) -> Result<(), SourceError> {
        let realm = self.connected.realm(namespace);
        let tasks = self.services.tasks(namespace).await?.into_iter();
        let tasks = tasks.filter(messages::Process::is_running);
        let pids: HashMap<_, _> = tasks.map(|task| (task.id, task.pid)).collect();
        for (id, pid) in &pids {
            self.connected.mention(&realm, id, *pid);
        }
        let mut containers = self.services.containers(namespace).await?;
        let mut parts = 0;
        while let Some(part) = containers.next().await? {
            parts += 1;
            listing.skip(part.invalid + usize::from(part.kept.is_empty() && part.invalid == 0));
            for container in part.kept {
                let is_running = pids.contains_key(&container.id);
                let place = ContainerPlace::default();
                let seen = self.seen_as(namespace, container, place, is_running);
                self.connected.lists(listing, &realm, seen).await?;
            }
            if parts >= MAX_LISTED {
                listing.cut(1);
                break;
            }
        }
        Ok(())
    }

    async fn changed(&mut self, envelope: Envelope) -> Result<(), SourceError> {
        let Some(change) = Change::of(&envelope) else {
            return Ok(());
        };
        let namespace = &envelope.namespace;
        match change {
            Change::Created(task) => {
                let asked = told_at(&envelope);
                self.created(namespace, task, asked).await
            }
            Change::Named(container) => self.named(namespace, container).await,
            Change::Removed(container) => self.removed(namespace, container.id).await,
        }
    }

    async fn removed(&mut self, namespace: &str, id: String) -> Result<(), SourceError> {
        let realm = self.connected.realm(namespace);
        let key = RuntimeKey { id, realm };
        self.looks.forget(&key);
        self.connected.gone(&key.realm, key.id).await
    }

    /// Passes the container on at once, and then asks for its names. Its creation may have come before we listened.
    async fn created(
        &mut self,
        namespace: &str,
        task: TaskCreate,
        asked: Asked,
    ) -> Result<(), SourceError> {
        let details = ContainerDetails {
            containerd_namespace: Some(namespace.to_owned()),
            containerd_address: Some(address(self.socket)),
            ..ContainerDetails::default()
        };
        let process = asked.process(task.pid);
        let place = ContainerPlace {
            process,
            ..ContainerPlace::default()
        };
        let seen = Seen {
            id: task.container_id.clone(),
            place,
            is_running: true,
            details,
        };
        let realm = self.connected.realm(namespace);
        self.connected.seen(&realm, seen).await?;
        let container = self.services.container(namespace, &task.container_id);
        let container = container.await?;
        self.looked(Looked {
            namespace: namespace.to_owned(),
            container,
            process,
            is_running: true,
        })
        .await
    }

    /// A container that is gone by now gets the names in the event.
    async fn named(&mut self, namespace: &str, told: ContainerChange) -> Result<(), SourceError> {
        let found = self.services.container(namespace, &told.id).await?;
        let container = match found {
            Some(found) => found.into(),
            None => Container {
                id: told.id,
                image: told.image,
                ..Container::default()
            },
        };
        let place = ContainerPlace::default();
        let seen = self.seen_as(namespace, container, place, false);
        let realm = self.connected.realm(namespace);
        self.connected.seen(&realm, seen).await
    }

    /// Asks for a container of the watcher's, in full.
    fn ask(&mut self, key: RuntimeKey) {
        if let Some(namespace) = self.connected.name_of(&key.realm) {
            let look = look(self.services.clone(), namespace, key.id.clone());
            self.looks.start(key, look);
        }
    }

    async fn looked(&mut self, looked: Looked) -> Result<(), SourceError> {
        let Some(container) = looked.container else {
            return Ok(());
        };
        let spec = container.spec.as_ref();
        let configured = spec.and_then(|spec| spec::cgroups_path(&spec.value));
        let place = ContainerPlace {
            configured: configured
                .filter(|_| looked.is_running)
                .into_iter()
                .collect(),
            process: looked.process,
        };
        let namespace = &looked.namespace;
        let seen = self.seen_as(namespace, container.into(), place, looked.is_running);
        let realm = self.connected.realm(namespace);
        self.connected.seen(&realm, seen).await
    }

    fn seen_as(
        &self,
        namespace: &str,
        container: Container,
        place: ContainerPlace,
        is_running: bool,
    ) -> Seen {
        Seen {
            id: container.id.clone(),
            place,
            is_running,
            details: details(self.socket, namespace, container),
        }
    }
}

async fn look(services: Services, namespace: String, id: String) -> Result<Looked, GrpcError> {
    let container = services.container(&namespace, &id).await?;
    // Another id would bring another container's names.
    let container = container.filter(|container| container.id == id);
    let asked = Asked::now();
    let task = services.task(&namespace, &id).await?;
    let task = task.filter(messages::Process::is_running);
    Ok(Looked {
        namespace,
        container,
        is_running: task.is_some(),
        process: task.and_then(|task| asked.process(task.pid)),
    })
}

/// When an event was told, which may be long before it is read.
fn told_at(envelope: &Envelope) -> Asked {
    let now = Asked::now();
    let Some(told) = envelope.timestamp else {
        return now;
    };
    let seconds = Duration::from_secs(u64::try_from(told.seconds).unwrap_or_default());
    let nanoseconds = Duration::from_nanos(u64::try_from(told.nanos).unwrap_or_default());
    let told = seconds.saturating_add(nanoseconds);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.earlier(since.unwrap_or_default().saturating_sub(told))
}

impl From<SpecifiedContainer> for Container {
    fn from(container: SpecifiedContainer) -> Self {
        let SpecifiedContainer {
            id, labels, image, ..
        } = container;
        Self { id, labels, image }
    }
}

/// A change that an event announces.
enum Change {
    Created(TaskCreate),
    Named(ContainerChange),
    Removed(ContainerChange),
}

impl Change {
    /// `None` for an event without news for us, or one that cannot be read.
    fn of(envelope: &Envelope) -> Option<Self> {
        if !messages::is_namespace(&envelope.namespace) {
            return None;
        }
        let value = envelope.event.as_ref()?.value.as_slice();
        let change = match envelope.topic.as_str() {
            "/tasks/create" => TaskCreate::decode(value).map(Self::Created),
            "/containers/create" | "/containers/update" => {
                ContainerChange::decode(value).map(Self::Named)
            }
            "/containers/delete" => ContainerChange::decode(value).map(Self::Removed),
            _ => return None,
        };
        change
            .inspect_err(|error| debug!(%error, "an event of containerd cannot be read"))
            .ok()
    }
}

/// The socket, as `ctr -a` takes it.
fn address(socket: &Path) -> String {
    socket.to_string_lossy().into_owned()
}

fn details(socket: &Path, namespace: &str, container: Container) -> ContainerDetails {
    let Container { id, labels, image } = container;
    let is_docker = is_dockers(namespace);
    let nerdctl = label(&labels, NERDCTL_NAME);
    let kind = label(&labels, CRI_KIND);
    let runtime = match &nerdctl {
        _ if is_docker => "docker",
        Some(_) => "nerdctl",
        None => "containerd",
    };
    let own = (!is_docker && !is_runtimes_id(&id)).then_some(id);
    let details = labels::details(labels);
    let outside = (!is_docker).then(|| namespace.to_owned());
    ContainerDetails {
        name: details.name.clone().or(nerdctl).or(own),
        runtime: Some(runtime.to_owned()),
        image: labels::tag(image),
        namespace: details.namespace.clone().or(outside),
        containerd_namespace: Some(namespace.to_owned()),
        containerd_address: Some(address(socket)),
        // Docker keeps this to itself and gives containerd no label for it.
        is_sandbox: (!is_docker).then(|| kind.as_deref() == Some("sandbox")),
        ..details
    }
}

#[cfg(test)]
mod tests;
