//! Threads, groups and tasks that were dying anyway: where marks and counts differ.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, registering};
use crate::{
    cgroup::Cgroup,
    event::Event,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        findings::Findings,
        report::Outcome,
    },
    wait::wait_until,
};

/// Twelve threads at the limit. Since 6.16 the kernel marks each of them, and counts one kill.
pub(super) fn multi_threaded(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("threads")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("threads", &cgroup)]))?;
    case.container("threads", &cgroup)?;
    let mut hog = case.hog(&context.hog("threads").threads(12), &cgroup)?;
    hog.start_allocating(2 * TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&cgroup, 1);
    checks.law(context);
    // One event of any kind: the other threads fold into the kill of their process.
    if let Some(event) = checks.only_event() {
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq("count", event.count(), 1);
    }
    checks.finish(&format!("one kill from {} marks", findings.marks.len()))
}

/// Three processes die together. The kernel counts the first of them twice.
pub(super) fn group_kill(context: &Context) -> Result<Outcome> {
    let (findings, killed, cgroup) = kill_group(context, 1)?;
    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&cgroup, 4);
    checks.law(context);
    checks.accounted("group");
    checks.logged(&killed);
    if let Some(kills) = checks.kills(3) {
        check_group(&mut checks, &kills, killed);
        checks.eq("number of events", Ok(findings.events().len()), 3);
    }
    checks.finish("three kills, one double count")
}

/// The same with several threads in the first process, whose leader dies while the kernel walks
/// the group: it then finds another thread of that process, marks it, and counts once more.
pub(super) fn group_kill_threads(context: &Context) -> Result<Outcome> {
    let (findings, killed, cgroup) = kill_group(context, 4)?;
    let rise = findings.rise(&cgroup, "oom_kill")?;
    let mut checks = Checks::new(&findings);
    checks.that("oom_kill rose by 4 or more", rise >= 4);
    checks.law(context);
    checks.accounted("group");
    if let Some(kills) = checks.kills(3) {
        check_group(&mut checks, &kills, killed);
        checks.eq("number of events", Ok(findings.events().len()), 3);
    }
    checks.finish(&format!("three kills, oom_kill +{rise}"))
}

/// Makes a group kill of three processes, the first of which has `threads` allocating threads
/// (beside its leader, if there are several).
fn kill_group(context: &Context, threads: u32) -> Result<(Findings, Vec<u32>, Cgroup)> {
    let cgroup = context.cgroup("group")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    cgroup.write("memory.oom.group", "1")?;
    let mut case = Case::start(context, &registering(&[("group", &cgroup)]))?;
    case.container("group", &cgroup)?;
    let mut hog = case.hog(&context.hog("group-hog").threads(threads), &cgroup)?;
    let mut killed = hog.fork(2, 0)?;
    for pid in &killed {
        case.remember(*pid, &cgroup)?;
    }
    killed.push(hog.pid());
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(killed.len());
    let findings = case.finish()?;
    for event in findings.events() {
        context
            .report
            .note(&format!("event group of {threads} threads: {event}"));
    }
    Ok((findings, killed, cgroup))
}

/// Three kills of one group. No other kind of event, so no double count was taken for a loss.
fn check_group(checks: &mut Checks<'_>, kills: &[&Event], expected: Vec<u32>) {
    let killed: Result<BTreeSet<u32>> = kills.iter().map(|event| event.victim_pid()).collect();
    checks.eq(
        "the processes killed",
        killed,
        expected.into_iter().collect(),
    );
    let invocations: Result<BTreeSet<u64>> = kills
        .iter()
        .map(|event| event.number("group.invocation"))
        .collect();
    checks.eq("number of invocations", invocations.map(|ids| ids.len()), 1);
    for (index, event) in (0_u64..).zip(kills) {
        checks.eq("group.index", event.number("group.index"), index);
        let size = event.number_or_null("group.size");
        checks.that(
            "group.size is 3 or unknown",
            size.is_ok_and(|size| size.is_none_or(|size| size == 3)),
        );
    }
}

/// Somebody kills a process while it is at its limit: that is no OOM kill.
///
/// The process is immune to the OOM killer, so its threads stay at the limit for as long as it
/// takes to send the signal. Since 6.16 the kernel then marks them on their way out.
pub(super) fn plain_sigkill_at_limit(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("immune")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("immune", &cgroup)]))?;
    case.container("immune", &cgroup)?;
    let spec = context.hog("immune").threads(8).oom_score_adj(-1000);
    let mut hog = case.hog(&spec, &cgroup)?;
    hog.start_allocating(2 * TOO_MUCH_BYTES)?;
    wait_until(KILL_LIMIT, "reaching the limit", || {
        let oom = cgroup.events()?.value("oom");
        Ok((oom >= Some(3)).then_some(()))
    })?;
    hog.kill(KILL_LIMIT)?;
    let counted_for_first = cgroup.events()?.value("oom_kill");

    // Another process then dies of the limit for certain. Its event comes after all that the
    // first could have caused, so there is something to wait for.
    let mut second = case.hog(&context.hog("second"), &cgroup)?;
    second.start_allocating(TOO_MUCH_BYTES)?;
    second.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.eq(
        "oom_kill after a plain SIGKILL",
        Ok(counted_for_first),
        Some(0),
    );
    checks.oom_kill_rose(&cgroup, 1);
    checks.law(context);
    if let Some(kills) = checks.kills(1) {
        for event in kills {
            checks.eq("victim.pid", event.victim_pid(), second.pid());
        }
        let first = findings.events().iter().filter(|event| !event.is_kill());
        let exiting: Vec<_> = first.collect();
        checks.that("at most one event for the process", exiting.len() <= 1);
        for event in exiting {
            checks.eq("kind", event.kind(), "already_exiting".to_owned());
            checks.eq("victim.pid", event.victim_pid(), hog.pid());
        }
    }
    let marks = findings.marks.len().saturating_sub(1);
    checks.finish(&format!(
        "{marks} marks of a task killed by hand, none called a kill"
    ))
}
