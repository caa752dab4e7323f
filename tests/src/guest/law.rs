//! The conservation law: what the kernel counted, what the test did, and what was reported, for
//! every registered container and for the node.
//!
//! `rise of oom_kill == kills + counter_only + double_counts`, no process twice, none in the wrong
//! container. Pure: takes what the witnesses said, gives numbers and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Serialize;

use crate::{
    daemon::{ContainerTotals, Stopped},
    event::Event,
};

/// Where the test put a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) cgroup_id: u64,
    /// Its container, if that was registered.
    pub(super) container: Option<String>,
}

/// What everyone said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witnesses<'a> {
    /// Rise of `oom_kill` of each registered container, as the test read it.
    pub(super) rises: &'a BTreeMap<String, i64>,
    /// Rise of `oom_kill` in `/proc/vmstat`.
    pub(super) node_rise: i64,
    /// How many processes the kernel logged as killed; `None` where its log is not complete.
    pub(super) logged: Option<usize>,
    /// All processes that the test started.
    pub(super) spawned: &'a BTreeMap<u32, Home>,
    pub(super) events: &'a [Event],
    /// The daemon's own numbers; `None` on a host where it keeps no totals.
    pub(super) totals: Option<&'a [ContainerTotals]>,
    pub(super) stopped: Option<Stopped>,
}

/// The numbers of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Law {
    /// Rise of `oom_kill`, all containers together.
    truth: i64,
    /// Rise of `oom_kill` of the node.
    node: i64,
    /// Processes that the kernel logged as killed, or threads of them.
    pub(super) log: Option<i64>,
    pub(super) kills: i64,
    pub(super) counter_only: i64,
    double_counts: i64,
    already_exiting: i64,
    /// Sum of what is not explained, of each container and of the node, without their signs.
    residual: i64,
    /// Events that name a process the test did not start, or put it where it was not.
    misattributed: i64,
    /// All that is wrong, in words.
    #[serde(skip)]
    pub(super) failures: Vec<String>,
}

impl Law {
    /// The numbers of a history over several runs, of which no daemon has the totals: `homes` has the
    /// container of each process, `truth` and `node` are rises of `oom_kill`.
    pub(super) fn of_history(
        truth: i64,
        node: i64,
        homes: &BTreeMap<u32, String>,
        history: &[Event],
    ) -> Result<Self> {
        let mut law = Self {
            truth,
            node,
            ..Self::default()
        };
        for event in history {
            let count = i64::try_from(event.count()?)?;
            if !event.is_kill() {
                law.counter_only += count;
                continue;
            }
            law.kills += count;
            let home = homes.get(&event.victim_pid()?);
            law.misattributed += i64::from(home != event.container_id()?.as_ref());
        }
        let told = law.kills + law.counter_only;
        law.residual = (truth - told).abs() + (node - told).abs();
        Ok(law)
    }

    /// Whether everything is explained, and everybody where they were.
    pub(super) fn holds(&self) -> bool {
        self.residual == 0 && self.misattributed == 0
    }

    /// Holds everything against everything.
    pub(super) fn judge(witnesses: &Witnesses<'_>) -> Self {
        let mut law = Self {
            node: witnesses.node_rise,
            log: witnesses.logged.and_then(|logged| logged.try_into().ok()),
            ..Self::default()
        };
        for (container, rise) in witnesses.rises {
            law.container(witnesses, container, *rise);
        }
        law.node(witnesses);
        law.victims(witnesses);
        law
    }

    /// Whether more kills are reported than the kernel logged, as far as its log is complete.
    pub(super) fn tells_too_much(&self) -> bool {
        let told = self.kills + self.counter_only;
        self.log.is_some_and(|logged| told > logged)
    }

    /// Whether fewer kills are reported than the kernel logged: lost ones were taken for double_counts.
    pub(super) fn tells_too_little(&self) -> bool {
        let told = self.kills + self.counter_only;
        self.log.is_some_and(|logged| told < logged)
    }

