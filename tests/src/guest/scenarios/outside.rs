//! Kills that come from outside: the victim was not the one who allocated.

use std::fs;

use anyhow::{Context as _, Result};

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, registering};
use crate::{
    cgroup::Cgroup,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        findings::Findings,
        report::Outcome,
    },
    hog::{Held, Hog, MIB, reap},
    wait::wait_until,
};

/// Somebody lowers `memory.max` below what is in use: the writer is the trigger.
pub(super) fn limit_lowered(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("lowered")?;
    cgroup.limit_memory(TOO_MUCH_BYTES)?;
    let mut case = Case::start(context, &registering(&[("lowered", &cgroup)]))?;
    case.container("lowered", &cgroup)?;
    let mut hog = case.hog(&context.hog("settled"), &cgroup)?;
    hog.allocate(LIMIT_BYTES)?;
    cgroup.limit_memory(4 * MIB)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&cgroup, 1);
    checks.logged(&[hog.pid()]);
    if let Some(event) = checks.only_event() {
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq("trigger.pid", event.trigger_pid(), std::process::id());
        checks.eq("scope", event.text("scope"), "container".to_owned());
        checks.eq(
            "limit.cgroup_id",
            event.limit_cgroup_id(),
            Some(cgroup.id()?),
        );
    }
    checks.finish("the writer of the limit is the trigger")
}

/// Alt-SysRq-F: a worker of the kernel kills, and nobody's limit was hit.
pub(super) fn sysrq(context: &Context) -> Result<Outcome> {
    let (findings, killed, cgroup) = by_sysrq(context, 1)?;
    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&cgroup, 1);
    checks.logged(&killed);
    if let Some(event) = checks.only_event() {
        checks.eq(
            "victim.pid",
            event.victim_pid().map(|pid| vec![pid]),
            killed,
        );
        checks.eq("limit.cgroup_id", event.limit_cgroup_id(), None);
        let trigger = event.text("trigger.comm");
        checks.that(
            "the trigger is a worker of the kernel",
            trigger.is_ok_and(|comm| comm.starts_with("kworker")),
        );
    }
    checks.finish("killed by a kernel worker")
}

/// The same with a group of three: counted three or four times, as it happens.
pub(super) fn sysrq_group(context: &Context) -> Result<Outcome> {
    let (findings, killed, cgroup) = by_sysrq(context, 3)?;
    let rise = findings.rise(&cgroup, "oom_kill")?;
    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.that("oom_kill rose by 3 or 4", (3..=4).contains(&rise));
    checks.logged(&killed);
    checks.kills(3);
    checks.finish(&format!("three kills by a kernel worker, oom_kill +{rise}"))
}

fn by_sysrq(context: &Context, size: u32) -> Result<(Findings, Vec<u32>, Cgroup)> {
    let cgroup = context.cgroup("sysrq")?;
    if size > 1 {
        cgroup.write("memory.oom.group", "1")?;
    }
    let mut case = Case::start(context, &registering(&[("sysrq", &cgroup)]))?;
    case.container("sysrq", &cgroup)?;
    // Before all others: the whole machine is there to choose from.
    let mut hog = case.hog(&context.hog("sysrq-hog").oom_score_adj(1000), &cgroup)?;
    let mut killed = hog.brood(size - 1, 0)?;
    for pid in &killed {
        case.remember(*pid, &cgroup)?;
    }
    hog.allocate(LIMIT_BYTES)?;
    fs::write("/proc/sysrq-trigger", "f").context("writing f to /proc/sysrq-trigger")?;
    hog.wait_killed(KILL_LIMIT)?;
    reap(&killed, KILL_LIMIT)?;
    killed.push(hog.pid());
    case.wait_for_kills(killed.len());
    Ok((case.finish()?, killed, cgroup))
}

/// Two processes share their memory: one is marked and counted, the other dies with it unseen.
pub(super) fn shared_memory(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("shared")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("shared", &cgroup)]))?;
    case.container("shared", &cgroup)?;
    let mut hog = case.hog(&context.hog("sharer"), &cgroup)?;
    let twin = hog.share_memory()?;
    case.remember(twin, &cgroup)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    reap(&[twin], KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&cgroup, 1);
    checks.kills(1);
    checks.finish("two processes dead, one kill counted and reported")
}

/// The killer chooses a process that somebody has killed already, but that is not dead yet (S13):
/// it is marked and not counted. A tracer holds it at its exit for as long as that takes.
pub(super) fn victim_already_exiting(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("exiting")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("exiting", &cgroup)]))?;
    case.container("exiting", &cgroup)?;
    let mut dying = case.hog(&context.hog("dying"), &cgroup)?;
    dying.allocate(12 * MIB)?;
    let held = Held::kill(&dying)?;
    let mut eater = case.hog(&context.hog("eater").oom_score_adj(-1000), &cgroup)?;
    eater.start_allocating(8 * MIB)?;
    let marked = wait_until(KILL_LIMIT, "a mark of the dying process", || {
        Ok((case.marks()? > 0).then_some(()))
    });
    held.release(KILL_LIMIT)?;
    marked?;
    eater.finish()?;
    let second = second_kill(context, &mut case, &cgroup)?;
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&cgroup, 1);
    checks.logged(&[second.pid()]);
    if let Some(kills) = checks.kills(1) {
        for event in kills {
            checks.eq("victim.pid", event.victim_pid(), second.pid());
        }
        let others = findings.events().iter().filter(|event| !event.is_kill());
        let pids: Result<Vec<u32>> = others.map(|event| event.victim_pid()).collect();
        checks.eq("marked but not killed", pids, vec![dying.pid()]);
    }
    checks.finish("marked and not counted: already_exiting")
}

/// A kill like any other: what it is told after proves that nothing else came before.
fn second_kill(context: &Context, case: &mut Case, cgroup: &Cgroup) -> Result<Hog> {
    let mut second = case.hog(&context.hog("second"), cgroup)?;
    second.start_allocating(TOO_MUCH_BYTES)?;
    second.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    Ok(second)
}
