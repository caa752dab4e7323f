//! Counters that are old, start again, or count otherwise.

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount_remount};

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, hex_id, registering};
use crate::{
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
    hog::Hog,
};

const OLD_KILLS: u64 = 3;

/// Kills before the daemon's start are in the counters, and are no news.
pub(super) fn stale_counters(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("stale")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    for _ in 0..OLD_KILLS {
        let mut hog = Hog::spawn(&context.hog("old"))?;
        cgroup.add(hog.pid())?;
        die(&mut hog)?;
    }
    let mut case = Case::start(context, &registering(&[("stale", &cgroup)]))?;
    case.container("stale", &cgroup)?;
    let mut hog = case.hog(&context.hog("new"), &cgroup)?;
    die(&mut hog)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&cgroup, 1);
    if let Some(event) = checks.only_event() {
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq("counter.oom_kill", event.counter("oom_kill"), OLD_KILLS + 1);
        checks.eq("counter", event.has_evidence("counter"), true);
    }
    checks.finish("three old kills and a new one: one event")
}

/// A container goes and comes back, with the same id and path, on a new cgroup.
pub(super) fn same_id_again(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &["--discover", "cgroup"])?;
    let id = hex_id(4000);
    let mut truth = Vec::new();
    for _ in 0..2 {
        let container = slice.child(format!("docker-{id}.scope"))?;
        container.limit_memory(LIMIT_BYTES)?;
        case.container(&id, &container)?;
        let mut hog = case.hog(&context.hog("again"), &container)?;
        die(&mut hog)?;
        case.close(&container)?;
        truth.push((hog.pid(), container.id()?));
        container.remove_emptied()?;
    }
    case.wait_for_kills(truth.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    if let Some(kills) = checks.kills(truth.len()) {
        for ((pid, cgroup), event) in truth.into_iter().zip(kills) {
            checks.eq("victim.pid", event.victim_pid(), pid);
            checks.eq("counter.cgroup_id", event.counter("cgroup_id"), cgroup);
            checks.eq("counter.oom_kill", event.counter("oom_kill"), 1);
            checks.eq("container.id", event.container_id(), Some(id.clone()));
        }
    }
    checks.finish("one id on two cgroups, a kill in each")
}

/// The memory controller is switched off and on: the counters begin at 0 again, and the second
/// kill makes them what they were after the first.
pub(super) fn controller_toggled(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    let id = hex_id(4001);
    slice.enable_memory()?;
    let container = slice.child(format!("docker-{id}.scope"))?;
    let mut case = Case::start(context, &["--discover", "cgroup"])?;
    let mut pids = Vec::new();
    for round in 0..2 {
        if round > 0 {
            case.close(&container)?;
            slice.write("cgroup.subtree_control", "-memory")?;
            slice.enable_memory()?;
        }
        container.limit_memory(LIMIT_BYTES)?;
        case.container(&id, &container)?;
        let mut hog = case.hog(&context.hog("toggled"), &container)?;
        die(&mut hog)?;
        pids.push(hog.pid());
    }
    case.wait_for_kills(pids.len());
    let after = container.events()?.value("oom_kill");
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.eq("oom_kill at the end", Ok(after), Some(1));
    checks.law(context);
    checks.logged(&pids);
    if let Some(kills) = checks.kills(pids.len()) {
        for (pid, event) in pids.into_iter().zip(kills) {
            checks.eq("victim.pid", event.victim_pid(), pid);
            checks.eq("counter.oom_kill", event.counter("oom_kill"), 1);
        }
    }
    checks.finish("counters from 0 again, two kills")
}

/// With `memory_localevents`, only the victim's own cgroup counts.
pub(super) fn local_events(context: &Context) -> Result<Outcome> {
    let mount = LocalEvents::mount(context)?;
    let pod = context.cgroup("pod")?;
    pod.enable_memory()?;
    let app = pod.child("app")?;
    app.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("app", &app)]))?;
    case.watch(&pod)?;
    case.container("app", &app)?;
    let mut pids = Vec::new();
    for _ in 0..2 {
        let mut hog = case.hog(&context.hog("local"), &app)?;
        die(&mut hog)?;
        pids.push(hog.pid());
    }
    case.wait_for_kills(pids.len());
    let findings = case.finish()?;
    drop(mount);

    let mut checks = Checks::new(&findings);
    checks.law_without_totals(context);
    checks.oom_kill_rose(&app, 2);
    checks.oom_kill_rose(&pod, 0);
    checks.logged(&pids);
    checks.kills(pids.len());
    checks.finish("two kills, and the pod's counter stands still")
}

fn die(hog: &mut Hog) -> Result<()> {
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)
}

/// The cgroup mount with another option, until dropped.
struct LocalEvents<'a>(&'a Context);

impl<'a> LocalEvents<'a> {
    fn mount(context: &'a Context) -> Result<Self> {
        mount_remount(&context.cgroups, MountFlags::empty(), c"memory_localevents")
            .context("mounting cgroup2 with memory_localevents")?;
        Ok(Self(context))
    }
}

impl Drop for LocalEvents<'_> {
    fn drop(&mut self) {
        let Self(context) = self;
        if let Err(error) = mount_remount(&context.cgroups, MountFlags::empty(), c"") {
            context
                .report
                .note(&format!("memory_localevents stays mounted: {error}"));
        }
    }
}
