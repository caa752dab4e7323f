//! containerd's gRPC services, as far as its source and its publisher need them.
//!
//! Requests and answers only. `runtimes::containerd` and `publish::containerd` give them their meaning for oomwatch.
//! The same code serves 1.6, 1.7 and 2.x.

pub(crate) mod messages;

use std::{path::Path, time::Duration};

use tonic::{Request, Streaming, metadata::MetadataValue};

use self::messages::{
    Container, ContainerAnswer, ContainerRequest, Envelope, ForwardRequest, ListRequest,
    NamespacesAnswer, SubscribeRequest, TasksAnswer, TasksRequest,
};
use crate::runtimes::grpc::{Client, GrpcError, Subscription};

/// Which namespace a request is about.
const NAMESPACE: &str = "containerd-namespace";

const LIST_NAMESPACES: &str = "/containerd.services.namespaces.v1.Namespaces/List";
const LIST_TASKS: &str = "/containerd.services.tasks.v1.Tasks/List";
const LIST_CONTAINERS: &str = "/containerd.services.containers.v1.Containers/ListStream";
const GET_CONTAINER: &str = "/containerd.services.containers.v1.Containers/Get";
const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
const FORWARD: &str = "/containerd.services.events.v1.Events/Forward";

/// A connection to containerd.
#[derive(Clone, Debug)]
pub(crate) struct Services(Client);

impl Services {
    /// Connects; no request may take longer than `limit`.
    pub(crate) async fn connect(socket: &Path, limit: Duration) -> Result<Self, GrpcError> {
        Client::connect(socket, limit).await.map(Self)
    }

    /// All namespaces.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>, GrpcError> {
        let answer: NamespacesAnswer = self.0.call(LIST_NAMESPACES, Request::new(())).await?;
        let namespaces = answer.namespaces.into_iter();
        Ok(namespaces.map(|namespace| namespace.name).collect())
    }

    /// The first processes of a namespace's containers, by container id.
    pub(crate) async fn tasks(&self, namespace: &str) -> Result<Vec<(String, u32)>, GrpcError> {
        let Some(request) = in_namespace(namespace, TasksRequest {}) else {
            return Ok(Vec::new());
        };
        let answer: TasksAnswer = self.0.call(LIST_TASKS, request).await?;
        let tasks = answer.tasks.into_iter();
        Ok(tasks.map(|task| (task.id, task.pid)).collect())
    }

    /// A namespace's containers, running or not, one after the other. One answer would be too large: containerd sends
    /// their specifications too, and we cannot refuse those.
    pub(crate) async fn containers(&self, namespace: &str) -> Result<Listing, GrpcError> {
        let stream = match in_namespace(namespace, ListRequest {}) {
            Some(request) => Some(self.0.listing(LIST_CONTAINERS, request).await?),
            None => None,
        };
        Ok(Listing {
            client: self.0.clone(),
            stream,
        })
    }

    /// One container; `None` if there is none of this id.
    pub(crate) async fn container(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Container>, GrpcError> {
        let id = id.to_owned();
        let Some(request) = in_namespace(namespace, ContainerRequest { id }) else {
            return Ok(None);
        };
        let answer: Result<ContainerAnswer, _> = self.0.call(GET_CONTAINER, request).await;
        match answer {
            Ok(answer) => Ok(answer.container),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Events of all namespaces that one of the filters lets through.
    pub(crate) fn subscribe(&self, filters: &[&str]) -> Subscription<Envelope> {
        let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
        self.0
            .subscribe(SUBSCRIBE, Request::new(SubscribeRequest { filters }))
    }

    /// Publishes an event in the name of another, with its own namespace and time.
    pub(crate) async fn forward(&self, envelope: Envelope) -> Result<(), GrpcError> {
        let envelope = Some(envelope);
        self.0
            .call(FORWARD, Request::new(ForwardRequest { envelope }))
            .await
    }
}

/// Containers as they come.
pub(crate) struct Listing {
    client: Client,
    stream: Option<Streaming<ContainerAnswer>>,
}

impl Listing {
    /// The next one; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Container>, GrpcError> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let answer = self.client.next(LIST_CONTAINERS, stream).await?;
        Ok(answer.and_then(|answer| answer.container))
    }
}

/// A request about a namespace. `None` for a name that cannot stand in a header: containerd has
/// none of those.
fn in_namespace<M>(namespace: &str, message: M) -> Option<Request<M>> {
    let mut request = Request::new(message);
    let namespace = MetadataValue::try_from(namespace).ok()?;
    request.metadata_mut().insert(NAMESPACE, namespace);
    Some(request)
}
