//! Containers by containerd's gRPC services: all namespaces, with labels and image.
//!
//! The source follows `/tasks/create`. That event comes while containerd still holds back the container's init, so
//! the watcher registers the container before its workload runs. `/containers/*` brings names.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use prost::Message as _;
use tracing::debug;

use super::{
    labels::{self, label},
    source::{
        ContainerPlace, FollowFuture, RuntimeSource, Seen, Sightings, SourceError, Wanted, key,
    },
};
use crate::{
    containers::{
        container::ContainerDetails,
        names::is_runtimes_id,
        sighting::{Realm, RuntimeApi, RuntimeKey},
    },
    retry::REQUEST_LIMIT,
    runtimes::grpc::containerd::{
        Services,
        messages::{Container, ContainerChange, Envelope, TaskCreate},
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
/// Namespaces in which Docker keeps its containers.
const DOCKER_NAMESPACES: &[&str] = &["moby", "plugins.moby"];

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

    /// Asks for no container: containerd announces each one before it runs.
    fn follow<'a>(
        &'a mut self,
        sightings: &'a Sightings,
        _wanted: &'a mut Wanted,
    ) -> FollowFuture<'a> {
        Box::pin(follow(&self.socket, sightings))
    }
}

async fn follow(socket: &Path, sightings: &Sightings) -> Result<(), SourceError> {
    let services = Services::connect(socket, REQUEST_LIMIT).await?;
    // No answer confirms the subscription. The listing begins a round trip later.
    let mut events = services.subscribe(FILTERS);
    let follower = Follower {
        socket,
        services,
        sightings,
    };
    follower.list().await?;
    while let Some(envelope) = events.next().await? {
        follower.changed(envelope).await?;
    }
    Err(SourceError::Closed)
}

struct Follower<'a> {
    socket: &'a Path,
    services: Services,
    sightings: &'a Sightings,
}

impl Follower<'_> {
    async fn list(&self) -> Result<(), SourceError> {
        let mut keys = Vec::new();
        for namespace in self.services.namespaces().await? {
            self.list_namespace(&namespace, &mut keys).await?;
        }
        self.sightings.listed(keys).await
    }

    async fn list_namespace(
        &self,
        namespace: &str,
        keys: &mut Vec<RuntimeKey>,
    ) -> Result<(), SourceError> {
        let tasks = self.services.tasks(namespace).await?;
        let pids: HashMap<_, _> = tasks.into_iter().collect();
        let mut containers = self.services.containers(namespace).await?;
        while let Some(container) = containers.next().await? {
            keys.push(key(&realm(namespace), container.id.clone()));
            let pid = pids.get(&container.id).copied();
            self.seen(namespace, container, pid).await?;
        }
        Ok(())
    }

    async fn changed(&self, envelope: Envelope) -> Result<(), SourceError> {
        let Some(change) = Change::of(&envelope) else {
            return Ok(());
        };
        let namespace = &envelope.namespace;
        match change {
            Change::Created(task) => self.created(namespace, task).await,
            Change::Named(container) => self.named(namespace, container).await,
            Change::Removed(container) => {
                self.sightings.gone(&realm(namespace), container.id).await
            }
        }
    }

    /// Passes the container on at once, and then asks for its names. Its creation may have come before we listened.
    async fn created(&self, namespace: &str, task: TaskCreate) -> Result<(), SourceError> {
        let details = ContainerDetails {
            containerd_namespace: Some(namespace.to_owned()),
            containerd_address: Some(address(self.socket)),
            ..ContainerDetails::default()
        };
        let place = ContainerPlace {
            pid: Some(task.pid),
            ..ContainerPlace::default()
        };
        let id = task.container_id.clone();
        let seen = Seen {
            id,
            place,
            is_running: true,
            details,
        };
        self.sightings.seen(&realm(namespace), seen).await?;
        let container = self.services.container(namespace, &task.container_id);
        match container.await? {
            Some(container) => self.seen(namespace, container, None).await,
            None => Ok(()),
        }
    }

    /// A container that is gone by now gets the names in the event.
    async fn named(&self, namespace: &str, told: ContainerChange) -> Result<(), SourceError> {
        let found = self.services.container(namespace, &told.id).await?;
        let container = found.unwrap_or_else(|| Container {
            id: told.id,
            image: told.image,
            ..Container::default()
        });
        self.seen(namespace, container, None).await
    }

    async fn seen(
        &self,
        namespace: &str,
        container: Container,
        pid: Option<u32>,
    ) -> Result<(), SourceError> {
        let seen = seen(self.socket, namespace, container, pid);
        self.sightings.seen(&realm(namespace), seen).await
    }
}

/// Two namespaces may have containers of one name.
fn realm(namespace: &str) -> Realm {
    Realm::Containerd(namespace.into())
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

fn seen(socket: &Path, namespace: &str, container: Container, pid: Option<u32>) -> Seen {
    let place = ContainerPlace {
        pid,
        ..ContainerPlace::default()
    };
    let id = container.id.clone();
    let details = details(socket, namespace, container);
    Seen {
        id,
        place,
        is_running: pid.is_some(),
        details,
    }
}

fn details(socket: &Path, namespace: &str, container: Container) -> ContainerDetails {
    let Container { id, labels, image } = container;
    let is_docker = DOCKER_NAMESPACES.contains(&namespace);
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
        image: Some(image).filter(|image| !image.is_empty()),
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
