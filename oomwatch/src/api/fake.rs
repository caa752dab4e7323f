//! A made-up watcher, and an API served for it, for tests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::{Api, ApiPublisher, ControlAccess, ControlSocket, ReadOnlyListener, Serving};
use crate::{
    cgroup::hierarchy::CgroupError,
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
        registry::RegistryError,
        sighting::{RuntimeApi, RuntimeSocket},
    },
    engine::naming::Registered,
    event::OomEvent,
    id::{CgroupId, ContainerId},
    publish::Publisher as _,
    tier::Tier,
    watcher::{
        AddError, Report, SourceReport, Status,
        requests::{Answer, Requests},
    },
};

/// Registers every container that it is given, below a made-up mount.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) containers: Mutex<BTreeMap<String, (PathBuf, ContainerDetails)>>,
    /// Answers nothing.
    pub(super) hangs: bool,
    /// How often the status was asked for.
    pub(super) asked: Arc<tokio::sync::watch::Sender<usize>>,
}

impl Fake {
    fn put(&self, id: &str, cgroup: &Path) -> Result<(), AddError> {
        let id = ContainerId::new(id)?;
        if !cgroup.starts_with("/sys/fs/cgroup") {
            return Err(AddError::Path(CgroupError::NotFound {
                path: cgroup.to_owned(),
            }));
        }
        let mut containers = self.containers.lock().unwrap();
        if containers.contains_key(id.as_str()) {
            return Err(RegistryError::DuplicateId(id).into());
        }
        let place = (cgroup.to_owned(), ContainerDetails::default());
        containers.insert(id.as_str().to_owned(), place);
        Ok(())
    }

    fn take(&self, id: &str) -> Result<(), AddError> {
        let id = ContainerId::new(id)?;
        let taken = self.containers.lock().unwrap().remove(id.as_str());
        taken.map(drop).ok_or(RegistryError::Unknown(id).into())
    }

    fn all(&self) -> Vec<Registered> {
        let containers = self.containers.lock().unwrap();
        let registered = containers.iter().map(|(id, (path, details))| Registered {
            container: Arc::new(Container {
                id: ContainerId::new(id).unwrap(),
                cgroup_id: CgroupId(7),
                identity: Identity::Manual,
                inside: None,
                details: details.clone(),
            }),
            cgroup_path: path.to_str().map(str::to_owned),
            kills: 1,
            counter_only: 0,
            double_counts: 0,
        });
        registered.collect()
    }

    fn answer<T: Send + 'static, E: Send + 'static>(
        &self,
        answer: Result<T, E>,
    ) -> Answer<'_, T, E> {
        let hangs = self.hangs;
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

impl Requests for Fake {
    fn status(&self) -> Answer<'_, Status> {
        self.asked.send_modify(|asked| *asked += 1);
        self.answer(Ok(Status {
            tier: Tier::Btf,
            sees_limits: true,
            has_counters: true,
            cgroups: 90,
            containers: self.containers.lock().unwrap().len(),
            node: Some("node-1".into()),
            sources: vec![SourceReport {
                socket: RuntimeSocket::new(RuntimeApi::Docker, "/run/docker.sock"),
                connected: true,
            }],
            report: Report::default(),
        }))
    }

    fn containers(&self) -> Answer<'_, Vec<Registered>> {
        self.answer(Ok(self.all()))
    }

    fn add<'a>(&'a self, id: &'a str, cgroup: &'a Path) -> Answer<'a, (), AddError> {
        self.answer(self.put(id, cgroup))
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, (), AddError> {
        self.answer(self.take(id))
    }
}

/// An API on both kinds of socket.
pub(super) struct Served {
    pub(super) dir: tempfile::TempDir,
    pub(super) publisher: ApiPublisher,
    pub(super) serving: Serving,
    pub(super) address: std::net::SocketAddr,
}

impl Served {
    pub(super) async fn start(fake: Fake) -> Self {
        Self::start_with(fake, |api| api).await
    }

    pub(super) async fn start_with(fake: Fake, with: impl FnOnce(Api) -> Api) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = ControlSocket::bind(path, ControlAccess::Owner).await;
        let listener = ReadOnlyListener::bind("127.0.0.1:0", false).await.unwrap();
        let address = listener.address();
        let (api, publisher) = Api::new();
        let api = api.control(socket.unwrap()).read_only(listener);
        Self {
            dir,
            publisher,
            serving: with(api).serve_for(fake),
            address,
        }
    }

    pub(super) async fn publish(&mut self, event: OomEvent) {
        self.publisher.publish(Arc::new(event)).await.unwrap();
    }

    pub(super) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("s"))
            .await
            .unwrap()
    }

    /// One request on the control socket, and its whole answer.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let request = request(method, path, "localhost", body);
        exchange(self.connect().await, request.as_bytes()).await
    }

    /// The same on the read-only listener, with any host's name.
    pub(super) async fn ask_listener(&self, method: &str, path: &str, host: &str) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(stream, request(method, path, host, "").as_bytes()).await
    }
}

fn request(method: &str, path: &str, host: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends bytes, and reads until the other side closes, however it does.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
) -> String {
    // It may refuse before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `wanted` has come, or the end has.
pub(super) async fn read_until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    text
}

pub(super) fn status_of(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).unwrap_or_default();
    code.parse().unwrap_or(0)
}

pub(super) fn json_of(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    // Large answers come in pieces, each after a line with its length.
    if !answer.contains("transfer-encoding: chunked") {
        return serde_json::from_str(body).unwrap();
    }
    let (mut json, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        json.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
        if length == 0 {
            break;
        }
    }
    serde_json::from_str(&json).unwrap()
}
