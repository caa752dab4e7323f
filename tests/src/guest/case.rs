//! One run of the daemon with all witnesses beside it.

use std::{collections::BTreeMap, ffi::OsStr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    context::Context,
    findings::{Findings, Watched},
    law::Home,
};
use crate::{
    cgroup::{Cgroup, Counters},
    daemon::{Daemon, Output},
    event::Event,
    hog::{Hog, HogSpec},
    kernel_log::{KernelLog, LoggedKill},
    kernel_trace::KernelTrace,
    wait::wait_until,
};

/// How long a kill, or the report of it, may take on an emulated machine.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(30);
const EVENT_LIMIT: Duration = Duration::from_secs(15);

/// The daemon, the kernel's log and trace, and the counters of chosen cgroups, from one moment on.
#[derive(Debug)]
pub(super) struct Case {
    daemon: Option<Daemon>,
    log: KernelLog,
    logged: Vec<LoggedKill>,
    trace: KernelTrace,
    watched: Vec<Watched>,
    spawned: BTreeMap<u32, Home>,
    vmstat: Counters,
}

impl Case {
    /// Starts the daemon with these arguments and waits until it is ready.
    pub(super) fn start<A: AsRef<OsStr>>(context: &Context, arguments: &[A]) -> Result<Self> {
        let daemon = match context.dry {
            true => None,
            false => Some(Daemon::start(&context.oomwatch, arguments)?),
        };
        Self::beside(daemon)
    }

    /// The same with a daemon that was started in a way of its own.
    pub(super) fn beside(daemon: Option<Daemon>) -> Result<Self> {
        Ok(Self {
            daemon,
            log: KernelLog::from_now()?,
            logged: Vec::new(),
            trace: KernelTrace::start()?,
            watched: Vec::new(),
            spawned: BTreeMap::new(),
            vmstat: vmstat()?,
        })
    }

    /// Reads the counters of a cgroup now, and again at the end.
    pub(super) fn watch(&mut self, cgroup: &Cgroup) -> Result<()> {
        self.watched.push(Watched::new(cgroup, None)?);
        Ok(())
    }

    /// The same for a cgroup that oomwatch knows as a container, to which the law applies.
    pub(super) fn container(&mut self, id: &str, cgroup: &Cgroup) -> Result<()> {
        self.watched.push(Watched::new(cgroup, Some(id))?);
        Ok(())
    }

    /// Reads the counters of a cgroup for the last time, before they go.
    pub(super) fn close(&mut self, cgroup: &Cgroup) -> Result<()> {
        for watched in &mut self.watched {
            watched.close(cgroup.path())?;
        }
        Ok(())
    }

    /// Starts a hog inside a cgroup. It waits for commands.
    pub(super) fn hog(&mut self, spec: &HogSpec, cgroup: &Cgroup) -> Result<Hog> {
        let hog = Hog::spawn(spec)?;
        self.adopt(hog.pid(), cgroup)?;
        Ok(hog)
    }

    /// Moves a process into a cgroup.
    pub(super) fn adopt(&mut self, pid: u32, cgroup: &Cgroup) -> Result<()> {
        cgroup.add(pid)?;
        self.remember(pid, cgroup)
    }

    /// Notes where a process is that was started there.
    pub(super) fn remember(&mut self, pid: u32, cgroup: &Cgroup) -> Result<()> {
        let home = Home {
            cgroup_id: cgroup.id()?,
            container: self.container_of(cgroup.path()),
        };
        self.spawned.insert(pid, home);
        Ok(())
    }

    /// The container nearest to a cgroup.
    fn container_of(&self, path: &Path) -> Option<String> {
        let containers = self.watched.iter();
        containers
            .filter_map(|watched| watched.container_of(path))
            .max_by_key(|(depth, _)| *depth)
            .map(|(_, id)| id.to_owned())
    }

    /// How many marks the kernel has made so far.
    pub(super) fn marks(&self) -> Result<usize> {
        Ok(self.trace.marks()?.len())
    }

    /// Reads the kernel's log before it goes round. For scenarios with very many kills.
    pub(super) fn read_log(&mut self) -> Result<()> {
        self.logged.extend(self.log.kills()?);
        Ok(())
    }

    /// Waits until the kernel has logged that many kills in all; gives how many it has.
    pub(super) fn wait_for_logged(&mut self, number: usize) -> Result<usize> {
        wait_until(
            KILL_LIMIT,
            &format!("kill {number} in the kernel's log"),
            || {
                self.read_log()?;
                Ok((self.logged.len() >= number).then_some(self.logged.len()))
            },
        )
    }

    /// Stops the daemon's process in the middle of whatever it does, or lets it go on.
    pub(super) fn signal_daemon(&self, signal: Signal) -> Result<()> {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.context("the daemon has no process id")?;
        kill_process(pid, signal).context("signalling the daemon")
    }

    /// Gives the daemon time until its log says something; tells whether it did.
    pub(super) fn wait_for_log(&self, wanted: impl Fn(&[String]) -> bool) -> bool {
        let said = |output: &Output| wanted(&output.errors);
        let daemon = self.daemon.as_ref();
        daemon.is_none_or(|daemon| daemon.wait_for_output(EVENT_LIMIT, said))
    }

    /// Gives the daemon time to report that many kills. Too few will show in [`Self::finish`].
    pub(super) fn wait_for_kills(&self, number: usize) {
        if let Some(daemon) = &self.daemon {
            let _ = daemon.wait_for_kills(EVENT_LIMIT, number);
        }
    }

    /// Waits for an event of the daemon's.
    pub(super) fn wait_for_event(
        &self,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        let daemon = self.daemon.as_ref().context("there is no daemon")?;
        daemon.wait_for_event(EVENT_LIMIT, what, wanted)
    }

    /// Whether the daemon has reported something of that kind by now; never so without a daemon.
    pub(super) fn has_event(&self, kind: &str) -> bool {
        let wanted = |event: &Event| event.kind().is_ok_and(|found| found == kind);
        let daemon = self.daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.has_event(wanted))
    }

    /// The same for kills of any kind of event, by their number in it.
    pub(super) fn wait_for_count(&self, number: u64) {
        if let Some(daemon) = &self.daemon {
            let counts = |output: &Output| -> u64 {
                let counts = output.events.iter().map(Event::count);
                counts.map(Result::unwrap_or_default).sum()
            };
            let _ = daemon.wait_for_output(EVENT_LIMIT, |output| counts(output) >= number);
        }
    }

    /// Stops the daemon, which reconciles for the last time, and reads every witness.
    ///
    /// Stopping is also how a scenario proves that no further event would have come.
    pub(super) fn finish(mut self) -> Result<Findings> {
        for watched in &mut self.watched {
            watched.read_again()?;
        }
        self.read_log()?;
        let output = match self.daemon.take() {
            Some(daemon) => Some(daemon.stop().context("stopping oomwatch")?),
            None => None,
        };
        let node_rise = vmstat()?.rise(&self.vmstat, "oom_kill");
        Ok(Findings {
            dry: output.is_none(),
            output: output.unwrap_or_default(),
            node_rise: node_rise.context("no oom_kill in /proc/vmstat")?,
            watched: std::mem::take(&mut self.watched),
            logged: std::mem::take(&mut self.logged),
            log_overwritten: self.log.overwritten(),
            marks: self.trace.marks()?,
            spawned: std::mem::take(&mut self.spawned),
        })
    }
}

pub(super) fn vmstat() -> Result<Counters> {
    Counters::read(Path::new("/proc/vmstat"))
}
