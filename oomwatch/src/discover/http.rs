//! HTTP over a daemon's unix socket: a request with a JSON answer, and a stream of JSON lines.
//!
//! Bounded in time and in size, for nobody says that what listens there means well. Knows no daemon.

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::JoinSet, time::timeout};
use tracing::warn;

use super::source::{REQUEST_LIMIT, SourceError};

/// An answer beyond this is refused. Docker's listing of 5,000 containers has some 15 MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// As much is read of an error.
const MAX_ERROR_BYTES: usize = 4096;
/// A line of a stream beyond this is left out.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The daemon's answer is none.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("status {status}: {message}")]
    Status { status: StatusCode, message: String },
    #[error("not what the interface says")]
    Json(#[from] serde_json::Error),
}

/// A daemon.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    pub(super) fn at(socket: &Path) -> Self {
        let socket = socket.to_owned();
        Self { socket }
    }

    /// The answer to `GET path`; `request` is its name in an error.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        request: &'static str,
        path: &str,
    ) -> Result<T, SourceError> {
        limited(request, async {
            let (_connection, answer) = self.open(request, path).await?;
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
            let body = body.await.map_err(|error| failed(request, error))?;
            serde_json::from_slice(&body.to_bytes())
                .map_err(|error| failed(request, AnswerError::from(error)))
        })
        .await
    }

    /// What comes after `GET path`, line by line. Returns once the daemon has agreed.
    pub(super) async fn lines(
        &self,
        request: &'static str,
        path: &str,
    ) -> Result<Lines, SourceError> {
        let (connection, answer) = limited(request, self.open(request, path)).await?;
        Ok(Lines {
            request,
            body: answer.into_body(),
            unread: BytesMut::new(),
            skips: false,
            _connection: connection,
        })
    }

    /// A connection of its own, and the head of a good answer.
    async fn open(
        &self,
        request: &'static str,
        path: &str,
    ) -> Result<(JoinSet<()>, Response<Incoming>), SourceError> {
        let connect = |error| SourceError::Connect(error);
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| connect(error.into()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connect(error.into()))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Its error is the request's too.
            let _ = connection.await;
        });
        let question = Request::get(path)
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(request, error))?;
        let answer = sender.send_request(question).await;
        let answer = answer.map_err(|error| failed(request, error))?;
        if answer.status().is_success() {
            return Ok((task, answer));
        }
        let status = answer.status();
        let message = explanation(answer.into_body()).await;
        Err(failed(request, AnswerError::Status { status, message }))
    }
}

/// Lines as they come. Dropping it closes the connection.
pub(super) struct Lines {
    request: &'static str,
    body: Incoming,
    unread: BytesMut,
    /// Whether what comes now is the rest of a line that is too long.
    skips: bool,
    _connection: JoinSet<()>,
}

impl Lines {
    /// The next one, without its end; `None` once the daemon has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| failed(self.request, error))?;
            if let Ok(data) = frame.into_data() {
                self.unread.extend_from_slice(&data);
            }
        }
    }

    /// A line that is there already.
    fn take(&mut self) -> Option<Bytes> {
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
            let line = self.unread.split_to(end + 1);
            let is_rest = std::mem::take(&mut self.skips);
            if !is_rest && end > 0 {
                return Some(line.freeze().slice(..end));
            }
        }
        if self.unread.len() > MAX_LINE_BYTES {
            warn!(
                request = self.request,
                "a line of a daemon is too long and left out"
            );
            self.skips = true;
        }
        if self.skips {
            self.unread.clear();
        }
        None
    }
}

async fn limited<T>(
    request: &'static str,
    answer: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let answer = timeout(REQUEST_LIMIT, answer).await;
    answer.unwrap_or(Err(SourceError::Hangs { request }))
}

/// What the daemon says of an error, as far as it can be read.
async fn explanation(body: Incoming) -> String {
    #[derive(serde::Deserialize)]
    struct Explanation {
        message: String,
    }
    let Ok(body) = Limited::new(body, MAX_ERROR_BYTES).collect().await else {
        return "no explanation".to_owned();
    };
    let body = body.to_bytes();
    match serde_json::from_slice(&body) {
        Ok(Explanation { message }) => message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    }
}

fn failed(
    request: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> SourceError {
    let source = error.into();
    SourceError::Request { request, source }
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
