//! `memory.oom.group`: processes that die together, and are counted once more than they are.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

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
    hog::{Hog, MIB, reap},
};

/// Members of the groups.
const SIZES: [u32; 3] = [1, 3, 20];
/// Each takes up to 125 KiB, most of it the kernel's, and only some machines have 2 GiB.
const LARGE: u32 = 2000;
const LARGEST: u32 = 10_000;
const LARGEST_NEEDS_KIB: u64 = 1800 * 1024;
/// Room for the records of all of them: a busy host gives the reader no time in between.
const LARGE_RING_BYTES: &str = "16777216";
/// For thousands to die, on an emulated machine.
const DEATHS_LIMIT: Duration = Duration::from_secs(400);
/// Many times what a ring of one page has room for.
const WITH_HOLES: u32 = 200;
/// Kills that are more than a ring of one page has room for.
const FILLING: u32 = 12;
/// Groups of one, three and twenty, on the container itself.
pub(super) fn group_on_container(context: &Context) -> Result<Outcome> {
    groups(context, |name| {
        let container = context.cgroup(name)?;
        container.limit_memory(LIMIT_BYTES)?;
        container.write("memory.oom.group", "1")?;
        Ok((None, container))
    })
}

/// The same with limit and group on the container's parent.
pub(super) fn group_on_parent(context: &Context) -> Result<Outcome> {
    groups(context, |name| {
        let pod = pod_as_group(context, name)?;
        let container = pod.child("app")?;
        Ok((Some(pod), container))
    })
}

/// Makes one group kill of each size, all of them in one run of the daemon.
fn groups(
    context: &Context,
    make: impl Fn(&str) -> Result<(Option<Cgroup>, Cgroup)>,
) -> Result<Outcome> {
    let mut made = Vec::new();
    for size in SIZES {
        made.push((size, format!("group-{size}")));
    }
    let mut cgroups = Vec::new();
    for (size, name) in &made {
        let (pod, container) = make(name)?;
        cgroups.push((*size, name.as_str(), container, pod));
    }
    let named: Vec<(&str, &Cgroup)> = cgroups.iter().map(|(_, name, c, _)| (*name, c)).collect();
    let mut case = Case::start(context, &registering(&named))?;
    let mut killed = Vec::new();
    for (size, name, container, _) in &cgroups {
        case.container(name, container)?;
        killed.extend(kill_group(context, &mut case, container, *size)?);
    }
    case.wait_for_kills(killed.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.logged(&killed);
    for (size, _, container, _) in &cgroups {
        checks.oom_kill_rose(container, i64::from(size + 1));
    }
    checks.kills(killed.len());
    check_double_counts(&mut checks, &findings, SIZES.len());
    checks.finish("groups of 1, 3 and 20, each counted once more")
}

/// Limit and group are the pod's, the processes are in two of its containers (S4c): the first
/// victim's container counts once more, the other one does not.
pub(super) fn group_over_containers(context: &Context) -> Result<Outcome> {
    let pod = pod_as_group(context, "pod")?;
    let (app, side) = (pod.child("app")?, pod.child("side")?);
    let mut case = Case::start(context, &registering(&[("app", &app), ("side", &side)]))?;
    case.watch(&pod)?;
    case.container("app", &app)?;
    case.container("side", &side)?;
    let mut idle = case.hog(&context.hog("side-hog"), &side)?;
    let killed = kill_group(context, &mut case, &app, 2)?;
    idle.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(killed.len() + 1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&app, 3);
    checks.oom_kill_rose(&side, 1);
    checks.oom_kill_rose(&pod, 4);
    checks.kills(3);
    check_double_counts(&mut checks, &findings, 1);
    checks.finish("one group in two containers, one double count")
}

/// The group is the pod's, the limit is the container's: no group kill (S4b).
pub(super) fn group_not_in_reach(context: &Context) -> Result<Outcome> {
    let pod = pod_as_group(context, "pod")?;
    pod.limit_memory(8 * LIMIT_BYTES)?;
    let app = pod.child("app")?;
    app.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("app", &app)]))?;
    case.container("app", &app)?;
    let mut hog = case.hog(&context.hog("app-hog"), &app)?;
    let mut other = case.hog(&context.hog("other"), &app)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    other.allocate(1)?;
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&app, 1);
    if let Some(event) = checks.only_event() {
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
    }
    checks.finish("the limit is below the group: one kill")
}

/// Thousands die together.
pub(super) fn group_large(context: &Context) -> Result<Outcome> {
    let has_room = memory_kib()? >= LARGEST_NEEDS_KIB;
    let size = if has_room { LARGEST } else { LARGE };
    let cgroup = context.cgroup("large")?;
    cgroup.write("memory.oom.group", "1")?;
    let mut arguments = registering(&[("large", &cgroup)]);
    arguments.extend(["--ring-size".into(), LARGE_RING_BYTES.into()]);
    let mut case = Case::start(context, &arguments)?;
    case.container("large", &cgroup)?;
    let mut hog = case.hog(&context.hog("large-hog"), &cgroup)?;
    let brood = raise(&mut case, &mut hog, &cgroup, size - 1)?;
    // What the processes need is not known beforehand.
    let used = cgroup.number("memory.current")?;
    cgroup.limit_memory(used + LIMIT_BYTES)?;
    context.report.note(&format!(
        "{size} processes use {} MiB",
        used.div_euclid(MIB)
    ));
    let killed = kill_with_brood(&mut hog, brood)?;
    case.wait_for_kills(killed.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.logged(&killed);
    checks.oom_kill_rose(&cgroup, i64::from(size + 1));
    checks.kills(killed.len());
    check_double_counts(&mut checks, &findings, 1);
    checks.finish(&format!("{size} processes in one group kill"))
}

/// The machine's, all of it.
fn memory_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = total.and_then(|total| total.split_whitespace().next());
    let number = number.context("no MemTotal in /proc/meminfo")?;
    number.parse().context("MemTotal in /proc/meminfo")
}

