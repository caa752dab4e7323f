//! Each kill is told once: however deep it is, whatever is registered above it and when, whichever run and
//! whichever generation of programs saw it, and whatever became of its cgroup and its counters meanwhile.
//!
//! What they have in common is [`Runs`]: who died where, over all runs of the daemon, and what must be told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{LIMIT_BYTES, hex_id};
use crate::{
    cgroup::{Cgroup, Counters},
    daemon::{ContainerTotals, Daemon, Stopped},
    event::Event,
    guest::{
        case::{KILL_LIMIT, vmstat},
        context::Context,
        law::Law,
        report::Outcome,
    },
    wait::wait_until,
};

mod children;
mod churn;
mod clock;
mod deep;
mod groups;
mod registered;
mod runs;
mod toggled;

pub(super) use children::{child_added, child_counters, child_pid, child_tiers};
pub(super) use churn::storm_of_cgroups;
pub(super) use clock::clock_steps;
pub(super) use deep::{chain, outer};
pub(super) use groups::{members_removed, upgraded_meanwhile, upgraded_without_room};
pub(super) use registered::outer_added;
pub(super) use runs::{pinned_between, pinned_fallback, removed_while_down};
pub(super) use toggled::{toggled, toggled_pinned, toggled_pinned_stored, toggled_stored};

const HOG: &str = "ledger-hog";
/// How long a report may take on an emulated machine; one that does not come shows in the end.
const EVENT_LIMIT: Duration = Duration::from_secs(15);

/// Of one kind, where something is wrong.
const LINES_SHOWN: usize = 50;
/// Where the store is not opened in time.
const MOST_STARTS: usize = 3;

/// A process that was killed, and its container.
#[derive(Debug)]
struct Death {
    pid: u32,
    container: Option<String>,
}

/// Runs of the daemon, one after another, and the truth about them.
struct Runs<'a> {
    context: &'a Context,
    vmstat: Counters,
    /// Must each be in one event of kind `kill`.
    deaths: Vec<Death>,
    /// By container: how many kills nothing but a counter can tell of.
    counted: BTreeMap<Option<String>, u64>,
    /// Kills that no run can know of.
    unknown: u64,
    /// A ring is too small: some deaths are told by counters alone.
    loses_records: bool,
    /// What the runs that are over told.
    told: Vec<Event>,
    stopped: Vec<Stopped>,
    totals: Vec<ContainerTotals>,
    errors: Vec<String>,
    failures: Vec<String>,
}

