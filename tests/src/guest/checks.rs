//! Comparing what was found with what should have been, all of it before failing.

use std::fmt::Debug;

use anyhow::{Result, bail};

use super::{context::Context, findings::Findings, law::Law, report::Outcome};
use crate::{cgroup::Cgroup, event::Event};

/// Collects every difference: a machine takes long to boot, so one run shall show all.
#[derive(Debug)]
pub(super) struct Checks<'a> {
    findings: &'a Findings,
    failures: Vec<String>,
}

impl<'a> Checks<'a> {
    /// Begins with what holds for every case: each line is JSON, and an event counts kills unless
    /// it says that there was none.
    pub(super) fn new(findings: &'a Findings) -> Self {
        let mut checks = Self {
            findings,
            failures: Vec::new(),
        };
        checks.that("every line is JSON", findings.output.malformed.is_empty());
        for event in findings.events() {
            let nothing_lost = event.kind().is_ok_and(|kind| kind == "already_exiting");
            checks.eq(
                "whether event.count is zero",
                event.count().map(|count| count == 0),
                nothing_lost,
            );
        }
        checks
    }

    /// A value must be known and be this one.
    pub(super) fn eq<T: PartialEq + Debug>(&mut self, what: &str, found: Result<T>, expected: T) {
        match found {
            Ok(found) if found == expected => {}
            Ok(found) => self
                .failures
                .push(format!("{what} is {found:?}, expected {expected:?}")),
            Err(error) => self.failures.push(format!("{what}: {error:#}")),
        }
    }

    /// Something must be so.
    pub(super) fn that(&mut self, what: &str, holds: bool) {
        if !holds {
            self.failures.push(format!("not so: {what}"));
        }
    }

    /// The cgroup's `oom_kill`, with all below it, rose by this.
    pub(super) fn oom_kill_rose(&mut self, cgroup: &Cgroup, by: i64) {
        let what = format!("rise of oom_kill in {}", cgroup.path().display());
        self.eq(&what, self.findings.rise(cgroup, "oom_kill"), by);
    }

    /// The kernel logged that it killed these processes, and no others.
    pub(super) fn logged(&mut self, pids: &[u32]) {
        if let Some(logged) = self.findings.logged_processes() {
            let expected = pids.iter().copied().collect();
            self.eq(
                "processes the kernel logged as killed",
                Ok(logged),
                expected,
            );
        }
    }

    /// There are this many events of kind `kill`; `None` if not, or if there is no oomwatch.
    pub(super) fn kills(&mut self, number: usize) -> Option<Vec<&'a Event>> {
        if self.findings.dry {
            return None;
        }
        let kills = self.findings.kills();
        self.eq("number of kill events", Ok(kills.len()), number);
        (kills.len() == number).then_some(kills)
    }

    /// There is exactly one event, and it is a kill.
    pub(super) fn only_event(&mut self) -> Option<&'a Event> {
        let kill = self.kills(1)?.pop();
        self.eq("number of events", Ok(self.findings.events().len()), 1);
        kill
    }

    /// The whole law, for every container of the case and for the node; its numbers go into the
    /// report. Nothing is lost here, so no kill may be known by a counter alone.
    pub(super) fn law(&mut self, context: &Context) {
        if let Some(law) = self.judge(context, true) {
            self.eq("counter_only", Ok(law.counter_only), 0);
            self.that(
                "no more kills than the kernel logged",
                !law.tells_too_much(),
            );
        }
    }

    /// The same where records are lost.
    pub(super) fn law_with_losses(&mut self, context: &Context) -> Option<Law> {
        let law = self.judge(context, true)?;
        self.that(
            "no fewer kills than the kernel logged",
            !law.tells_too_little(),
        );
        Some(law)
    }

    /// The same where oomwatch keeps no totals (see its `account`).
    pub(super) fn law_without_totals(&mut self, context: &Context) {
        self.judge(context, false);
    }

    fn judge(&mut self, context: &Context, totals: bool) -> Option<Law> {
        if self.findings.dry {
            return None;
        }
        match self.findings.law(totals) {
            Ok(law) => {
                context.report.law(context.scenario, &law);
                self.failures.extend(law.failures.iter().cloned());
                Some(law)
            }
            Err(error) => {
                self.failures.push(format!("the law: {error:#}"));
                None
            }
        }
    }

    /// The promise for the tiers that read counters (no marks are at hand for the rest of the law): what the kernel counted for a container is what was reported for it.
    ///
    /// `rise == kills + counter_only + double_counts`, all in the subtree of the container's cgroup.
    pub(super) fn conserved(&mut self, container: &str, cgroup: &Cgroup) {
        if self.findings.dry {
            return;
        }
        let what = format!("reported for {container}, against the rise of oom_kill");
        let rise = self.findings.rise(cgroup, "oom_kill");
        match rise {
            Ok(rise) => self.eq(&what, reported(self.findings.events(), container), rise),
            Err(error) => self.failures.push(format!("{what}: {error:#}")),
        }
    }

    /// The promise as of each event: its `oom_kill` is made of the kills so far and the double_counts
    /// it admits. For a container whose cgroup is new, so that its counters began at zero.
    ///
    /// A double count after the last event is in no event.
    pub(super) fn accounted(&mut self, container: &str) {
        let mut kills = 0;
        for event in self.findings.events() {
            if !event
                .container_id()
                .is_ok_and(|id| id.as_deref() == Some(container))
            {
                continue;
            }
            kills += event.count().unwrap_or_default();
            let double_counts = event.counter("recounts");
            self.eq(
                "counter.oom_kill, against kills so far and counter.recounts",
                event.counter("oom_kill"),
                kills + double_counts.unwrap_or_default(),
            );
        }
    }

    /// Passes with `seen` as the short account, or fails with everything every witness said.
    pub(super) fn finish(self, seen: &str) -> Result<Outcome> {
        if self.failures.is_empty() {
            let marks = self.findings.marks.len();
            return Ok(Outcome::Passed(match self.findings.dry {
                true => format!("the kernel's side alone: {marks} marks"),
                false => format!("{seen} ({marks} marks)"),
            }));
        }
        bail!("{}\n{}", self.failures.join("\n"), self.findings)
    }
}

fn reported(events: &[Event], container: &str) -> Result<i64> {
    let mut total = 0;
    // The double_counts an event carries are the container's so far, so the last word counts.
    let mut double_counts = 0;
    for event in events {
        if event.container_id()?.as_deref() != Some(container) {
            continue;
        }
        if event.kind()? != "already_exiting" {
            total += event.count()?;
        }
        double_counts = double_counts.max(event.number_or_null("counter.recounts")?.unwrap_or(0));
    }
    Ok(i64::try_from(total + double_counts)?)
}
