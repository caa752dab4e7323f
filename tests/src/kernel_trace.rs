//! The kernel's own trace of `oom:mark_victim`, in a tracefs instance of ours.
//!
//! The same tracepoint oomwatch hooks, read by other means: it shows how often the kernel marked
//! a thread, which the log does not (a task that was exiting anyway is marked but not logged).

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// A trace of its own, removed on drop.
#[derive(Debug)]
pub struct KernelTrace {
    path: PathBuf,
}

impl KernelTrace {
    /// Starts tracing.
    pub fn start() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("oomwatch-tests-{}-{number}", std::process::id());
        let trace = Self {
            path: PathBuf::from(INSTANCES).join(name),
        };
        fs::create_dir(&trace.path)
            .with_context(|| format!("creating {}", trace.path.display()))?;
        let switch = trace.path.join("events/oom/mark_victim/enable");
        fs::write(&switch, "1").with_context(|| format!("writing {}", switch.display()))?;
        Ok(trace)
    }

    /// Everything traced so far: who marked whom.
    pub fn marks(&self) -> Result<Vec<String>> {
        let path = self.path.join("trace");
        // Names of processes are in there, and they need not be UTF-8.
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text
            .lines()
            .filter(|line| line.contains(" mark_victim: "))
            .map(|line| line.trim().to_owned())
            .collect())
    }
}

impl Drop for KernelTrace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
