//! A gRPC server for tests, on a socket in a directory of its own. It knows no messages: a test gives the answer to
//! each method, in bytes.

use std::{
    convert::Infallible,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_core::Stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixListener, sync::mpsc, task::JoinSet};

/// The answer to a method.
pub(crate) enum Reply {
    /// These messages, and a good end.
    Messages(Vec<Bytes>),
    /// Messages as they come, until the sender is dropped.
    Stream(mpsc::UnboundedReceiver<Bytes>),
    /// A status other than good.
    Refused(tonic::Code, &'static str),
    /// Nothing at all.
    Nothing,
}

impl Reply {
    pub(crate) fn one(message: &impl Message) -> Self {
        Self::Messages(vec![message.encode_to_vec().into()])
    }

    pub(crate) fn all<M: Message>(messages: &[M]) -> Self {
        let messages = messages
            .iter()
            .map(|message| message.encode_to_vec().into());
        Self::Messages(messages.collect())
    }
}

/// A request.
pub(crate) struct Asked {
    /// `/package.Service/Method`.
    pub(crate) method: String,
    /// The request's metadata.
    pub(crate) metadata: HeaderMap,
    /// The message.
    pub(crate) message: Bytes,
}

impl Asked {
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        M::decode(self.message.clone()).unwrap()
    }
}

/// A server; dropping it closes its socket and all connections.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves until dropped. `answer` is called for each request.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tasks = serve(&socket_in(directory.path()), Arc::new(answer));
        Self {
            directory,
            _tasks: tasks,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("grpc.sock")
}

type Answers = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

fn serve(socket: &Path, answer: Answers) -> JoinSet<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            connections.spawn(async move {
                let service = service_fn(move |request| respond(Arc::clone(&answer), request));
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    tasks
}

type Body = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

async fn respond(
    answer: Answers,
    request: Request<Incoming>,
) -> Result<Response<StreamBody<Body>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let asked = Asked {
        method: head.uri.path().to_owned(),
        metadata: head.headers,
        message: body.slice(5..),
    };
    let body: Body = match answer(&asked) {
        Reply::Messages(messages) => {
            let mut frames: Vec<_> = messages.iter().map(frame).collect();
            frames.push(end(tonic::Code::Ok, ""));
            Box::pin(Frames(frames.into_iter()))
        }
        Reply::Stream(messages) => Box::pin(Live(Some(messages))),
        Reply::Refused(code, message) => Box::pin(Frames(vec![end(code, message)].into_iter())),
        Reply::Nothing => std::future::pending().await,
    };
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(StreamBody::new(body)).unwrap())
}

fn frame(message: &Bytes) -> Frame<Bytes> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    Frame::data(framed.freeze())
}

fn end(code: tonic::Code, message: &str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", i32::from(code).into());
    trailers.insert("grpc-message", message.parse().unwrap());
    Frame::trailers(trailers)
}

/// Frames that are there already.
struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }
}

/// Frames that come later.
struct Live(Option<mpsc::UnboundedReceiver<Bytes>>);

impl Stream for Live {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let Some(messages) = &mut self.0 else {
            return std::task::Poll::Ready(None);
        };
        let next = std::pin::pin!(messages.recv()).poll(context);
        next.map(|message| {
            let next = message.as_ref().map(frame);
            Some(Ok(next.unwrap_or_else(|| {
                self.0 = None;
                end(tonic::Code::Ok, "")
            })))
        })
    }
}
