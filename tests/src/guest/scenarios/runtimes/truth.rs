//! What the kernel logged of each container, against what oomwatch told of it.
//!
//! The kernel names the victim's cgroup, and the runtime's layout makes a container of that: so
//! the truth is known even of a container that was gone before anyone could look at it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::Runtime;
use crate::{
    event::Event,
    guest::{
        case::Case, checks::Checks, context::Context, findings::Findings, law::Law, report::Outcome,
    },
    kernel_log::LoggedKill,
};

/// A container that lost processes.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) name: String,
    pub(super) id: String,
    /// How many processes.
    pub(super) kills: usize,
    /// Whether they were the container's first.
    pub(super) init: bool,
}

/// Waits for the kills of all containers, ends the daemon, and compares.
pub(super) fn compare(
    context: &Context,
    runtime: &dyn Runtime,
    mut case: Case,
    containers: &[Lost],
) -> Result<Outcome> {
    let expected = containers.iter().map(|lost| lost.kills).sum();
    // Too few of either will show.
    let _ = case.wait_for_logged(expected);
    case.wait_for_kills(expected);
    let findings = case.finish()?;
    let mut checks = Checks::new(&findings);
    checks.eq(
        "processes the kernel logged as killed",
        Ok(findings.logged.len()),
        expected,
    );
    let homes = homes(runtime, &findings, containers);
    law(&mut checks, context, &findings, &homes)?;
    let mut score = Score::default();
    for lost in containers {
        container(&mut checks, &mut score, runtime, &findings, lost);
    }
    if let ([_], [event]) = (containers, findings.events()) {
        context
            .report
            .note(&format!("{}: {event}", context.scenario));
    }
    checks.finish(&format!(
        "{expected} killed: {} in the right container, {} of them late, {} with all names",
        score.right, score.late, score.named
    ))
}

/// How the kills were told.
#[derive(Debug, Default)]
struct Score {
    right: usize,
    late: usize,
    named: usize,
}

/// The container of each process that the kernel logged. Where it left out the cgroup, which it
/// does when there are many, oomwatch's word is taken.
fn homes(runtime: &dyn Runtime, findings: &Findings, containers: &[Lost]) -> BTreeMap<u32, String> {
    let told = |kill: &LoggedKill| {
        let is_this = |event: &&Event| event.victim_pid().is_ok_and(|pid| pid == kill.pid);
        let event = findings.events().iter().find(is_this)?;
        event.container_id().ok().flatten()
    };
    let home = |kill: &LoggedKill| match &kill.cgroup {
        Some(cgroup) => containers
            .iter()
            .find(|lost| is_in(cgroup, &runtime.cgroup(&lost.id)))
            .map(|lost| lost.id.clone()),
        None => told(kill),
    };
    findings
        .logged
        .iter()
        .filter_map(|kill| Some((kill.pid, home(kill)?)))
        .collect()
}

fn is_in(path: &str, directory: &str) -> bool {
    path.split('/').any(|component| component == directory)
}

/// Every kill of the node is one of these, in one event, of its own container.
fn law(
    checks: &mut Checks<'_>,
    context: &Context,
    findings: &Findings,
    homes: &BTreeMap<u32, String>,
) -> Result<()> {
    let truth = i64::try_from(homes.len())?;
    let mut law = Law::of_history(truth, findings.node_rise, homes, findings.events())?;
    let logged = findings.logged_processes();
    law.log = logged.and_then(|logged| logged.len().try_into().ok());
    context.report.law(context.scenario, &law);
    checks.that(&format!("the law holds: {law:?}"), law.holds());
    for book in &findings.output.totals {
        let what = format!("residual of {}", book.container);
        checks.eq(&what, Ok(book.residual), 0);
    }
    Ok(())
}

fn container(
    checks: &mut Checks<'_>,
    score: &mut Score,
    runtime: &dyn Runtime,
    findings: &Findings,
    lost: &Lost,
) {
    let is_this = |event: &&Event| {
        let id = event.container_id();
        id.is_ok_and(|id| id.as_ref() == Some(&lost.id))
    };
    let events: Vec<&Event> = findings.events().iter().filter(is_this).collect();
    let what = format!("events of {} ({})", lost.name, lost.id);
    checks.eq(&what, Ok(events.len()), lost.kills);
    for event in events {
        checks.eq("kind", event.kind(), "kill".to_owned());
        let is_init = event.field("victim.is_init").cloned();
        let expected = Value::Bool(lost.init && runtime.has_init());
        checks.eq(&format!("is_init in {}", lost.name), is_init, expected);
        score.right += 1;
        score.late += usize::from(event.attribution().is_ok_and(|how| how == "late"));
        score.named += usize::from(named(checks, runtime, event, lost));
    }
}

/// Whether an event tells everything that the runtime knows of its container.
fn named(checks: &mut Checks<'_>, runtime: &dyn Runtime, event: &Event, lost: &Lost) -> bool {
    let mut all = true;
    for (field, expected) in runtime.names(&lost.name) {
        let found = event.field(field).cloned();
        all &= found.as_ref().is_ok_and(|found| *found == expected);
        let what = format!("named: {field} of {}", lost.name);
        checks.eq(&what, found, expected);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_cgroup_is_a_whole_component() {
        let path = "/machine.slice/libpod-a.scope/container";
        assert!(is_in(path, "libpod-a.scope"));
        assert!(!is_in("/default/web-10", "web-1"));
    }
}
