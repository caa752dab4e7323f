//! A daemon that speaks HTTP on a unix socket, as Docker and Podman do. [`Client`] asks it for JSON and reads its
//! stream of events. [`follow`] holds the common part of following the two.
//!
//! Knows no container runtime. Every answer is bounded in size and, except for the stream, in time. A listing is read
//! element by element. All text of a daemon is untrusted.

mod elements;
mod event;
mod follow;
mod known;
mod lines;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinSet};
use tracing::debug;

use self::{elements::Elements, event::Event, lines::Lines};
pub(super) use self::{
    event::{Change, Told},
    follow::{Daemon, Listed},
    known::{KnownContainer, Labels, State, is_running, pid},
};
use super::source::{SourceError, speaker::Peer};
use crate::{containers::sighting::Owner, retry::REQUEST_LIMIT};

/// Bytes of a listing: 5,000 containers with 6 kB each.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Bytes of any other answer, which is of one container.
const MAX_ONE_BYTES: usize = 4 << 20;
/// Bytes of an error's answer that are read, and characters of it that are passed on.
const MAX_ERROR_BYTES: usize = 4096;
const MAX_ERROR_CHARS: usize = 256;

/// A header of all of Podman's answers, also where it is asked as if it were Docker.
const PODMAN: &str = "libpod-api-version";

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum HttpError {
    /// The daemon refuses.
    #[error("the answer is {status}: {message}")]
    Refused { status: StatusCode, message: String },
    /// The answer is not the expected JSON. Holds only the place: the parser's words repeat the text.
    #[error("malformed JSON at line {line}, column {column}")]
    Malformed { line: usize, column: usize },
    /// The answer is no array, or only a part of one.
    #[error("the answer is no whole list")]
    NoListing,
    /// The answer is longer than any host's containers need.
    #[error("the answer is too long")]
    TooLong,
    /// More containers changed than the source can ask for.
    #[error("more than {limit} containers wait to be asked for")]
    Behind { limit: usize },
}

impl HttpError {
    fn of(self, request: &'static str) -> SourceError {
        failed(request, self)
    }
}

impl From<serde_json::Error> for HttpError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        Self::Malformed { line, column }
    }
}

/// Asks one daemon, each time on a connection of its own.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: Arc<Path>,
    /// Who answered when the events were asked for. Nobody else may answer then.
    owner: Arc<Mutex<Option<Owner>>>,
}

/// An answer of which the body is still to be read, and the task that moves its connection.
struct Answer {
    response: Response<Incoming>,
    connection: JoinSet<()>,
    peer: Peer,
}

/// The stream of events.
struct Events {
    lines: Lines,
    peer: Peer,
    /// Whether Podman answers, at whichever interface.
    is_podman: bool,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket: socket.into(),
            owner: Arc::default(),
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The listing at a path.
    async fn list(&self, path: &str) -> Result<Elements, SourceError> {
        let request = "the listing";
        within(request, async {
            let answer = self.ask(request, path).await?;
            if answer.response.status().is_success() {
                let body = answer.response.into_body();
                return Ok(Elements::new(request, body, answer.connection));
            }
            Err(refusal(answer.response).await.of(request))
        })
        .await
    }

    /// The answer to a path, or `None` if the daemon has none or cannot give it. One such container is no reason to
    /// lose all others.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        request: &'static str,
        path: &str,
    ) -> Result<Option<T>, SourceError> {
        let answer = self.whole(request, path).await?;
        match answer.and_then(parsed) {
            Ok(found) => Ok(Some(found)),
            Err(error) => {
                debug!(request, %error, "a runtime does not tell of a container");
                Ok(None)
            }
        }
    }

    /// The events that follow from now on.
    async fn events(&self, path: &str) -> Result<Events, SourceError> {
        let request = "the events";
        within(request, async {
            self.expect(None);
            let answer = self.ask(request, path).await?;
            self.expect(Some(answer.peer.owner));
            if answer.response.status().is_success() {
                let (head, body) = answer.response.into_parts();
                return Ok(Events {
                    peer: answer.peer,
                    is_podman: head.headers.contains_key(PODMAN),
                    lines: Lines::new(request, body, answer.connection),
                });
            }
            Err(refusal(answer.response).await.of(request))
        })
        .await
    }

    async fn whole(
        &self,
        request: &'static str,
        path: &str,
    ) -> Result<Result<Bytes, HttpError>, SourceError> {
        within(request, async {
            let answer = self.ask(request, path).await?;
            if !answer.response.status().is_success() {
                return Ok(Err(refusal(answer.response).await));
            }
            let body = Limited::new(answer.response.into_body(), MAX_ONE_BYTES);
            match body.collect().await {
                Ok(body) => Ok(Ok(body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Ok(Err(HttpError::TooLong)),
                Err(source) => Err(SourceError::Request { request, source }),
            }
        })
        .await
    }

    async fn ask(&self, request: &'static str, path: &str) -> Result<Answer, SourceError> {
        let connected = self.connect().await;
        let (stream, peer) = connected.map_err(|error| SourceError::Connect(Box::new(error)))?;
        let (mut sender, moving) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(request, error))?;
        let mut connection = JoinSet::new();
        connection.spawn(async {
            // The reader of the answer gets its error.
            let _ = moving.await;
        });
        let asked = Request::get(path)
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(request, error))?;
        let answered = sender.send_request(asked).await;
        let response = answered.map_err(|error| failed(request, error))?;
        Ok(Answer {
            response,
            connection,
            peer,
        })
    }

    async fn connect(&self) -> io::Result<(UnixStream, Peer)> {
        let stream = UnixStream::connect(&self.socket).await?;
        let peer = Peer::of(&stream, &self.socket)?;
        let expected = *self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.is_some_and(|owner| owner != peer.owner) {
            return Err(io::Error::other("another user listens now"));
        }
        Ok((stream, peer))
    }

    fn expect(&self, owner: Option<Owner>) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
    }
}

fn failed(
    request: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> SourceError {
    let source = Box::new(error);
    SourceError::Request { request, source }
}

async fn within<T>(
    request: &'static str,
    work: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let done = tokio::time::timeout(REQUEST_LIMIT, work).await;
    done.unwrap_or(Err(SourceError::Hangs { request }))
}

fn parsed<T: DeserializeOwned>(body: Bytes) -> Result<T, HttpError> {
    Ok(serde_json::from_slice(&body)?)
}

/// The message of a daemon beside an error's status.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

async fn refusal(response: Response<Incoming>) -> HttpError {
    let status = response.status();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.len() < MAX_ERROR_BYTES {
        let Some(Ok(frame)) = body.frame().await else {
            break;
        };
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
    }
    let message = match serde_json::from_slice::<Refusal>(&text) {
        Ok(refusal) => crate::id::printable(refusal.message.as_bytes()),
        Err(_) => crate::id::printable(text.trim_ascii()),
    };
    let message = message.chars().take(MAX_ERROR_CHARS).collect();
    HttpError::Refused { status, message }
}

/// Filters as both daemons take them, `{"type":{"container":true}}`, for a query.
pub(super) fn filters(filters: &[(&str, &[&str])]) -> String {
    let of = |values: &[&str]| -> serde_json::Value {
        let values = values
            .iter()
            .map(|value| ((*value).to_owned(), true.into()));
        values.collect::<serde_json::Map<_, _>>().into()
    };
    let filters = filters
        .iter()
        .map(|(key, values)| ((*key).to_owned(), of(values)));
    let json = serde_json::Value::Object(filters.collect());
    percent_encoded(&json.to_string())
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
