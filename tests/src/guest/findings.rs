//! What all witnesses said about one case, side by side.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cgroup::{Cgroup, Counters};
use crate::event::Event;
use crate::kernel_log::LoggedKill;

/// More lines than this of one witness help nobody.
const LINES_SHOWN: usize = 30;

/// The counters of one cgroup before and after.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    before: Counters,
    local_before: Counters,
    after: Counters,
    local_after: Counters,
}

impl Watched {
    pub(super) fn new(cgroup: &Cgroup) -> Result<Self> {
        let (before, local_before) = (cgroup.events()?, cgroup.events_local()?);
        Ok(Self {
            path: cgroup.path().to_owned(),
            after: before.clone(),
            local_after: local_before.clone(),
            before,
            local_before,
        })
    }

    pub(super) fn read_again(&mut self) -> Result<()> {
        self.after = Counters::read(&self.path.join("memory.events"))?;
        self.local_after = Counters::read(&self.path.join("memory.events.local"))?;
        Ok(())
    }
}

/// The end of a [`super::case::Case`].
#[derive(Debug)]
pub(super) struct Findings {
    /// Whether there was no oomwatch to ask.
    pub(super) dry: bool,
    /// All events, in order.
    pub(super) events: Vec<Event>,
    /// Lines on standard output that were not JSON.
    pub(super) malformed: Vec<String>,
    /// Lines on standard error.
    pub(super) errors: Vec<String>,
    /// The kernel's log.
    pub(super) logged: Vec<LoggedKill>,
    /// How often the log went round, after which it is not complete.
    pub(super) log_overwritten: u64,
    /// The kernel's trace of `mark_victim`.
    pub(super) marks: Vec<String>,
    pub(super) watched: Vec<Watched>,
    pub(super) spawned: Vec<String>,
}

impl Findings {
    /// The events of kind `kill`.
    pub(super) fn kills(&self) -> Vec<&Event> {
        self.events.iter().filter(|event| event.is_kill()).collect()
    }

    /// How much a counter of a cgroup and all below it rose.
    pub(super) fn rise(&self, cgroup: &Cgroup, key: &str) -> Result<i64> {
        let watched = self.watched(cgroup)?;
        let rise = watched.after.rise(&watched.before, key);
        rise.with_context(|| format!("this kernel does not count `{key}`"))
    }

    /// How much a counter of a cgroup alone rose.
    pub(super) fn local_rise(&self, cgroup: &Cgroup, key: &str) -> Result<i64> {
        let watched = self.watched(cgroup)?;
        let rise = watched.local_after.rise(&watched.local_before, key);
        rise.with_context(|| format!("this kernel does not count `{key}`"))
    }

    fn watched(&self, cgroup: &Cgroup) -> Result<&Watched> {
        let mut all = self.watched.iter();
        all.find(|watched| watched.path == cgroup.path())
            .with_context(|| format!("{} is not watched", cgroup.path().display()))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(out, "spawned", &self.spawned)?;
        for watched in &self.watched {
            let path = watched.path.display();
            writeln!(out, "{path} before: {}", watched.before)?;
            writeln!(out, "{path} after:  {}", watched.after)?;
            writeln!(out, "{path} after (local): {}", watched.local_after)?;
        }
        let logged: Vec<String> = self
            .logged
            .iter()
            .map(|kill| format!("{} ({})", kill.pid, kill.comm))
            .collect();
        list(out, "kernel log, killed", &logged)?;
        if self.log_overwritten > 0 {
            writeln!(out, "  and what was overwritten unread")?;
        }
        list(out, "kernel trace", &self.marks)?;
        let events: Vec<String> = self.events.iter().map(ToString::to_string).collect();
        list(out, "oomwatch event", &events)?;
        list(out, "oomwatch, not JSON", &self.malformed)?;
        list(out, "oomwatch stderr", &self.errors)
    }
}

fn list(out: &mut fmt::Formatter<'_>, name: &str, lines: &[String]) -> fmt::Result {
    writeln!(out, "{name}: {}", lines.len())?;
    for line in lines.iter().take(LINES_SHOWN) {
        writeln!(out, "  {line}")?;
    }
    match lines.len().saturating_sub(LINES_SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}
