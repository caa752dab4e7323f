//! Debian's Prometheus scrapes a running oomwatch, and has the kill that is made meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use oomwatch_tests::{daemon::Daemon, host, wait::wait_until};
use serde_json::Value;

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(60);
const TEST: &str = "prometheus_scrapes_a_running_daemon";

/// A running Prometheus; killed on drop.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// Scrapes `target` every second, with what it stores in `dir`.
    fn start(dir: &Path, target: &str) -> Self {
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {"job_name": "oomwatch", "static_configs": [{"targets": [target]}]}
            ]
        });
        // JSON is YAML too.
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        // Prometheus does not tell which port it has: one that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// What a query comes to, once it comes to anything.
    fn query(&self, query: &str) -> Option<String> {
        let path = format!("/api/v1/query?query={query}");
        let answer = get(&self.address, &path)?;
        let answer: Value = serde_json::from_str(&answer).ok()?;
        let value = answer.pointer("/data/result/0/value/1")?;
        Some(value.as_str()?.to_owned())
    }

    fn wait_for(&self, query: &str, wanted: &str) {
        let what = format!("{query} being {wanted}");
        let known = || Ok((self.query(query).as_deref() == Some(wanted)).then_some(()));
        wait_until(LIMIT, &what, known).unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer, if there is one.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

#[test]
fn prometheus_scrapes_a_running_daemon() {
    let oomwatch = host::oomwatch().unwrap();
    let version = Command::new("prometheus").arg("--version").output();
    if let Err(error) = version {
        return host::skip(
            TEST,
            &format!("prometheus: {error}: run `cargo xtask setup`"),
        );
    }
    let Some(layout) = host::layout_or_skip(TEST, &oomwatch) else {
        return;
    };
    let web = layout.limited("scraped").unwrap();
    let cgroup = web.identity().path().to_str().unwrap().to_owned();
    let container = format!("web-1={cgroup}");
    let listen = [
        "--discover",
        "none",
        "--listen",
        "127.0.0.1:0",
        "--container",
    ];
    let daemon = Daemon::start(&oomwatch, &[&listen[..], &[&container]].concat()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), &daemon.listens_at().unwrap());
    prometheus.wait_for("up", "1");
    let kills = r#"sum(container_oom_kills_total{container_id="web-1"})"#;
    prometheus.wait_for(kills, "0");
    web.kill_a_hog(Path::new(HOG), "scraped-hog", web.identity())
        .unwrap();
    prometheus.wait_for(kills, "1");
    prometheus.wait_for("sum(oomwatch_registered_containers)", "1");
    daemon.stop().unwrap();
    prometheus.wait_for("up", "0");
}
