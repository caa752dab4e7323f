//! A daemon for tests, on a socket in a directory of its own: each connection gets one answer, in
//! bytes that the test chooses.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
};

/// What is answered.
pub(in crate::discover) enum Reply {
    /// A good answer with this body.
    Json(String),
    /// These bytes, whatever they are, and the end.
    Raw(String),
    /// A good answer whose body comes as it comes, until the sender is dropped.
    Stream(mpsc::UnboundedReceiver<String>),
    /// Nothing, for ever.
    Nothing,
}

/// A server; dropping it closes all connections.
pub(in crate::discover) struct Server {
    directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Server {
    /// `answer` is asked for each path.
    pub(in crate::discover) fn start(
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("http.sock")).unwrap();
        let answer = Arc::new(answer);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                connections.spawn(async move { respond(stream, &*answer).await });
            }
        });
        Self {
            directory,
            _tasks: tasks,
        }
    }

    pub(in crate::discover) fn socket(&self) -> PathBuf {
        self.directory.path().join("http.sock")
    }
}

async fn respond(mut stream: UnixStream, answer: &(dyn Fn(&str) -> Reply + Send + Sync)) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    // A client that has seen enough closes the connection.
    let _ = match answer(path) {
        Reply::Json(body) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await
        }
        Reply::Raw(bytes) => stream.write_all(bytes.as_bytes()).await,
        Reply::Stream(parts) => send_all(&mut stream, parts).await,
        Reply::Nothing => std::future::pending().await,
    };
}

async fn send_all(
    stream: &mut UnixStream,
    mut parts: mpsc::UnboundedReceiver<String>,
) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    while let Some(part) = parts.recv().await {
        let chunk = format!("{:x}\r\n{part}\r\n", part.len());
        stream.write_all(chunk.as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}
