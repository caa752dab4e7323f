//! A daemon for tests. It writes given answers to a unix socket, whole or in part.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc},
    task::{JoinHandle, JoinSet},
};

use crate::{
    containers::sighting::{Realm, RuntimeKey, Sighting},
    runtimes::source::{
        RuntimeSource, SIGHTING_QUEUE, Sightings, SourceError, Wanted, speaker::Speaker,
    },
};

/// Longer than any test takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// The daemon's answer to a request.
pub(in crate::runtimes) enum Reply {
    /// Answers with this.
    Json(Value),
    /// Refuses.
    Refused(u16, &'static str),
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
    /// Sends the events that come, and these first.
    Events(Vec<Value>),
    /// Nothing.
    Hang,
}

pub(in crate::runtimes) struct Fake {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    events: Events,
    _server: JoinSet<()>,
}

/// Sends events to all subscribers.
#[derive(Clone)]
pub(in crate::runtimes) struct Events(broadcast::Sender<Vec<u8>>);

impl Events {
    pub(in crate::runtimes) fn send(&self, event: &Value) {
        self.write(format!("{event}\n").as_bytes());
    }

    pub(in crate::runtimes) fn write(&self, bytes: &[u8]) {
        self.0.send(bytes.to_vec()).expect("nobody is subscribed");
    }
}

impl Fake {
    /// A daemon that answers each path with `reply`.
    pub(in crate::runtimes) fn new(
        reply: impl Fn(&str, &Events) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let events = Events(broadcast::channel(1024).0);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let mut server = JoinSet::new();
        let (log, sender, reply) = (Arc::clone(&asked), events.clone(), Arc::new(reply));
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, sender, reply) = (log.clone(), sender.clone(), reply.clone());
                connections.spawn(async move {
                    let mut stream = stream;
                    let path = path(&mut stream).await;
                    log.lock().unwrap().push(path.clone());
                    let reply = reply(&path, &sender);
                    // The client may have left.
                    let _ = answer(stream, reply, sender).await;
                });
            }
        });
        Self {
            directory,
            asked,
            events,
            _server: server,
        }
    }

    pub(in crate::runtimes) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(in crate::runtimes) fn events(&self) -> &Events {
        &self.events
    }

    /// The paths that were asked for, without queries.
    pub(in crate::runtimes) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let bare = |path: &String| path.split('?').next().unwrap_or_default().to_owned();
        asked.iter().map(bare).collect()
    }
}

async fn path(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            break;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn answer(mut stream: UnixStream, reply: Reply, events: Events) -> std::io::Result<()> {
    match reply {
        Reply::Json(json) => stream.write_all(&whole(200, &json.to_string())).await,
        Reply::Refused(status, body) => stream.write_all(&whole(status, body)).await,
        Reply::Raw(bytes) => stream.write_all(&bytes).await,
        Reply::Events(first) => stream_events(stream, first, events).await,
        Reply::Hang => std::future::pending().await,
    }
}

/// An answer in one piece.
pub(in crate::runtimes) fn whole(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn stream_events(
    mut stream: UnixStream,
    first: Vec<Value>,
    events: Events,
) -> std::io::Result<()> {
    let mut receiver = events.0.subscribe();
    drop(events);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for event in first {
        chunk(&mut stream, format!("{event}\n").as_bytes()).await?;
    }
    while let Ok(bytes) = receiver.recv().await {
        chunk(&mut stream, &bytes).await?;
    }
    Ok(())
}

async fn chunk(stream: &mut UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    let head = format!("{:x}\r\n", bytes.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await
}

/// A source at work, and its sightings.
pub(in crate::runtimes) struct Followed {
    receiver: mpsc::Receiver<Sighting>,
    wanted: mpsc::Sender<RuntimeKey>,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Followed {
    pub(in crate::runtimes) fn new(source: impl RuntimeSource) -> Self {
        Self::of(source, Speaker::host())
    }

    /// One at which this speaker answers.
    pub(in crate::runtimes) fn of(mut source: impl RuntimeSource, speaker: Speaker) -> Self {
        let (sender, receiver) = mpsc::channel(SIGHTING_QUEUE);
        let sightings = Sightings::as_if(source.api(), speaker, sender);
        let (wanted, mut asked) = Wanted::channel();
        let task = tokio::spawn(async move { source.follow(&sightings, &mut asked).await });
        Self {
            receiver,
            wanted,
            task,
        }
    }

    /// Asks for a container.
    pub(in crate::runtimes) fn ask(&self, realm: Realm, id: &str) {
        let id = id.to_owned();
        self.wanted.try_send(RuntimeKey { id, realm }).unwrap();
    }

    pub(in crate::runtimes) async fn next(&mut self) -> Sighting {
        let next = tokio::time::timeout(DEADLINE, self.receiver.recv());
        next.await.expect("nothing was said").expect("it ended")
    }

    /// All until the listing is complete, and its ids.
    pub(in crate::runtimes) async fn listed(&mut self) -> (Vec<Sighting>, Vec<String>) {
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Sighting::Listed { keys, .. } => {
                    return (seen, keys.into_iter().map(|key| key.id).collect());
                }
                sighting => seen.push(sighting),
            }
        }
    }

    /// The error that it ended with. Earlier sightings are not looked at.
    pub(in crate::runtimes) async fn error(self) -> SourceError {
        let Self { receiver, task, .. } = self;
        let ended = tokio::time::timeout(DEADLINE, task).await;
        drop(receiver);
        ended.expect("it goes on").unwrap().unwrap_err()
    }
}
