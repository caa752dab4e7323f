//! The messages of `runtime.v1`, with the fields that we use.
//!
//! Numbers and types from Kubernetes' `cri-api`, `pkg/apis/runtime/v1/api.proto`.

use std::collections::BTreeMap;

use prost::Message;

use crate::runtimes::grpc::{Element, Elements};

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionAnswer {
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pod {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<PodMetadata>,
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) image: String,
    /// As the pod has it. Not given by older runtimes.
    #[prost(string, tag = "18")]
    pub(super) user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) pod_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<Image>,
    #[prost(int32, tag = "6")]
    pub(super) state: i32,
    #[prost(btree_map = "string, string", tag = "8")]
    pub(super) labels: BTreeMap<String, String>,
}

/// Of pods and of containers alike.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Filter {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// For pods and for containers alike; all of them without a filter.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<Filter>,
}

impl Pod {
    pub(super) fn is_running(&self) -> bool {
        is_sandbox_running(self.state)
    }
}

impl Element for Pod {
    fn is_valid(&self) -> bool {
        !self.id.is_empty()
    }

    fn labels(&mut self) -> Option<&mut BTreeMap<String, String>> {
        Some(&mut self.labels)
    }
}

impl Container {
    pub(super) fn is_running(&self) -> bool {
        is_container_running(self.state)
    }
}

impl Element for Container {
    fn is_valid(&self) -> bool {
        !self.id.is_empty()
    }

    fn labels(&mut self) -> Option<&mut BTreeMap<String, String>> {
        Some(&mut self.labels)
    }
}

/// Whether a sandbox is ready.
pub(super) fn is_sandbox_running(state: i32) -> bool {
    state == 0
}

/// Whether a container is created or running. Of one that is created, the first process waits.
pub(super) fn is_container_running(state: i32) -> bool {
    matches!(state, 0 | 1)
}

pub(super) type PodsAnswer = Elements<Pod>;
pub(super) type ContainersAnswer = Elements<Container>;

/// About one container or one sandbox, with all that the runtime says.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EventsRequest {}

/// An event of a container, or of a pod's sandbox.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(int32, tag = "2")]
    pub(super) kind: i32,
}

/// [`Event::kind`].
pub(super) const CREATED: i32 = 0;
pub(super) const STARTED: i32 = 1;
pub(super) const DELETED: i32 = 3;