/// A group kill is quicker than the reader of a small ring: records in its midst find no room. A kill
/// that was lost there is no double count.
pub(super) fn group_with_holes(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("holes")?;
    cgroup.write("memory.oom.group", "1")?;
    cgroup.limit_memory(4 * LIMIT_BYTES)?;
    let mut arguments = registering(&[("holes", &cgroup)]);
    arguments.extend(["--ring-size".into(), "4096".into()]);
    let mut case = Case::start(context, &arguments)?;
    case.container("holes", &cgroup)?;
    let killed = kill_group(context, &mut case, &cgroup, WITH_HOLES)?;
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.logged(&killed);
    checks.oom_kill_rose(&cgroup, i64::from(WITH_HOLES) + 1);
    if let Some(law) = checks.law_with_losses(context) {
        checks.that("some were lost", law.counter_only > 0);
        let told = law.kills + law.counter_only;
        checks.eq("told of", Ok(told), i64::from(WITH_HOLES));
        check_double_counts(&mut checks, &findings, 1);
    }
    checks.finish("a group with holes: as many told as died")
}

/// No victim's record of a whole group kill finds room: its members are counted, and by the record of
/// its end, which has room of its own, the kernel's second count of the first is not.
pub(super) fn group_lost(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("lost")?;
    let mut arguments = registering(&[("lost", &cgroup)]);
    arguments.extend(["--ring-size".into(), "4096".into()]);
    let mut case = Case::start(context, &arguments)?;
    case.container("lost", &cgroup)?;
    case.signal_daemon(Signal::STOP)?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    let mut killed = Vec::new();
    // These fill the ring.
    for _ in 0..FILLING {
        killed.extend(kill_group(context, &mut case, &cgroup, 1)?);
    }
    cgroup.write("memory.oom.group", "1")?;
    killed.extend(kill_group(context, &mut case, &cgroup, 20)?);
    case.signal_daemon(Signal::CONT)?;
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.logged(&killed);
    checks.oom_kill_rose(&cgroup, i64::try_from(killed.len())? + 1);
    if let Some(law) = checks.law_with_losses(context) {
        let told = usize::try_from(law.kills + law.counter_only)?;
        checks.that("some were seen", law.kills > 0);
        checks.that("the group was not", law.kills <= i64::from(FILLING));
        checks.that("as many are told as died", told == killed.len());
    }
    checks.finish("a group that nobody saw, counted")
}

fn pod_as_group(context: &Context, name: &str) -> Result<Cgroup> {
    let pod = context.cgroup(name)?;
    pod.limit_memory(LIMIT_BYTES)?;
    pod.write("memory.oom.group", "1")?;
    pod.enable_memory()?;
    Ok(pod)
}

/// Fills a container with `size` processes, one of which then reaches the limit; returns all.
fn kill_group(
    context: &Context,
    case: &mut Case,
    container: &Cgroup,
    size: u32,
) -> Result<Vec<u32>> {
    let mut hog = case.hog(&context.hog("group-hog"), container)?;
    let brood = raise(case, &mut hog, container, size - 1)?;
    kill_with_brood(&mut hog, brood)
}

fn raise(case: &mut Case, hog: &mut Hog, cgroup: &Cgroup, number: u32) -> Result<Vec<u32>> {
    let brood = hog.brood(number, 0)?;
    for pid in &brood {
        case.remember(*pid, cgroup)?;
    }
    Ok(brood)
}

/// The hog reaches the limit and dies with all of its brood.
fn kill_with_brood(hog: &mut Hog, mut brood: Vec<u32>) -> Result<Vec<u32>> {
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(DEATHS_LIMIT)?;
    reap(&brood, DEATHS_LIMIT)?;
    brood.push(hog.pid());
    Ok(brood)
}

/// Each group kill was counted once more than it had members, and no group is taken for another.
fn check_double_counts(checks: &mut Checks<'_>, findings: &Findings, groups: usize) {
    if findings.dry {
        return;
    }
    let double_counts = findings.output.stopped.map(|stopped| stopped.double_counts);
    checks.eq(
        "double_counts",
        Ok(double_counts),
        i64::try_from(groups).ok(),
    );
    let mut invocations = BTreeMap::<u64, u32>::new();
    for event in findings.kills() {
        match event.number("group.invocation") {
            Ok(invocation) => *invocations.entry(invocation).or_default() += 1,
            Err(error) => checks.that(&format!("{error:#}"), false),
        }
    }
    checks.eq("number of group kills", Ok(invocations.len()), groups);
}
