//! What all witnesses said about one case, side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::law::{Home, Law, Witnesses};
use crate::{
    cgroup::{Cgroup, Counters},
    daemon::Output,
    event::Event,
    kernel_log::LoggedKill,
};

/// More lines than this of one witness help nobody.
const LINES_SHOWN: usize = 30;

/// The counters of one cgroup before and after.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// The container's id, if the cgroup is a registered one's.
    container: Option<String>,
    before: Counters,
    local_before: Counters,
    after: Counters,
    local_after: Counters,
    /// Read for the last time: the cgroup or its counters are about to go.
    closed: bool,
}

impl Watched {
    pub(super) fn new(cgroup: &Cgroup, container: Option<&str>) -> Result<Self> {
        let (before, local_before) = (cgroup.events()?, cgroup.events_local()?);
        Ok(Self {
            path: cgroup.path().to_owned(),
            container: container.map(str::to_owned),
            after: before.clone(),
            local_after: local_before.clone(),
            before,
            local_before,
            closed: false,
        })
    }

    /// Reads the counters, unless that was done for the last time.
    pub(super) fn read_again(&mut self) -> Result<()> {
        if !self.closed {
            self.after = Counters::read(&self.path.join("memory.events"))?;
            self.local_after = Counters::read(&self.path.join("memory.events.local"))?;
        }
        Ok(())
    }

    /// Reads the counters of a cgroup for the last time.
    pub(super) fn close(&mut self, path: &Path) -> Result<()> {
        if self.path == path {
            self.read_again()?;
            self.closed = true;
        }
        Ok(())
    }

    /// The container, if a process in the cgroup `path` is in it, and how deep it lies.
    pub(super) fn container_of(&self, path: &Path) -> Option<(usize, &str)> {
        let container = self.container.as_deref()?;
        let depth = self.path.components().count();
        path.starts_with(&self.path).then_some((depth, container))
    }
}

/// The end of a [`super::case::Case`].
#[derive(Debug)]
pub(super) struct Findings {
    /// Whether there was no oomwatch to ask.
    pub(super) dry: bool,
    /// All that oomwatch wrote.
    pub(super) output: Output,
    /// The kernel's log.
    pub(super) logged: Vec<LoggedKill>,
    /// How often the log went round, after which it is not complete.
    pub(super) log_overwritten: u64,
    /// The kernel's trace of `mark_victim`.
    pub(super) marks: Vec<String>,
    /// Rise of `oom_kill` in `/proc/vmstat`.
    pub(super) node_rise: i64,
    pub(super) watched: Vec<Watched>,
    pub(super) spawned: BTreeMap<u32, Home>,
}

impl Findings {
    /// All events, in order.
    pub(super) fn events(&self) -> &[Event] {
        &self.output.events
    }

    /// Holds everything against everything. `totals` tells whether oomwatch keeps any here.
    pub(super) fn law(&self, totals: bool) -> Result<Law> {
        let mut rises = BTreeMap::new();
        for watched in &self.watched {
            if let Some(container) = &watched.container {
                let rise = watched.after.rise(&watched.before, "oom_kill");
                let rise = rise.context("this kernel does not count `oom_kill`")?;
                *rises.entry(container.clone()).or_default() += rise;
            }
        }
        Ok(Law::judge(&Witnesses {
            rises: &rises,
            node_rise: self.node_rise,
            logged: self.logged_processes().map(|logged| logged.len()),
            spawned: &self.spawned,
            events: self.events(),
            totals: totals.then_some(&self.output.totals),
            stopped: self.output.stopped,
        }))
    }

    /// The kill of this container, where it lost one process.
    pub(super) fn kill_in(&self, container: &str) -> Result<&Event> {
        let mut kills = self.kills().into_iter();
        let found = kills.find(|kill| {
            let id = kill.container_id();
            id.is_ok_and(|id| id.as_deref() == Some(container))
        });
        found.with_context(|| format!("no kill in {container}"))
    }

    /// The events of kind `kill`.
    pub(super) fn kills(&self) -> Vec<&Event> {
        self.events()
            .iter()
            .filter(|event| event.is_kill())
            .collect()
    }

    /// The processes, or threads of them, that the kernel logged as killed; `None` where the log
    /// went round, for an incomplete log proves nothing.
    pub(super) fn logged_processes(&self) -> Option<BTreeSet<u32>> {
        let pids = self.logged.iter().map(|kill| kill.pid);
        (self.log_overwritten == 0).then(|| pids.collect())
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
        // The latest of this path: the ones before are of cgroups that are gone.
        let mut all = self.watched.iter().rev();
        all.find(|watched| watched.path == cgroup.path())
            .with_context(|| format!("{} is not watched", cgroup.path().display()))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spawned: Vec<String> = self
            .spawned
            .iter()
            .map(|(pid, home)| format!("{pid} in {home:?}"))
            .collect();
        list(out, "spawned", &spawned)?;
        writeln!(out, "/proc/vmstat oom_kill: +{}", self.node_rise)?;
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
        let events: Vec<String> = self.events().iter().map(ToString::to_string).collect();
        list(out, "oomwatch event", &events)?;
        list(out, "oomwatch, not JSON", &self.output.malformed)?;
        list(out, "oomwatch stderr", &self.output.errors)
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
