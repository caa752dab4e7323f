//! A publisher of one's own: counts the kills of this host, and prints a line for each event until Ctrl-C.
//!
//! ```console
//! $ sudo publisher
//! ```
//!
//! Containers are those whose cgroup has a name that a container runtime gives. The library has the eBPF programs only
//! if it was built with them: see `examples/README.md`.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use anyhow::Result;
use oomwatch::{CgroupDiscovery, OomEvent, PublishError, PublishFuture, Publisher, Watcher};
use tokio::signal::unix::{SignalKind, signal};

/// The publisher. The watcher owns it and calls it for one event at a time, so it needs no lock.
#[derive(Default)]
struct Counter {
    kills: u64,
}

impl Counter {
    fn count(&mut self, event: &OomEvent) {
        // An event that replaces another is the same kill, with the container that it lacked.
        if event.supersedes.is_none() {
            self.kills += event.count;
        }
    }
}

impl Publisher for Counter {
    fn name(&self) -> &str {
        "counter"
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        self.count(&event);
        let line = format!("{} kills; {}", self.kills, event.to_text(false));
        Box::pin(async move { print(&line) })
    }

    /// The watcher calls it once, before it ends.
    fn flush(&mut self) -> PublishFuture<'_> {
        let line = format!("{} kills in all", self.kills);
        Box::pin(async move { print(&line) })
    }
}

/// Nobody reads any more: then the watcher need not call again.
fn print(line: &str) -> Result<(), PublishError> {
    writeln!(io::stdout(), "{line}").map_err(|_| PublishError::Closed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut watcher = Watcher::builder()
        .discover_cgroups(CgroupDiscovery::Containers)
        .publisher(Counter::default())
        .start()
        .await?;
    tokio::select! {
        _ = interrupt.recv() => {}
        // Only if it fails: its end says how.
        () = watcher.ended() => {}
    }
    let report = watcher.shutdown().await?;
    for publisher in &report.publishers {
        eprintln!("{}: {} published", publisher.name, publisher.published);
    }
    Ok(())
}
