//! The messages of containerd's services, with the fields that we use.
//!
//! Numbers and types from containerd's `api/services/*/*.proto`, `api/types` and `api/events`.

use std::collections::BTreeMap;

use prost::Message;

use crate::runtimes::grpc::{Element, Elements};

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

/// Whether containerd would take this name of a namespace. All containers in it would carry a longer one.
pub(crate) fn is_namespace(name: &str) -> bool {
    (1..=76).contains(&name.len())
}

impl Element for Namespace {
    fn is_valid(&self) -> bool {
        is_namespace(&self.name)
    }
}

pub(crate) type NamespacesAnswer = Elements<Namespace>;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TasksRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TaskRequest {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
}

/// A container's first process. Its `container_id` (1) is left empty; `id` is the container's.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Process {
    #[prost(string, tag = "2")]
    pub(crate) id: String,
    #[prost(uint32, tag = "3")]
    pub(crate) pid: u32,
    #[prost(int32, tag = "4")]
    pub(crate) status: i32,
}

impl Process {
    /// Whether it is there: created, running, paused, or about to be paused. A stopped task keeps its number.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.status, 1 | 2 | 4 | 5)
    }
}

impl Element for Process {
    fn is_valid(&self) -> bool {
        !self.id.is_empty()
    }
}

pub(crate) type TasksAnswer = Elements<Process>;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TaskAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) task: Option<Process>,
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

impl Element for Container {
    fn is_valid(&self) -> bool {
        !self.id.is_empty()
    }

    fn labels(&mut self) -> Option<&mut BTreeMap<String, String>> {
        Some(&mut self.labels)
    }
}

/// The same with its specification, which is long.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SpecifiedContainer {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) image: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) spec: Option<Any>,
}

impl Element for SpecifiedContainer {
    fn is_valid(&self) -> bool {
        !self.id.is_empty()
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// The answer to `Get`: one at most.
pub(crate) type SpecifiedAnswer = Elements<SpecifiedContainer>;

/// One part of the answer to `ListStream`: one at most.
pub(crate) type ContainerAnswer = Elements<Container>;

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
