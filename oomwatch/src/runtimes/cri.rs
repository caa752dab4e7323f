//! Containers by the Kubernetes container runtime interface of containerd or CRI-O. It knows their pods, their names
//! in the pod, and how often they were started.
//!
//! The source follows the events that newer runtimes offer. It lists other runtimes every 30 s. In between, it asks
//! for each container whose cgroup appeared.

mod messages;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tonic::Request;
use tracing::debug;

use self::messages::{
    Container, ContainersAnswer, Event, EventsRequest, Filter, Image, ListRequest, Pod,
    PodMetadata, PodsAnswer, VersionAnswer, VersionRequest,
};
use super::{
    labels,
    source::{
        ContainerPlace, FollowFuture, RuntimeSource, Seen, Sightings, SourceError, Wanted, key,
    },
};
use crate::{
    containers::{
        container::ContainerDetails,
        sighting::{CRI_NAMESPACE, Owner, Realm, RuntimeApi},
    },
    retry::REQUEST_LIMIT,
    runtimes::grpc::{Client, GrpcError, Subscription},
};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const LIST_PODS: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
/// Time between two listings of a runtime without events. The kubelet lists every second. Names are not worth that.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// One runtime.
#[derive(Debug)]
pub(crate) struct Cri {
    socket: PathBuf,
}

impl Cri {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl RuntimeSource for Cri {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Cri
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
    let client = Client::connect(socket, REQUEST_LIMIT).await?;
    let version: Result<VersionAnswer, _> =
        client.call(VERSION, Request::new(VersionRequest {})).await;
    let runtime = match version {
        Ok(version) => version.runtime_name,
        // containerd without its CRI plugin, as Docker has it.
        Err(error) if error.is_unimplemented() => return Err(SourceError::Unsupported),
        Err(error) => return Err(error.into()),
    };
    let mut events = client.subscribe(EVENTS, Request::new(EventsRequest {}));
    let follower = Follower {
        client,
        realm: realm(&runtime),
        runtime,
        sightings,
    };
    wanted.clear();
    follower.list().await?;
    if follower.follow(&mut events, wanted).await? {
        return Err(SourceError::Closed);
    }
    debug!(socket = %socket.display(), "this runtime has no events: it is listed now and then");
    follower.list_for_ever(wanted).await
}

/// The first event; `None` where the runtime offers none. CRI-O then ends the stream; others refuse.
async fn first(events: &mut Subscription<Event>) -> Result<Option<Event>, GrpcError> {
    match events.next().await {
        Err(error) if error.is_unimplemented() => Ok(None),
        first => first,
    }
}

struct Follower<'a> {
    client: Client,
    /// The runtime's own name for itself.
    runtime: String,
    realm: Realm,
    sightings: &'a Sightings,
}

