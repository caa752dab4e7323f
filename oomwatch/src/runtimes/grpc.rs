//! gRPC over a runtime's unix socket: a connection, and requests with a time limit.
//!
//! Knows no runtime: its callers bring the messages and the names of the methods. The messages are written by hand as
//! `prost` structures with the few fields that we use. Generated ones would need `protoc` at build time.

pub(crate) mod containerd;
mod elements;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::mpsc, task::JoinSet, time::timeout};
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tracing::debug;

pub(crate) use self::elements::{Element, Elements};
use super::source::speaker::Peer;

/// An answer beyond this is refused. 5,000 containers in one come to some 5 MiB. containerd and the kubelet have the
/// same limit.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// An answer of a subscription beyond this is left out. An event of containerd has some kB.
const MAX_EVENT_BYTES: usize = 128 << 10;
/// Answers of a subscription that wait for its owner at most. Beyond this the server waits.
const SUBSCRIPTION_QUEUE: usize = 256;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    /// The socket.
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    /// No answer in time.
    #[error("no answer to {method} within {} s", limit.as_secs())]
    Hangs {
        /// The method.
        method: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The server ended a stream that has no end.
    #[error("the connection was closed")]
    Closed,
    /// The connection, or the runtime's refusal.
    #[error("{method} failed")]
    Refused {
        /// The method.
        method: &'static str,
        /// Why.
        #[source]
        status: Box<Status>,
    },
}

impl GrpcError {
    /// Whether the runtime answered, and not as it was asked to. A connection that broke also ends the events.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code().is_some()
    }

    /// Whether the runtime answers that it has no such method.
    pub(crate) fn is_unimplemented(&self) -> bool {
        self.code() == Some(tonic::Code::Unimplemented)
    }

    /// The status that the runtime answered with.
    pub(crate) fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Refused { status, .. } => Some(status.code()),
            Self::Connect(_) | Self::Hangs { .. } | Self::Closed => None,
        }
    }
}

/// A message to send.
pub(crate) trait Ask: prost::Message + 'static {}
impl<M: prost::Message + 'static> Ask for M {}

/// A message to receive.
pub(crate) trait Answer: prost::Message + Default + 'static {}
impl<M: prost::Message + Default + 'static> Answer for M {}

/// A connection. Cheap to clone: all clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    grpc: tonic::client::Grpc<Channel>,
    limit: Duration,
    peer: Arc<OnceLock<Peer>>,
}

impl Client {
    /// Connects to a socket; no request may take longer than `limit`.
    pub(crate) async fn connect(socket: &Path, limit: Duration) -> Result<Self, GrpcError> {
        let socket = socket.to_owned();
        let peer = Arc::<OnceLock<Peer>>::default();
        let first = peer.clone();
        let connector = tower::service_fn(move |_| open(socket.clone(), first.clone()));
        // The name stands in each request's header and means nothing on a unix socket.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(limit);
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(GrpcError::Connect)?;
        let grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { grpc, limit, peer })
    }

    /// Who answers. `None` before there was a connection.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.peer.get().copied()
    }

    /// One request, one answer.
    pub(crate) async fn call<Q: Ask, A: Answer>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Result<A, GrpcError> {
        let mut grpc = self.grpc.clone();
        let answer = async {
            ready(&mut grpc).await?;
            let path = PathAndQuery::from_static(method);
            grpc.unary(request, path, ProstCodec::default()).await
        };
        Ok(self.limited(method, answer).await?.into_inner())
    }

    /// One request, with answers whenever there are some, such as events. The request is sent while the caller does
    /// other things.
    pub(crate) fn subscribe<Q: Ask, A: Answer>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Subscription<A> {
        let (sender, answers) = mpsc::channel(SUBSCRIPTION_QUEUE);
        let client = self.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = client.forward(method, request, &sender).await {
                // Fails where nobody listens any more.
                let _ = sender.send(Err(error)).await;
            }
        });
        Subscription {
            answers,
            _task: task,
        }
    }

    /// Hands on the answers of a stream until it ends, or nobody listens any more.
    async fn forward<Q: Ask, A: Answer>(
        &self,
        method: &'static str,
        request: Request<Q>,
        sender: &mpsc::Sender<Result<A, GrpcError>>,
    ) -> Result<(), GrpcError> {
        let mut stream: Streaming<A> = self.stream(method, request).await?;
        let failed = |status| refused(method, status);
        while let Some(answer) = stream.message().await.map_err(failed)? {
            if answer.encoded_len() > MAX_EVENT_BYTES {
                debug!(method, "an event of a runtime is too long");
            } else if sender.send(Ok(answer)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Returns with the stream's head. It has no time limit: a server may send the head only with its first answer,
    /// and that answer may come late.
    async fn stream<Q: Ask, A: Answer>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Result<Streaming<A>, GrpcError> {
        let mut grpc = self.grpc.clone();
        let stream = async {
            ready(&mut grpc).await?;
            let path = PathAndQuery::from_static(method);
            grpc.server_streaming(request, path, ProstCodec::default())
                .await
        };
        let stream = stream.await.map_err(|status| refused(method, status))?;
        Ok(stream.into_inner())
    }

    /// The next part of a [`Self::listing`].
    pub(crate) async fn next<A: Answer>(
        &self,
        method: &'static str,
        stream: &mut Streaming<A>,
    ) -> Result<Option<A>, GrpcError> {
        self.limited(method, stream.message()).await
    }

    /// One request, and a stream of answers that comes at once and ends by itself.
    pub(crate) async fn listing<Q: Ask, A: Answer>(
        &self,
        method: &'static str,
        request: Request<Q>,
    ) -> Result<Streaming<A>, GrpcError> {
        let stream = timeout(self.limit, self.stream(method, request)).await;
        stream.map_err(|_| self.hangs(method))?
    }

    async fn limited<T>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, GrpcError> {
        let answer = timeout(self.limit, answer).await;
        let answer = answer.map_err(|_| self.hangs(method))?;
        answer.map_err(|status| refused(method, status))
    }

    fn hangs(&self, method: &'static str) -> GrpcError {
        let limit = self.limit;
        GrpcError::Hangs { method, limit }
    }
}

/// Answers that come whenever there are some. Dropping it ends the request.
#[derive(Debug)]
pub(crate) struct Subscription<A> {
    answers: mpsc::Receiver<Result<A, GrpcError>>,
    _task: JoinSet<()>,
}

impl<A> Subscription<A> {
    /// The next one; `None` once the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, GrpcError> {
        self.answers.recv().await.transpose()
    }
}

/// Connects, for the first time or again. Then nobody else may answer than before.
async fn open(socket: PathBuf, first: Arc<OnceLock<Peer>>) -> io::Result<TokioIo<UnixStream>> {
    let stream = UnixStream::connect(&socket).await?;
    let peer = Peer::of(&stream, &socket)?;
    if first.get_or_init(|| peer).owner != peer.owner {
        return Err(io::Error::other("another user listens now"));
    }
    Ok(TokioIo::new(stream))
}

async fn ready(grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), Status> {
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::from_error(Box::new(error)))
}

fn refused(method: &'static str, status: Status) -> GrpcError {
    let status = Box::new(status);
    GrpcError::Refused { method, status }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