    fn container(&mut self, witnesses: &Witnesses<'_>, id: &str, rise: i64) {
        let events = || {
            witnesses
                .events
                .iter()
                .filter(|event| is_of(event, Some(id)))
        };
        let told = ContainerTotals {
            container: id.to_owned(),
            increase: rise,
            kills: sum(events(), "kill"),
            counter_only: sum(events(), "counter_only"),
            ..book(witnesses.totals.unwrap_or_default(), id)
        };
        let told_double_counts = told.double_counts;
        let residual = rise - told.kills - told.counter_only - told_double_counts;
        self.fails(residual != 0, || {
            format!("{id}: {residual} of {rise} not explained by {told:?}")
        });
        if let Some(totals) = witnesses.totals {
            // The daemon's own view must be that of its events and of the counters.
            let own = book(totals, id);
            let expected = ContainerTotals { residual, ..told };
            self.fails(own != expected, || {
                format!("{id}: the totals say {own:?}, the events {expected:?}")
            });
        }
        self.truth += rise;
        self.double_counts += told_double_counts;
        self.residual += residual.abs();
    }

    /// Every kill of the node, in a container or not, is in one event or a double count.
    fn node(&mut self, witnesses: &Witnesses<'_>) {
        let all = || witnesses.events.iter();
        self.kills = sum(all(), "kill");
        self.counter_only = sum(all(), "counter_only");
        self.already_exiting = number(all().filter(|event| is_kind(event, "already_exiting")));
        let Some(stopped) = witnesses.stopped else {
            self.failures.push("no summary at the daemon's end".into());
            return;
        };
        let residual = self.node - self.kills - self.counter_only - stopped.double_counts;
        self.residual += residual.abs();
        self.fails(residual != 0, || {
            format!("the node: {residual} not explained by the events and {stopped:?}")
        });
        let counts = (stopped.kills, stopped.counter_only);
        let events = (self.kills, self.counter_only);
        self.fails(counts != events, || {
            format!("kills and counter_only: {counts:?} at the end, {events:?} in the events")
        });
    }

    fn victims(&mut self, witnesses: &Witnesses<'_>) {
        let mut seen = BTreeSet::new();
        for event in witnesses.events {
            if is_kind(event, "counter_only") {
                let known = |id: &str| witnesses.rises.contains_key(id);
                let named = event.container_id().ok().flatten();
                let stray = !named.as_deref().is_some_and(known);
                self.misattributed += i64::from(stray);
                self.fails(stray, || format!("counted where nothing was: {event}"));
                continue;
            }
            let pid = event.victim_pid().ok();
            let home = pid.and_then(|pid| witnesses.spawned.get(&pid));
            let right = home.is_some_and(|home| is_in(event, home));
            self.misattributed += i64::from(!right);
            self.fails(!right, || format!("not where it was ({home:?}): {event}"));
            let twice = event.is_kill() && !seen.insert(pid);
            self.fails(twice, || format!("reported twice: {event}"));
        }
    }

    fn fails(&mut self, failed: bool, text: impl FnOnce() -> String) {
        if failed {
            self.failures.push(text());
        }
    }
}

/// The daemon's numbers of a container. Several cgroups may have had its id, one after another.
fn book(totals: &[ContainerTotals], id: &str) -> ContainerTotals {
    let mut sum = ContainerTotals {
        container: id.to_owned(),
        ..ContainerTotals::default()
    };
    for book in totals.iter().filter(|book| book.container == id) {
        sum.increase += book.increase;
        sum.kills += book.kills;
        sum.counter_only += book.counter_only;
        sum.double_counts += book.double_counts;
        sum.residual += book.residual;
    }
    sum
}

fn is_of(event: &Event, container: Option<&str>) -> bool {
    event
        .container_id()
        .is_ok_and(|found| found.as_deref() == container)
}

fn is_in(event: &Event, home: &Home) -> bool {
    let cgroup = event.victim_cgroup_id();
    is_of(event, home.container.as_deref()) && cgroup.is_ok_and(|found| found == home.cgroup_id)
}

fn is_kind(event: &Event, wanted: &str) -> bool {
    event.kind().is_ok_and(|kind| kind == wanted)
}

fn number<'a>(events: impl Iterator<Item = &'a Event>) -> i64 {
    i64::try_from(events.count()).unwrap_or(i64::MAX)
}

/// The kills that events of one kind stand for. One without a count makes the sum absurd.
fn sum<'a>(events: impl Iterator<Item = &'a Event>, kind: &str) -> i64 {
    events
        .filter(|event| is_kind(event, kind))
        .map(|event| event.count().ok().and_then(|count| count.try_into().ok()))
        .map(|count| count.unwrap_or(i64::from(i32::MIN)))
        .sum()
}

#[cfg(test)]
mod tests;