impl Follower<'_> {
    /// Follows the events until they end. Returns whether the runtime has any.
    async fn follow(
        &self,
        events: &mut Subscription<Event>,
        wanted: &mut Wanted,
    ) -> Result<bool, SourceError> {
        let mut any = false;
        loop {
            let next = async {
                if any {
                    events.next().await
                } else {
                    first(events).await
                }
            };
            tokio::select! {
                event = next => match event? {
                    Some(event) => {
                        any = true;
                        self.changed(event).await?;
                    }
                    None => return Ok(any),
                },
                key = wanted.next() => self.look_at(&key.id).await?,
            }
        }
    }

    async fn list_for_ever(&self, wanted: &mut Wanted) -> Result<(), SourceError> {
        let mut again = tokio::time::interval(LIST_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.reset();
        loop {
            tokio::select! {
                _ = again.tick() => self.list().await?,
                key = wanted.next() => self.look_at(&key.id).await?,
            }
        }
    }

    async fn list(&self) -> Result<(), SourceError> {
        let pods: HashMap<String, Pod> = self
            .pods(None)
            .await?
            .into_iter()
            .map(|pod| (pod.id.clone(), pod))
            .collect();
        let known = |id: &String| key(&self.realm, id.clone());
        let mut keys: Vec<_> = pods.keys().map(known).collect();
        for container in self.containers(None).await? {
            keys.push(known(&container.id));
            let pod = pods.get(&container.pod_id);
            let pod = pod.and_then(|pod| pod.metadata.clone());
            let seen = self.container(container, pod);
            self.sightings.seen(&self.realm, seen).await?;
        }
        for pod in pods.into_values() {
            self.sightings.seen(&self.realm, self.sandbox(pod)).await?;
        }
        self.sightings.listed(keys).await
    }

    async fn changed(&self, event: Event) -> Result<(), SourceError> {
        match event.kind {
            messages::CREATED | messages::STARTED => self.look_at(&event.id).await,
            messages::DELETED => self.sightings.gone(&self.realm, event.id).await,
            _ => Ok(()),
        }
    }

    /// Looks up a container or a sandbox. The event does not distinguish them.
    async fn look_at(&self, id: &str) -> Result<(), SourceError> {
        if let Some(container) = self.containers(Some(id)).await?.into_iter().next() {
            let pod = self.pods(Some(&container.pod_id)).await?.into_iter().next();
            let metadata = pod.as_ref().and_then(|pod| pod.metadata.clone());
            let seen = self.container(container, metadata);
            self.sightings.seen(&self.realm, seen).await?;
            // The cgroup may appear before the runtime knows the sandbox.
            return match pod {
                Some(pod) => self.sightings.seen(&self.realm, self.sandbox(pod)).await,
                None => Ok(()),
            };
        }
        for pod in self.pods(Some(id)).await? {
            self.sightings.seen(&self.realm, self.sandbox(pod)).await?;
        }
        Ok(())
    }

    async fn pods(&self, id: Option<&str>) -> Result<Vec<Pod>, GrpcError> {
        let answer: PodsAnswer = self.client.call(LIST_PODS, list(id)).await?;
        Ok(answer.pods)
    }

    async fn containers(&self, id: Option<&str>) -> Result<Vec<Container>, GrpcError> {
        let answer: ContainersAnswer = self.client.call(LIST_CONTAINERS, list(id)).await?;
        Ok(answer.containers)
    }

    fn container(&self, container: Container, pod: Option<PodMetadata>) -> Seen {
        let metadata = container.metadata;
        let details = self.details(container.labels, pod);
        let attempt = metadata.as_ref().map(|metadata| metadata.attempt);
        let name = metadata.and_then(|metadata| given(metadata.name));
        Seen {
            id: container.id,
            place: ContainerPlace::default(),
            is_running: true,
            details: ContainerDetails {
                name: name.or(details.name),
                image: container.image.and_then(reference),
                attempt,
                is_sandbox: Some(false),
                ..details
            },
        }
    }

    fn sandbox(&self, pod: Pod) -> Seen {
        Seen {
            id: pod.id,
            place: ContainerPlace::default(),
            is_running: true,
            details: ContainerDetails {
                name: None,
                is_sandbox: Some(true),
                ..self.details(pod.labels, pod.metadata)
            },
        }
    }

    fn details(
        &self,
        labels: BTreeMap<String, String>,
        pod: Option<PodMetadata>,
    ) -> ContainerDetails {
        let details = labels::details(labels);
        let pod = pod.unwrap_or_default();
        ContainerDetails {
            runtime: given(self.runtime.clone()),
            pod: given(pod.name).or(details.pod),
            pod_uid: given(pod.uid).or(details.pod_uid),
            namespace: given(pod.namespace).or(details.namespace),
            ..details
        }
    }
}

/// The realm that a CRI runtime's containers are in, by its own name.
fn realm(runtime: &str) -> Realm {
    match runtime {
        "cri-o" => Realm::CriO,
        "docker" => Realm::Docker(Owner::Host),
        _ => Realm::Containerd(CRI_NAMESPACE.into()),
    }
}

fn list(id: Option<&str>) -> Request<ListRequest> {
    let filter = id.map(|id| Filter { id: id.to_owned() });
    Request::new(ListRequest { filter })
}

/// The image as a person named it. The kubelet passes on a digest, which no person reads.
fn reference(image: Image) -> Option<String> {
    given(image.user_specified_image)
        .or_else(|| given(image.image).filter(|image| !image.starts_with("sha256:")))
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
