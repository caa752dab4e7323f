//! Requests to the CRI plugin over containerd's socket, one after the other.
//!
//! Waits for each answer on a runtime of its own, for scenarios are plain threads.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::messages::{
    Container, ContainerStatusAnswer, CreateContainerRequest, EXITED, Id, ImageSpec,
    ImageStatusAnswer, ImageStatusRequest, ListSandboxesRequest, Nothing, RunSandboxRequest,
    Sandbox, SandboxFilter, SandboxesAnswer, VersionAnswer,
};

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Far beyond what a sandbox needs on an emulated machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
pub(super) struct Client {
    runtime: Runtime,
    grpc: Grpc<Channel>,
}

impl Client {
    pub(super) fn connect() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connector = tower::service_fn(async |_| -> std::io::Result<_> {
            UnixStream::connect(Path::new(SOCKET))
                .await
                .map(TokioIo::new)
        });
        // The name stands in each request's header and means nothing on a unix socket.
        let endpoint = Endpoint::from_static("http://localhost").timeout(LIMIT);
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .with_context(|| format!("connecting to {SOCKET}"))?;
        let grpc = Grpc::new(channel);
        Ok(Self { runtime, grpc })
    }

    pub(super) fn version(&mut self) -> Result<VersionAnswer> {
        self.call("/runtime.v1.RuntimeService/Version", Nothing {})
    }

    /// Whether sandboxes and containers can be made of an image.
    pub(super) fn has_image(&mut self, image: &str) -> Result<bool> {
        let image = Some(ImageSpec {
            image: image.to_owned(),
        });
        let request = ImageStatusRequest { image };
        let answer: ImageStatusAnswer =
            self.call("/runtime.v1.ImageService/ImageStatus", request)?;
        Ok(answer.image.is_some())
    }

    /// Starts a pod's sandbox, and returns its id.
    pub(super) fn run_sandbox(&mut self, sandbox: &Sandbox) -> Result<String> {
        let sandbox = Some(sandbox.clone());
        let request = RunSandboxRequest { sandbox };
        let answer: Id = self.call("/runtime.v1.RuntimeService/RunPodSandbox", request)?;
        Ok(answer.id)
    }

    /// The id of the sandbox that has this label.
    pub(super) fn find_sandbox(&mut self, (key, value): (&str, &str)) -> Result<String> {
        let labels = [(key.to_owned(), value.to_owned())].into();
        let filter = Some(SandboxFilter { labels });
        let request = ListSandboxesRequest { filter };
        let answer: SandboxesAnswer =
            self.call("/runtime.v1.RuntimeService/ListPodSandbox", request)?;
        let found = answer.sandboxes.into_iter().next();
        let found = found.with_context(|| format!("there is no sandbox with {key}={value}"))?;
        Ok(found.id)
    }

    pub(super) fn stop_sandbox(&mut self, id: &str) -> Result<()> {
        self.act("/runtime.v1.RuntimeService/StopPodSandbox", id)
    }

    pub(super) fn remove_sandbox(&mut self, id: &str) -> Result<()> {
        self.act("/runtime.v1.RuntimeService/RemovePodSandbox", id)
    }

    /// Makes a container in a sandbox, and returns its id.
    pub(super) fn create_container(
        &mut self,
        sandbox_id: &str,
        sandbox: Sandbox,
        container: Container,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            sandbox_id: sandbox_id.to_owned(),
            container: Some(container),
            sandbox: Some(sandbox),
        };
        let answer: Id = self.call("/runtime.v1.RuntimeService/CreateContainer", request)?;
        Ok(answer.id)
    }

    pub(super) fn start_container(&mut self, id: &str) -> Result<()> {
        self.act("/runtime.v1.RuntimeService/StartContainer", id)
    }

    /// Whether a container has ended.
    pub(super) fn has_ended(&mut self, id: &str) -> Result<bool> {
        let request = Id { id: id.to_owned() };
        let answer: ContainerStatusAnswer =
            self.call("/runtime.v1.RuntimeService/ContainerStatus", request)?;
        Ok(answer.status.is_some_and(|status| status.state == EXITED))
    }

    pub(super) fn remove_container(&mut self, id: &str) -> Result<()> {
        self.act("/runtime.v1.RuntimeService/RemoveContainer", id)
    }

    /// A request that is about one thing, and has no answer.
    fn act(&mut self, method: &'static str, id: &str) -> Result<()> {
        let answer: Result<Nothing> = self.call(method, Id { id: id.to_owned() });
        answer.map(drop)
    }

    fn call<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let grpc = &mut self.grpc;
        let answer = self.runtime.block_on(async {
            grpc.ready().await?;
            let path = PathAndQuery::from_static(method);
            let answer = grpc.unary(Request::new(request), path, ProstCodec::default());
            Ok::<_, anyhow::Error>(answer.await?.into_inner())
        });
        answer.context(method)
    }
}
