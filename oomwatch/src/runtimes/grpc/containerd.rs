//! containerd's gRPC services, as far as its source and its publisher need them.
//!
//! Requests and answers only. `runtimes::containerd` and `publish::containerd` give them their meaning for oomwatch.
//! The same code serves 1.6, 1.7 and 2.x.

pub(crate) mod messages;

use std::{path::Path, time::Duration};

use tonic::{Request, Streaming, metadata::MetadataValue};

use self::messages::{
    ContainerAnswer, ContainerRequest, Envelope, ForwardRequest, ListRequest, NamespacesAnswer,
    Process, SpecifiedAnswer, SpecifiedContainer, SubscribeRequest, TaskAnswer, TaskRequest,
    TasksAnswer, TasksRequest,
};
use crate::runtimes::{
    grpc::{Client, GrpcError, Subscription},
    source::speaker::Peer,
};

/// Which namespace a request is about.
const NAMESPACE: &str = "containerd-namespace";

const LIST_NAMESPACES: &str = "/containerd.services.namespaces.v1.Namespaces/List";
const LIST_TASKS: &str = "/containerd.services.tasks.v1.Tasks/List";
const GET_TASK: &str = "/containerd.services.tasks.v1.Tasks/Get";
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

    /// Who answers. `None` before there was a connection.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.0.peer()
    }

    /// All namespaces.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>, GrpcError> {
        let answer: NamespacesAnswer = self.0.call(LIST_NAMESPACES, Request::new(())).await?;
        let namespaces = answer.kept.into_iter();
        Ok(namespaces.map(|namespace| namespace.name).collect())
    }

    /// The first processes of a namespace's containers.
    pub(crate) async fn tasks(&self, namespace: &str) -> Result<Vec<Process>, GrpcError> {
        let Some(request) = in_namespace(namespace, TasksRequest {}) else {
            return Ok(Vec::new());
        };
        let answer: TasksAnswer = self.0.call(LIST_TASKS, request).await?;
        Ok(answer.kept)
    }

    /// The first process of a container; `None` if the runtime gives none.
    pub(crate) async fn task(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Process>, GrpcError> {
        let container_id = id.to_owned();
        let Some(request) = in_namespace(namespace, TaskRequest { container_id }) else {
            return Ok(None);
        };
        match self.0.call::<_, TaskAnswer>(GET_TASK, request).await {
            Ok(answer) => Ok(answer.task),
            Err(error) if error.is_refusal() => Ok(None),
            Err(error) => Err(error),
        }
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

    /// One container; `None` if the runtime gives none.
    pub(crate) async fn container(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<SpecifiedContainer>, GrpcError> {
        let id = id.to_owned();
        let Some(request) = in_namespace(namespace, ContainerRequest { id }) else {
            return Ok(None);
        };
        let answer: Result<SpecifiedAnswer, _> = self.0.call(GET_CONTAINER, request).await;
        match answer {
            Ok(answer) => Ok(answer.kept.into_iter().next()),
            Err(error) if error.is_refusal() => Ok(None),
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
    /// The next part, which is one container; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<ContainerAnswer>, GrpcError> {
        match &mut self.stream {
            Some(stream) => self.client.next(LIST_CONTAINERS, stream).await,
            None => Ok(None),
        }
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
