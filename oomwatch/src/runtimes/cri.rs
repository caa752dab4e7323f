//! Containers by the Kubernetes container runtime interface of containerd or CRI-O. It knows their pods, their names
//! in the pod, and how often they were started.
//!
//! The source follows the events that newer runtimes offer. It lists other runtimes every 30 s. In between, it asks
//! for each container whose cgroup appeared, or whose place the watcher lacks.

mod messages;
mod status;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tonic::Request;
use tracing::debug;

use self::{
    messages::{
        Container, ContainersAnswer, Event, EventsRequest, Filter, Image, ListRequest, Pod,
        PodMetadata, PodsAnswer, StatusRequest, VersionAnswer, VersionRequest,
        is_container_running, is_sandbox_running,
    },
    status::StatusAnswer,
};
use super::{
    labels,
    source::{
        Asked, Connected, ContainerPlace, FollowFuture, Listing, Looks, RuntimeSource, Seen,
        Sightings, SourceError, Wanted,
    },
};
use crate::{
    containers::{
        container::ContainerDetails,
        sighting::{CRI_NAMESPACE, Realm, RuntimeApi},
    },
    retry::REQUEST_LIMIT,
    runtimes::grpc::{Client, GrpcError, Subscription},
};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const LIST_PODS: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const POD_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
/// Time between two listings of a runtime without events. The kubelet lists every second. Names are not worth that.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// Longest name of a runtime.
const MAX_RUNTIME_BYTES: usize = 64;

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
        Ok(version) => short(version.runtime_name),
        // containerd without its CRI plugin, as Docker has it.
        Err(error) if error.is_unimplemented() => return Err(SourceError::Unsupported),
        Err(error) => return Err(error.into()),
    };
    let connected = sightings.of(client.peer().ok_or(SourceError::Closed)?);
    let mut events = client.subscribe(EVENTS, Request::new(EventsRequest {}));
    let mut follower = Follower {
        realm: realm(&runtime, &connected),
        client,
        runtime,
        connected,
        looks: Looks::new(),
    };
    wanted.during(follower.list()).await?;
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
    connected: Connected<'a>,
    looks: Looks<String, Result<Looked, GrpcError>>,
}

/// A container with its sandbox, or a sandbox alone. The places are those that were asked for.
#[derive(Debug, Default)]
struct Looked {
    container: Option<(Container, ContainerPlace)>,
    pod: Option<(Pod, ContainerPlace)>,
}

