//! The kernel's own trace, in a tracefs instance of ours: of `oom:mark_victim`, or of system calls.
//!
//! The first is the same tracepoint oomwatch hooks, read by other means: it shows how often the kernel marked
//! a thread, which the log does not (a task that was exiting anyway is marked but not logged).

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// A trace of its own, removed on drop.
#[derive(Debug)]
pub struct KernelTrace {
    path: PathBuf,
}

impl KernelTrace {
    /// Starts tracing marks of victims.
    pub fn start() -> Result<Self> {
        let trace = Self::create()?;
        trace.set("events/oom/mark_victim/enable", "1")?;
        Ok(trace)
    }

    /// Starts tracing the system calls that `filter` picks, and each `exec`.
    pub fn of_calls(filter: &str) -> Result<Self> {
        let trace = Self::create()?;
        for event in ["raw_syscalls/sys_enter", "raw_syscalls/sys_exit"] {
            trace.set(&format!("events/{event}/filter"), filter)?;
            trace.set(&format!("events/{event}/enable"), "1")?;
        }
        trace.set("events/sched/sched_process_exec/enable", "1")?;
        Ok(trace)
    }

    fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("oomwatch-tests-{}-{number}", std::process::id());
        let trace = Self {
            path: PathBuf::from(INSTANCES).join(name),
        };
        fs::create_dir(&trace.path)
            .with_context(|| format!("creating {}", trace.path.display()))?;
        Ok(trace)
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let file = self.path.join(name);
        fs::write(&file, value).with_context(|| format!("writing {}", file.display()))
    }

    /// Marks of victims so far: who marked whom.
    pub fn marks(&self) -> Result<Vec<String>> {
        let mut lines = self.lines()?;
        lines.retain(|line| line.contains(" mark_victim: "));
        Ok(lines)
    }

    /// Everything traced so far.
    pub fn lines(&self) -> Result<Vec<String>> {
        let path = self.path.join("trace");
        // Names of processes are in there, and they need not be UTF-8.
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.map(|line| line.trim().to_owned()).collect())
    }
}

impl Drop for KernelTrace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
