//! A made-up Docker: cgroups named as it names them, and its interface, as far as oomwatch asks it.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use oomwatch_tests::{cgroup::Cgroup, host::Layout};

/// How long the listing may be in coming.
const ASKED_LIMIT: Duration = Duration::from_secs(20);
/// What it says of itself.
const INFO: &str = r#"{"CgroupDriver":"systemd"}"#;

/// The cgroups and the socket, removed on drop.
pub(super) struct Runtime {
    _root: Cgroup,
    directory: tempfile::TempDir,
    asked: Receiver<Instant>,
}

impl Runtime {
    /// Makes so many containers, and listens.
    pub(super) fn create(containers: usize) -> Result<Self> {
        let name = format!("oomwatch-bench-docker-{}", std::process::id());
        let root = Cgroup::create(Layout::read()?.unified().join(name))?;
        let ids: Vec<String> = (0..containers)
            .map(|number| format!("{number:064x}"))
            .collect();
        for id in &ids {
            std::fs::create_dir(root.path().join(format!("docker-{id}.scope")))?;
        }
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join("docker.sock"))?;
        let (sender, asked) = mpsc::channel();
        let listing = listing(&ids);
        // Ends with the process: nothing waits for it.
        thread::spawn(move || serve(&listener, &listing, &sender));
        Ok(Self {
            _root: root,
            directory,
            asked,
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// When the listing was asked for.
    pub(super) fn asked(&self) -> Result<Instant> {
        let asked = self.asked.recv_timeout(ASKED_LIMIT);
        asked.context("nobody asked for the listing")
    }
}

/// As Docker writes it, with labels as Compose has them.
fn listing(ids: &[String]) -> String {
    let each = ids.iter().enumerate().map(|(number, id)| {
        serde_json::json!({
            "Id": id,
            "Names": [format!("/shop-web-{number}")],
            "Image": "registry.example/shop/web:1.27.3",
            "ImageID": format!("sha256:{id}"),
            "Command": "/docker-entrypoint.sh nginx -g 'daemon off;'",
            "Created": 1_787_394_225,
            "Ports": [{"PrivatePort": 80, "Type": "tcp"}],
            "Labels": {
                "com.docker.compose.config-hash": id,
                "com.docker.compose.container-number": number.to_string(),
                "com.docker.compose.project": "shop",
                "com.docker.compose.project.working_dir": "/srv/shop",
                "com.docker.compose.service": "web",
                "maintainer": "NGINX Docker Maintainers <docker-maint@nginx.com>",
            },
            "State": "running",
            "Status": "Up 2 hours",
            "HostConfig": {"NetworkMode": "shop_default"},
            "NetworkSettings": {"Networks": {"shop_default": {"NetworkID": id, "EndpointID": id}}},
            "Mounts": [],
        })
    });
    serde_json::Value::Array(each.collect()).to_string()
}

fn serve(listener: &UnixListener, listing: &str, asked: &Sender<Instant>) {
    let mut streams = Vec::new();
    for stream in listener.incoming().flatten() {
        match respond(&stream, listing, asked) {
            Ok(true) => streams.push(stream),
            Ok(false) => {}
            Err(error) => eprintln!("the made-up Docker: {error}"),
        }
    }
}

/// Answers one request; tells whether its connection stays open.
fn respond(mut stream: &UnixStream, listing: &str, asked: &Sender<Instant>) -> io::Result<bool> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    if request.contains(" /events") {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        return Ok(true);
    }
    let answer = if request.contains(" /info") {
        INFO
    } else {
        let _ = asked.send(Instant::now());
        listing
    };
    let length = answer.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}"
    )?;
    Ok(false)
}

/// The arguments of a daemon that follows it, and nothing else.
pub(super) fn arguments(socket: &Path) -> [String; 4] {
    let socket = format!("docker={}", socket.display());
    ["--discover", "docker", "--socket", &socket].map(str::to_owned)
}
