//! Containers that nobody registered by hand.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{LIMIT_BYTES, SMALL_LIMIT_BYTES, SMALL_TOO_MUCH_BYTES, TOO_MUCH_BYTES, hex_id};
use crate::{
    cgroup::Cgroup,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
    hog::Hog,
};

const ROUNDS: u64 = 200;

/// The usual order of events in production: the container is gone before anyone could look.
pub(super) fn removed_at_once(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &["--discover", "cgroup"])?;
    case.watch(&slice)?;
    let mut hog = Hog::spawn(&context.hog("brief-hog"))?;
    let mut truth = Vec::new();
    for round in 0..ROUNDS {
        let id = hex_id(round);
        let container = slice.child(format!("docker-{id}.scope"))?;
        container.limit_memory(SMALL_LIMIT_BYTES)?;
        case.container(&id, &container)?;
        let pid = kill_one(&mut case, &mut hog, &container)?;
        case.close(&container)?;
        truth.push((pid, id, container.id()?));
        container.remove_emptied()?;
    }
    case.wait_for_kills(truth.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    // The parent keeps the counts of children that are gone.
    checks.oom_kill_rose(&slice, i64::try_from(ROUNDS)?);
    checks.law(context);
    let pids: Vec<u32> = truth.iter().map(|(pid, ..)| *pid).collect();
    checks.logged(&pids);
    if let Some(kills) = checks.kills(truth.len()) {
        checks.eq("number of events", Ok(findings.events().len()), truth.len());
        for ((pid, id, cgroup), event) in truth.into_iter().zip(kills) {
            checks.eq("victim.pid", event.victim_pid(), pid);
            checks.eq("victim.cgroup_id", event.victim_cgroup_id(), cgroup);
            checks.eq("container.id", event.container_id(), Some(id));
        }
    }
    checks.finish(&format!("{ROUNDS} containers gone at once, each named"))
}

/// Has a copy of a hog die of a container's limit; the hog itself is outside.
fn kill_one(case: &mut Case, hog: &mut Hog, container: &Cgroup) -> Result<u32> {
    let born = hog.brood(1, SMALL_TOO_MUCH_BYTES)?;
    for pid in &born {
        case.adopt(*pid, container)?;
    }
    let killed = hog.release()?;
    ensure!(killed == born, "{born:?} started, {killed:?} killed");
    killed.first().copied().context("no process was started")
}

/// A pod as the kubelet lays it out, started after the daemon.
pub(super) fn discovery_live(context: &Context) -> Result<Outcome> {
    const POD_UID: &str = "0f2a5c1e-8a3b-4d6f-9e10-1234567890ab";
    let mut case = Case::start(context, &["--discover", "cgroup"])?;
    let pod_name = format!("kubepods-burstable-pod{}.slice", POD_UID.replace('-', "_"));
    let kubepods = context.cgroup("kubepods.slice")?;
    kubepods.enable_memory()?;
    let burstable = kubepods.child("kubepods-burstable.slice")?;
    burstable.enable_memory()?;
    let pod = burstable.child(pod_name)?;
    pod.enable_memory()?;
    let id = hex_id(1000);
    let container = pod.child(format!("cri-containerd-{id}.scope"))?;
    container.limit_memory(LIMIT_BYTES)?;
    case.container(&id, &container)?;
    let mut hog = case.hog(&context.hog("java"), &container)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&container, 1);
    checks.law(context);
    checks.logged(&[hog.pid()]);
    if let Some(event) = checks.only_event() {
        context
            .report
            .note(&format!("event discovery_live: {event}"));
        checks.eq("container.id", event.container_id(), Some(id));
        checks.eq(
            "container.pod_uid",
            event.text("container.pod_uid"),
            POD_UID.to_owned(),
        );
        checks.eq(
            "container.runtime",
            event.text("container.runtime"),
            "containerd".to_owned(),
        );
        checks.eq("attribution", event.attribution(), "exact".to_owned());
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        check_path(
            &mut checks,
            event.text("victim.cgroup_path"),
            &container,
            context,
        );
    }
    checks.finish("named as soon as it was started")
}

fn check_path(checks: &mut Checks<'_>, found: Result<String>, cgroup: &Cgroup, context: &Context) {
    let below_root = cgroup.path().strip_prefix(&context.cgroups);
    let expected = below_root.map(|path| format!("/{}", path.display()));
    checks.eq("victim.cgroup_path", found, expected.unwrap_or_default());
}

/// Kills in no container are reported as just that. Two of them in different cgroups: nothing is
/// known of the second cgroup's past, which must not make its kill look like none.
pub(super) fn unregistered(context: &Context) -> Result<Outcome> {
    let cgroups = [context.cgroup("nobody-1")?, context.cgroup("nobody-2")?];
    for cgroup in &cgroups {
        cgroup.limit_memory(LIMIT_BYTES)?;
    }
    let mut case = Case::start(context, &["--discover", "none"])?;
    let mut pids = Vec::new();
    for cgroup in &cgroups {
        case.watch(cgroup)?;
        let mut hog = case.hog(&context.hog("nobody"), cgroup)?;
        hog.start_allocating(TOO_MUCH_BYTES)?;
        hog.wait_killed(KILL_LIMIT)?;
        pids.push(hog.pid());
    }
    case.wait_for_kills(pids.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.logged(&pids);
    checks.law(context);
    for cgroup in &cgroups {
        checks.oom_kill_rose(cgroup, 1);
    }
    if let Some(kills) = checks.kills(pids.len()) {
        for ((event, pid), cgroup) in kills.into_iter().zip(pids).zip(&cgroups) {
            let container = event.field("container").map(Value::is_null);
            checks.eq("whether container is null", container, true);
            checks.eq(
                "attribution",
                event.attribution(),
                "unregistered".to_owned(),
            );
            checks.eq("victim.pid", event.victim_pid(), pid);
            checks.eq("victim.cgroup_id", event.victim_cgroup_id(), cgroup.id()?);
        }
    }
    checks.finish("reported without a container")
}
