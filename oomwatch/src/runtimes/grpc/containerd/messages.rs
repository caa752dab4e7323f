//! The messages of containerd's services, with the fields that we use.
//!
//! Numbers and types from containerd's `api/services/*/*.proto`, `api/types` and `api/events`.

use std::collections::BTreeMap;

use prost::Message;

/// Moments as protobuf has them.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

/// A message and the name of its type.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// An event on its way. `containerd.services.events.v1.Envelope` up to 1.7 and
/// `containerd.types.Envelope` from 2.0 on are the same.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(message, optional, tag = "1")]
    pub(crate) timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(string, tag = "3")]
    pub(crate) topic: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) event: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForwardRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) envelope: Option<Envelope>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Namespace {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamespacesAnswer {
    #[prost(message, repeated, tag = "1")]
    pub(crate) namespaces: Vec<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TasksRequest {}

/// A container's first process. Its `container_id` (1) is left empty; `id` is the container's.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Process {
    #[prost(string, tag = "2")]
    pub(crate) id: String,
    #[prost(uint32, tag = "3")]
    pub(crate) pid: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TasksAnswer {
    #[prost(message, repeated, tag = "1")]
    pub(crate) tasks: Vec<Process>,
}

/// For all of a namespace: without filters.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// The answer to `Get`, and one part of the answer to `ListStream`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) container: Option<Container>,
}

/// `/tasks/create`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TaskCreate {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(uint32, tag = "6")]
    pub(crate) pid: u32,
}

/// `/tasks/oom`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct TaskOom {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
}

/// `/containers/create`, `/containers/update` and `/containers/delete`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerChange {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// Not of a container that was deleted.
    #[prost(string, tag = "2")]
    pub(crate) image: String,
}