impl Follower<'_> {
    /// Follows the events until they end. Returns whether the runtime has any.
    async fn follow(
        &mut self,
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
                key = wanted.next(), if self.looks.has_room() => self.ask(key.id),
                Some(looked) = self.looks.next() => {
                    self.looked(looked.map_err(|_| SourceError::Closed)??).await?;
                }
            }
        }
    }

    async fn list_for_ever(&mut self, wanted: &mut Wanted) -> Result<(), SourceError> {
        let mut again = tokio::time::interval(LIST_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.reset();
        loop {
            tokio::select! {
                _ = again.tick() => wanted.during(self.list()).await?,
                key = wanted.next(), if self.looks.has_room() => self.ask(key.id),
                Some(looked) = self.looks.next() => {
                    self.looked(looked.map_err(|_| SourceError::Closed)??).await?;
                }
            }
        }
    }

    /// Lists all, without places.
    async fn list(&mut self) -> Result<(), SourceError> {
        let mut listing = Listing::default();
        let pods: PodsAnswer = self.client.call(LIST_PODS, list(None)).await?;
        listing.skip(pods.invalid);
        listing.cut(pods.surplus);
        let containers: ContainersAnswer = self.client.call(LIST_CONTAINERS, list(None)).await?;
        listing.skip(containers.invalid);
        listing.cut(containers.surplus);
        let pods = pods.kept.into_iter().map(|pod| (pod.id.clone(), pod));
        let pods: HashMap<String, Pod> = pods.collect();
        for container in containers.kept {
            let pod = pods.get(&container.pod_id);
            let pod = pod.and_then(|pod| pod.metadata.clone());
            let seen = self.container(container, pod, ContainerPlace::default());
            self.connected
                .lists(&mut listing, &self.realm, seen)
                .await?;
        }
        for pod in pods.into_values() {
            let seen = self.sandbox(pod, ContainerPlace::default());
            self.connected
                .lists(&mut listing, &self.realm, seen)
                .await?;
        }
        self.connected.listed(listing).await
    }

    async fn changed(&mut self, event: Event) -> Result<(), SourceError> {
        match event.kind {
            messages::CREATED | messages::STARTED => {
                let looked = look(self.client.clone(), event.id, false).await?;
                self.looked(looked).await
            }
            messages::DELETED => {
                self.looks.forget(&event.id);
                self.connected.gone(&self.realm, event.id).await
            }
            _ => Ok(()),
        }
    }

    /// Asks for a container or a sandbox, and for its place.
    fn ask(&mut self, id: String) {
        let look = look(self.client.clone(), id.clone(), true);
        self.looks.start(id, look);
    }

    async fn looked(&mut self, looked: Looked) -> Result<(), SourceError> {
        let Looked { container, pod } = looked;
        let metadata = pod.as_ref().and_then(|(pod, _)| pod.metadata.clone());
        if let Some((container, place)) = container {
            let seen = self.container(container, metadata, place);
            self.connected.seen(&self.realm, seen).await?;
        }
        if let Some((pod, place)) = pod {
            let seen = self.sandbox(pod, place);
            self.connected.seen(&self.realm, seen).await?;
        }
        Ok(())
    }

    fn container(
        &self,
        container: Container,
        pod: Option<PodMetadata>,
        place: ContainerPlace,
    ) -> Seen {
        let is_running = container.is_running();
        let metadata = container.metadata;
        let details = self.details(container.labels, pod);
        let attempt = metadata.as_ref().map(|metadata| metadata.attempt);
        let name = metadata.and_then(|metadata| given(metadata.name));
        Seen {
            id: container.id,
            place,
            is_running,
            details: ContainerDetails {
                name: name.or(details.name),
                image: container.image.and_then(reference),
                attempt,
                is_sandbox: Some(false),
                ..details
            },
        }
    }

    fn sandbox(&self, pod: Pod, place: ContainerPlace) -> Seen {
        Seen {
            is_running: pod.is_running(),
            id: pod.id,
            place,
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

/// Looks up a container or a sandbox. Neither an event nor the watcher distinguishes them. The cgroup may appear before
/// the runtime knows the sandbox.
async fn look(client: Client, id: String, with_place: bool) -> Result<Looked, GrpcError> {
    let containers: ContainersAnswer = client.call(LIST_CONTAINERS, list(Some(&id))).await?;
    let container = containers.kept.into_iter().find(|found| found.id == id);
    let pod_id = container.as_ref().map(|container| &container.pod_id);
    let pods: PodsAnswer = client
        .call(LIST_PODS, list(Some(pod_id.unwrap_or(&id))))
        .await?;
    let pod = pods.kept.into_iter().next();
    let mut looked = Looked::default();
    if let Some(container) = container {
        let place = match with_place && container.is_running() {
            true => {
                place(
                    &client,
                    CONTAINER_STATUS,
                    &container.id,
                    is_container_running,
                )
                .await?
            }
            false => ContainerPlace::default(),
        };
        looked.container = Some((container, place));
    }
    if let Some(pod) = pod {
        let place = match with_place && pod.id == id && pod.is_running() {
            true => place(&client, POD_STATUS, &pod.id, is_sandbox_running).await?,
            false => ContainerPlace::default(),
        };
        looked.pod = Some((pod, place));
    }
    Ok(looked)
}

/// Where a container or a sandbox is. A runtime that does not say it is no reason to end the connection.
async fn place(
    client: &Client,
    method: &'static str,
    id: &str,
    is_running: fn(i32) -> bool,
) -> Result<ContainerPlace, GrpcError> {
    let asked = Asked::now();
    let id = id.to_owned();
    let request = StatusRequest { id, verbose: true };
    match client
        .call::<_, StatusAnswer>(method, Request::new(request))
        .await
    {
        Ok(answer) => Ok(answer.place(asked, is_running)),
        Err(error) if error.is_refusal() => {
            debug!(method, %error, "a runtime does not tell where a container is");
            Ok(ContainerPlace::default())
        }
        Err(error) => Err(error),
    }
}

/// The realm that a CRI runtime's containers are in, by its own name.
fn realm(runtime: &str, connected: &Connected<'_>) -> Realm {
    match runtime {
        "cri-o" if !connected.is_partial() => Realm::CriO,
        "docker" if !connected.is_partial() => Realm::Docker(connected.owner()),
        "cri-o" | "docker" => connected.realm(runtime),
        _ => connected.realm(CRI_NAMESPACE),
    }
}

fn list(id: Option<&str>) -> Request<ListRequest> {
    let filter = id.map(|id| Filter { id: id.to_owned() });
    Request::new(ListRequest { filter })
}

/// The image as a person named it. The kubelet passes on a digest, which no person reads.
fn reference(image: Image) -> Option<String> {
    given(image.user_specified_image)
        .or_else(|| given(image.image))
        .and_then(labels::tag)
}

/// A runtime's name for itself, which all its containers carry. None if it is no name.
fn short(runtime: String) -> String {
    if runtime.len() > MAX_RUNTIME_BYTES {
        return String::new();
    }
    runtime
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
