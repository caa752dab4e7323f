//! What the kernel says of a process: memory, descriptors, and how often it went to sleep.

use std::fs;

use anyhow::{Context as _, Result};

/// One reading of `/proc/PID`.
#[derive(Clone, Copy)]
pub(super) struct Status {
    /// `VmRSS`: shared pages of its file and its maps too.
    pub(super) resident_bytes: u64,
    /// `RssAnon`: what it allocated.
    pub(super) anonymous_bytes: u64,
    pub(super) descriptors: usize,
    /// Processor time of the main thread, which does all work but the verifier's.
    pub(super) cpu_ns: u64,
    /// Voluntary context switches of all threads: each is one wake-up.
    pub(super) switches: u64,
}

impl Status {
    pub(super) fn read(pid: u32) -> Result<Self> {
        let process = format!("/proc/{pid}");
        let status = format!("{process}/status");
        let text = fs::read_to_string(&status).with_context(|| format!("reading {status}"))?;
        let mut switches = 0;
        for thread in fs::read_dir(format!("{process}/task"))? {
            let text = fs::read_to_string(thread?.path().join("status"))?;
            switches += number(&text, "voluntary_ctxt_switches")?;
        }
        Ok(Self {
            resident_bytes: number(&text, "VmRSS")? * 1024,
            anonymous_bytes: number(&text, "RssAnon")? * 1024,
            cpu_ns: cpu_ns(&process)?,
            descriptors: fs::read_dir(format!("{process}/fd"))?.count(),
            switches,
        })
    }
}

fn cpu_ns(process: &str) -> Result<u64> {
    let path = format!("{process}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let first = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    first.with_context(|| format!("no processor time in {path}"))
}

/// The number after `NAME:`, without its unit.
fn number(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no number {name} in a process's status"))
}