impl<'a> Runs<'a> {
    fn begin(context: &'a Context) -> Result<Self> {
        Ok(Self {
            context,
            vmstat: vmstat()?,
            deaths: Vec::new(),
            counted: BTreeMap::new(),
            unknown: 0,
            loses_records: false,
            told: Vec::new(),
            stopped: Vec::new(),
            totals: Vec::new(),
            errors: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// Starts a run, once more where a slow machine took so long to open its store that it went without: that
    /// is no run of what is looked at here.
    fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Daemon> {
        start(self.context, arguments)
    }

    /// Stops a run and keeps what it told.
    fn stop(&mut self, daemon: Daemon) -> Result<()> {
        let output = daemon.stop()?;
        let run = self.stopped.len() + 1;
        let (events, kills) = (output.events.len(), output.events.iter());
        let kills = kills.filter(|event| event.is_kill()).count();
        self.errors
            .push(format!("run {run}: {events} events, {kills} of them kills"));
        let errors = output.errors.iter();
        self.errors
            .extend(errors.map(|line| format!("run {run}: {line}")));
        self.told.extend(output.events);
        self.totals.extend(output.totals);
        self.stopped
            .push(output.stopped.context("no summary at the daemon's end")?);
        Ok(())
    }

    /// A process dies of a cgroup's limit while a run watches, which is given time to tell of it.
    fn lose(&mut self, daemon: &Daemon, cgroup: &Cgroup, container: Option<&str>) -> Result<()> {
        let pid = self.lose_unwatched(cgroup, container)?;
        let is_told = |event: &Event| event.is_kill() && has_victim(event, pid);
        let told = daemon.wait_for_event(EVENT_LIMIT, "of a kill", is_told);
        self.that("a kill is told while it is watched", told.is_ok());
        Ok(())
    }

    /// The same while none runs, but for programs that are pinned.
    fn lose_unwatched(&mut self, cgroup: &Cgroup, container: Option<&str>) -> Result<u32> {
        let pid = self.context.lose_a_process(HOG, cgroup)?;
        self.died(&[pid], container);
        Ok(pid)
    }

    /// The same where nothing but a counter can tell.
    fn lose_unseen(&mut self, cgroup: &Cgroup, container: Option<&str>) -> Result<()> {
        self.context.lose_a_process(HOG, cgroup)?;
        *self
            .counted
            .entry(container.map(str::to_owned))
            .or_default() += 1;
        Ok(())
    }

    /// The same where no run can know of it.
    fn lose_unknown(&mut self, cgroup: &Cgroup) -> Result<()> {
        self.context.lose_a_process(HOG, cgroup)?;
        self.unknown += 1;
        Ok(())
    }

    /// Processes that were killed.
    fn died(&mut self, pids: &[u32], container: Option<&str>) {
        self.deaths.extend(pids.iter().map(|&pid| Death {
            pid,
            container: container.map(str::to_owned),
        }));
    }

    /// Something must be so.
    fn that(&mut self, what: &str, holds: bool) {
        if !holds {
            self.failures.push(format!("not so: {what}"));
        }
    }

    /// Gives the daemon time until the history has as many kills as there were.
    fn wait_for_history(&self, state: &Path) {
        let all = self.deaths.len() as u64 + self.counted.values().sum::<u64>();
        let _ = wait_until(KILL_LIMIT, "the kills in the history", || {
            let told = history(self.context, state)?;
            let told = told.iter().map(Event::count).sum::<Result<u64>>()?;
            Ok((told >= all).then_some(()))
        });
    }

    /// All that the runs told.
    fn judge(self, seen: &str) -> Result<Outcome> {
        let told = self.told.clone();
        self.judge_these(&told, seen)
    }

    /// All that is in the history.
    fn judge_history(self, state: &Path, seen: &str) -> Result<Outcome> {
        let told = history(self.context, state)?;
        self.judge_these(&told, seen)
    }

    /// Passes, or fails with all that is wrong.
    fn judge_these(mut self, told: &[Event], seen: &str) -> Result<Outcome> {
        self.judge_deaths(told)?;
        self.judge_counted(told)?;
        self.judge_numbers(told)?;
        if self.failures.is_empty() {
            return Ok(Outcome::Passed(seen.to_owned()));
        }
        let told: Vec<String> = told.iter().map(in_short).collect();
        bail!(
            "{}\ntold:\n  {}\nthe runs:\n  {}",
            joined(&self.failures, "\n"),
            joined(&told, "\n  "),
            joined(&self.errors, "\n  ")
        )
    }

    /// Each death is in one `kill`, of its container; and there are no others.
    fn judge_deaths(&mut self, told: &[Event]) -> Result<()> {
        let kills: Vec<&Event> = told.iter().filter(|event| event.is_kill()).collect();
        let mut failures = Vec::new();
        let mut known = BTreeSet::new();
        for Death { pid, container } in &self.deaths {
            known.insert(*pid);
            let mine: Vec<_> = kills
                .iter()
                .filter(|event| has_victim(event, *pid))
                .collect();
            let fewest = usize::from(!self.loses_records);
            if !(fewest..=1).contains(&mine.len()) {
                let times = mine.len();
                failures.push(format!("{pid} of {container:?} is told {times} times"));
            }
            for event in mine {
                let of = event.container_id()?;
                if of != *container {
                    failures.push(format!("{pid} of {container:?} is told of {of:?}"));
                }
            }
        }
        for event in kills {
            if !known.contains(&event.victim_pid()?) {
                failures.push(format!("nobody died: {}", in_short(event)));
            }
        }
        self.failures.extend(failures);
        Ok(())
    }

    /// By counters alone that many are told, of those containers, and no others.
    fn judge_counted(&mut self, told: &[Event]) -> Result<()> {
        let mut counted = BTreeMap::new();
        for event in told {
            if event.kind()? == "counter_only" {
                *counted.entry(event.container_id()?).or_default() += event.count()?;
            }
        }
        // How many they are is held against what the node counted.
        if counted != self.counted && !self.loses_records {
            self.failures.push(format!(
                "told by counters alone: {counted:?}, expected {:?}",
                self.counted
            ));
        }
        Ok(())
    }

    /// What was told, and the kernel's second counts, is what the node counted; and so says the last run.
    fn judge_numbers(&mut self, told: &[Event]) -> Result<()> {
        let node = vmstat()?.rise(&self.vmstat, "oom_kill");
        let node = node.context("no oom_kill in /proc/vmstat")?;
        let double_counts: i64 = self
            .stopped
            .iter()
            .map(|stopped| stopped.double_counts)
            .sum();
        let all = told.iter().map(Event::count).sum::<Result<u64>>()?;
        let explained = i64::try_from(all + self.unknown)? + double_counts;
        if node != explained {
            self.failures.push(format!(
                "the node counted {node}; told {all}, double_counts {double_counts}, unknown {}",
                self.unknown
            ));
        }
        let last = self.stopped.last().copied().unwrap_or_default();
        if last.residual != 0 {
            let residual = last.residual;
            self.failures
                .push(format!("the last run's residual is {residual}"));
        }
        if double_counts == 0 && self.unknown == 0 {
            let deaths = self.deaths.iter();
            let homes = deaths.filter_map(|death| Some((death.pid, death.container.clone()?)));
            let law = Law::of_history(node, node, &homes.collect(), told)?;
            self.context.report.law(self.context.scenario, &law);
        }
        Ok(())
    }
}

/// See [`Runs::start`].
fn start<A: AsRef<OsStr>>(context: &Context, arguments: &[A]) -> Result<Daemon> {
    for _ in 0..MOST_STARTS {
        let daemon = Daemon::start(&context.oomwatch, arguments)?;
        let errors = daemon.so_far().errors;
        if !errors.iter().any(|line| line.contains("without history")) {
            return Ok(daemon);
        }
        daemon.stop()?;
        context
            .report
            .note("the store was not opened in time: started again");
    }
    bail!("the store was never opened in time")
}

fn has_victim(event: &Event, pid: u32) -> bool {
    event.victim_pid().is_ok_and(|victim| victim == pid)
}

/// Not more of them than anybody reads: the first, and the last.
fn joined(lines: &[String], separator: &str) -> String {
    let more = lines.len().saturating_sub(LINES_SHOWN);
    let (first, rest) = lines.split_at(lines.len().min(LINES_SHOWN / 2));
    let skipped = rest.iter().skip(more).cloned();
    let mut shown = first.to_vec();
    if more > 0 {
        shown.push(format!("({more} more)"));
    }
    shown.extend(skipped);
    shown.join(separator)
}

/// What matters here of an event.
fn in_short(event: &Event) -> String {
    let field = |path| {
        event
            .field(path)
            .map_or_else(|_| "?".into(), Value::to_string)
    };
    format!(
        "{} {} of {} in {}, pid {}, while_down {}",
        field("count"),
        field("kind"),
        field("container.id"),
        field("victim.cgroup_path"),
        field("victim.pid"),
        field("while_down")
    )
}

/// Everything in the history, however much.
fn history(context: &Context, state: &Path) -> Result<Vec<Event>> {
    context.history(state, &["--limit", "100000"])
}

/// A directory for a scenario's history.
fn state_dir(context: &Context) -> PathBuf {
    Path::new("/run").join(context.scenario)
}

/// `oomwatch WORDS… --output json --control SOCKET`.
fn ask(context: &Context, control: &str, words: &[&str]) -> Result<Value> {
    let answer = tell(context, control, &[words, &["--output", "json"]].concat())?;
    serde_json::from_str(&answer).with_context(|| format!("{words:?} says {answer}"))
}

/// `oomwatch WORDS… --control SOCKET`, which must go well.
fn tell(context: &Context, control: &str, words: &[&str]) -> Result<String> {
    let mut command = context.command(words);
    command.args(["--control", control]);
    let output = context.run_to_end(command)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "oomwatch {words:?}: {errors}");
    String::from_utf8(output.stdout).with_context(|| format!("oomwatch {words:?}"))
}

/// `kills` and `counter_only` of a container in `oomwatch list`.
fn listed(list: &Value, id: &str) -> Result<(Option<u64>, Option<u64>)> {
    let containers = list.get("containers").and_then(Value::as_array);
    let mut containers = containers.context("no list of containers")?.iter();
    let found = containers.find(|container| container.get("id").is_some_and(|found| found == id));
    let found = found.with_context(|| format!("{id} is not in the list"))?;
    let number = |key| found.get(key).and_then(Value::as_u64);
    Ok((number("kills"), number("counter_only")))
}

/// A container in a directory that hands out the memory controller.
fn container_in(slice: &Cgroup, number: u64) -> Result<(String, Cgroup)> {
    let id = hex_id(number);
    let cgroup = slice.child(format!("docker-{id}.scope"))?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    Ok((id, cgroup))
}

/// `system.slice`, with the memory controller for what is in it.
fn system_slice(context: &Context) -> Result<Cgroup> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    Ok(slice)
}
