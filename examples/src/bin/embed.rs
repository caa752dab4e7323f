//! Watches one cgroup, and prints each kill in it as a line of text until Ctrl-C.
//!
//! ```console
//! $ sudo embed /sys/fs/cgroup/web-1
//! ```
//!
//! The library has the eBPF programs only if it was built with them: see `examples/README.md`.

use std::{
    env,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use oomwatch::{OomEvent, Watcher};
use tokio::signal::unix::{SignalKind, signal};

/// The container's id in events. A real program has one for each container.
const CONTAINER: &str = "watched";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cgroup = env::args_os().nth(1).context("usage: embed CGROUP")?;
    // Before the start, so that no Ctrl-C ends the program without its order.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let watcher = Watcher::builder().container(CONTAINER, &cgroup);
    let watcher = watcher.start().await?;
    let mut events = watcher.events().await?;
    eprintln!("watching {}", cgroup.display());
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            event = events.next() => match event {
                Some(event) if is_ours(&event) => writeln!(io::stdout(), "{}", event.to_text(false))?,
                // The rest of the host has kills too.
                Some(_) => {}
                // The watcher failed: its end says how.
                None => break,
            },
        }
    }
    let report = watcher.shutdown().await?;
    eprintln!("{} kills on this host", report.totals.kills);
    Ok(())
}

fn is_ours(event: &OomEvent) -> bool {
    let container = event.container.as_ref();
    container.is_some_and(|container| container.id.as_str() == CONTAINER)
}
