//! An OpenTelemetry collector that is no part of oomwatch: `otlp_receiver.py`, on another's
//! reading of the protocol.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::host;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/otlp_receiver.py");
const LIMIT: Duration = Duration::from_secs(30);

/// A running collector. Ends when it is dropped.
pub struct Collector {
    child: Child,
    /// It ends when this does.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    grpc: u64,
    http: u64,
}

/// The Python with the packages that it needs, or why there is none.
pub fn python() -> Result<PathBuf> {
    let python = host::cache_dir()?.join(host::OTLP_VENV).join("bin/python");
    if !python.exists() {
        bail!("{} is not there: run `cargo xtask setup`", python.display());
    }
    Ok(python)
}

impl Collector {
    /// Starts one; `arguments` are those of the script.
    pub fn start(python: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {SCRIPT}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the collector has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut collector = Self {
            child,
            stdin,
            lines,
            grpc: 0,
            http: 0,
        };
        let ports = collector.next()?;
        let port = |name: &str| {
            let port = ports.get(name).and_then(Value::as_u64);
            port.with_context(|| format!("no port for {name} in {ports}"))
        };
        (collector.grpc, collector.http) = (port("grpc")?, port("http")?);
        Ok(collector)
    }

    /// The environment of a sender by this protocol.
    pub fn variables(&self, protocol: &str, scheme: &str) -> [(&'static str, String); 2] {
        let port = match protocol {
            "grpc" => self.grpc,
            _ => self.http,
        };
        [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("{scheme}://localhost:{port}"),
            ),
        ]
    }

    /// The next thing that it tells.
    pub fn next(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(LIMIT);
        let line = line.context("the collector tells nothing")?;
        serde_json::from_str(&line).with_context(|| format!("the collector tells {line:?}"))
    }

    /// Ends it; returns what it told and nobody asked for.
    pub fn stop(mut self) -> Result<Vec<String>> {
        drop(self.stdin.take());
        self.child.wait().context("waiting for the collector")?;
        // Its end closes the pipe, and that ends the thread.
        Ok(self.lines.iter().collect())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The attributes of a record, resource or data point, by name.
pub fn attributes(of: &Value) -> Result<serde_json::Map<String, Value>> {
    let attributes = of.get("attributes").and_then(Value::as_array);
    let attributes = attributes.with_context(|| format!("no attributes in {of}"))?;
    let mut by_name = serde_json::Map::new();
    for attribute in attributes {
        let name = attribute.get("key").and_then(Value::as_str);
        let value = attribute.get("value").and_then(Value::as_object);
        let value = value.and_then(|value| value.values().next());
        let (name, value) = name.zip(value).with_context(|| format!("{attribute}"))?;
        if by_name.insert(name.to_owned(), value.clone()).is_some() {
            bail!("{name} is there twice in {of}");
        }
    }
    Ok(by_name)
}
