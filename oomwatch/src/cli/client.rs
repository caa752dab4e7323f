//! Asking a running daemon by HTTP on its control socket. Answers are bounded in size and time. Their text is made
//! printable where it is shown.

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use oomwatch::printable;
use serde::Deserialize;
use tokio::{net::UnixStream, task::JoinSet, time::timeout};

use super::{
    ControlArgs,
    socket::{ControlArg, DEFAULT_CONTROL},
};

/// From the question to the whole answer. The daemon itself gives up sooner.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer: 50,000 containers.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Bytes of one line of a stream.
const MAX_LINE_BYTES: usize = 4 << 20;

/// A daemon that can be asked.
pub(crate) struct Client {
    path: PathBuf,
}

/// Why a daemon refuses.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// An open stream of lines, and the task that moves its connection.
pub(crate) struct Lines {
    body: Incoming,
    read: Vec<u8>,
    _connection: JoinSet<()>,
}

impl Client {
    /// The daemon that the arguments name.
    ///
    /// # Errors
    /// When they name none.
    pub(crate) fn new(args: &ControlArgs) -> anyhow::Result<Self> {
        match &args.control {
            None => Ok(Self {
                path: DEFAULT_CONTROL.into(),
            }),
            Some(ControlArg::Path(path)) => Ok(Self { path: path.clone() }),
            Some(ControlArg::Off) => {
                bail!("no control socket is given: --control PATH says which daemon is meant")
            }
        }
    }

    /// Asks, and returns the whole answer.
    ///
    /// # Errors
    /// When nobody answers, or with a refusal.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<Bytes> {
        self.within(async {
            let (response, _connection) = self.send(method, path, body).await?;
            self.whole(response).await
        })
        .await
    }

    /// Follows a stream.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn lines(&self, path: &str) -> anyhow::Result<Lines> {
        self.within(async {
            let (response, connection) = self.send(Method::GET, path, String::new()).await?;
            if !response.status().is_success() {
                bail!(self.refusal(response).await?);
            }
            Ok(Lines {
                body: response.into_body(),
                read: Vec::new(),
                _connection: connection,
            })
        })
        .await
    }

    async fn within<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let done = timeout(LIMIT, work).await;
        let path = self.path.display();
        done.with_context(|| format!("the oomwatch at {path} does not answer"))?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<(Response<Incoming>, JoinSet<()>)> {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let talking = || format!("talking to {}", self.path.display());
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, moving) = handshake.with_context(talking)?;
        let mut connection = JoinSet::new();
        connection.spawn(async {
            // The reader of the answer gets its error.
            let _ = moving.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Full::new(Bytes::from(body)))
            .with_context(talking)?;
        let response = sender.send_request(request).await.with_context(talking)?;
        Ok((response, connection))
    }

    fn unreachable(&self, error: &io::Error) -> anyhow::Error {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow!(
                "no oomwatch answers on {path}: start one with `oomwatch run`, or give the --control PATH that it was started with"
            ),
            io::ErrorKind::PermissionDenied => anyhow!(
                "no permission to use {path}: use sudo, or start oomwatch with --control-group GROUP and be in that group"
            ),
            _ => anyhow!("cannot connect to {path}: {error}"),
        }
    }

    async fn whole(&self, response: Response<Incoming>) -> anyhow::Result<Bytes> {
        if !response.status().is_success() {
            bail!(self.refusal(response).await?);
        }
        self.body(response).await
    }

    async fn body(&self, response: Response<Incoming>) -> anyhow::Result<Bytes> {
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        let body = body
            .map_err(|error| anyhow!("reading the answer of {}: {error}", self.path.display()))?;
        Ok(body.to_bytes())
    }

    async fn refusal(&self, response: Response<Incoming>) -> anyhow::Result<String> {
        let status = response.status();
        let body = self.body(response).await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Ok(printable(problem.detail.as_bytes())),
            Err(_) => Ok(format!(
                "what answers on {} is no oomwatch, or another version: it says {status}",
                self.path.display()
            )),
        }
    }
}

impl Lines {
    /// The next line, without its end; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or a line is longer than any event is.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                return Ok(Some(String::from_utf8_lossy(line).into_owned()));
            }
            if self.read.len() > MAX_LINE_BYTES {
                bail!("a line of the stream is longer than {MAX_LINE_BYTES} bytes");
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.context("the connection to the daemon broke")?;
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
