//! Tier `pid`: who was killed, without BTF.

use anyhow::Result;

use super::{
    super::{LIMIT_BYTES, TOO_MUCH_BYTES, hex_id, registering},
    check_told, discovering, kill_one, tier,
};
use crate::{
    event::Event,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
};

/// A kill that told of itself, by this process in this container.
fn check_named(checks: &mut Checks<'_>, event: &Event, pid: u32, container: Option<&str>) {
    checks.eq("tier", event.text("quality.tier"), "pid".to_owned());
    checks.eq("count", event.count(), 1);
    checks.eq("victim.pid", event.victim_pid(), pid);
    let scope = if container.is_some() {
        "container"
    } else {
        "unknown"
    };
    checks.eq("scope", event.text("scope"), scope.to_owned());
    let container = container.map(ToOwned::to_owned);
    checks.eq("container.id", event.container_id(), container);
    for witness in ["tracepoint", "counter"] {
        checks.eq(witness, event.has_evidence(witness), true);
    }
}

/// One process reaches the limit of its own container: who it was is known, its memory is not.
pub(in super::super) fn single(context: &Context) -> Result<Outcome> {
    let web = context.cgroup("web-1")?;
    web.limit_memory(LIMIT_BYTES)?;
    let arguments = tier("pid", registering(&[("web-1", &web)]));
    let mut case = Case::start(context, &arguments)?;
    case.watch(&web)?;
    let mut pids = Vec::new();
    for kills in 1..=2 {
        pids.push(kill_one(context, &mut case, &web)?.pid());
        case.wait_for_kills(kills);
    }
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&web, 2);
    checks.conserved("web-1", &web);
    checks.logged(&pids);
    if let Some(kills) = checks.kills(2) {
        checks.eq("number of events", Ok(findings.events().len()), 2);
        for (event, pid) in kills.into_iter().zip(pids) {
            context.report.note(&format!("event pid: {event}"));
            check_named(&mut checks, event, pid, Some("web-1"));
            let comm = event.text("victim.comm");
            checks.eq("victim.comm", comm, "counted-hog".to_owned());
            checks.eq("victim.uid", event.number("victim.uid"), 0);
            checks.eq("victim.cgroup_id", event.victim_cgroup_id(), web.id()?);
            checks.eq("attribution", event.attribution(), "exact".to_owned());
            let memory = event.number_or_null("victim.anon_rss_bytes");
            checks.eq("victim.anon_rss_bytes", memory, None);
        }
    }
    checks.finish("two kills, named")
}

/// Three processes die together, and each tells of itself.
pub(in super::super) fn group(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("group")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    cgroup.write("memory.oom.group", "1")?;
    let arguments = tier("pid", registering(&[("group", &cgroup)]));
    let mut case = Case::start(context, &arguments)?;
    case.watch(&cgroup)?;
    let mut hog = case.hog(&context.hog("group-hog"), &cgroup)?;
    let mut killed = hog.fork(2, 0)?;
    killed.push(hog.pid());
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(3);
    // Before 5.17 nothing tells the double count from a kill.
    let tells_groups = cgroup.events()?.value("oom_group_kill").is_some();
    case.wait_for_count(if tells_groups { 3 } else { 4 });
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&cgroup, 4);
    checks.logged(&killed);
    if let Some(kills) = checks.kills(3) {
        for event in kills {
            let pid = event.victim_pid()?;
            checks.that("one of the group", killed.contains(&pid));
            check_named(&mut checks, event, pid, Some("group"));
        }
    }
    check_told(
        &mut checks,
        &findings,
        "group",
        if tells_groups { 3 } else { 4 },
    );
    checks.finish("a group of three, each named")
}

/// Twelve threads at the limit: one process, one kill.
pub(in super::super) fn threads(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("threads")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    let arguments = tier("pid", registering(&[("threads", &cgroup)]));
    let mut case = Case::start(context, &arguments)?;
    case.watch(&cgroup)?;
    let mut hog = case.hog(&context.hog("threads").threads(12), &cgroup)?;
    hog.start_allocating(2 * TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&cgroup, 1);
    checks.conserved("threads", &cgroup);
    if let Some(event) = checks.only_event() {
        check_named(&mut checks, event, hog.pid(), Some("threads"));
    }
    checks.finish("one kill of twelve threads")
}

/// Containers that are gone at once: their victims told of themselves before.
pub(in super::super) fn removed(context: &Context) -> Result<Outcome> {
    const REMOVED: u64 = 5;
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &tier("pid", discovering()))?;
    case.watch(&slice)?;
    let mut truth = Vec::new();
    for round in 0..REMOVED {
        let id = hex_id(round);
        let container = slice.child(format!("docker-{id}.scope"))?;
        container.limit_memory(LIMIT_BYTES)?;
        let hog = kill_one(context, &mut case, &container)?;
        container.remove_emptied()?;
        truth.push((hog.pid(), id));
    }
    case.wait_for_kills(truth.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&slice, i64::try_from(REMOVED)?);
    if let Some(kills) = checks.kills(truth.len()) {
        checks.eq("number of events", Ok(findings.events().len()), truth.len());
        for ((pid, id), event) in truth.into_iter().zip(kills) {
            checks.eq("victim.pid", event.victim_pid(), pid);
            checks.eq("container.id", event.container_id(), Some(id));
        }
    }
    checks.finish(&format!(
        "{REMOVED} containers gone at once, each victim named"
    ))
}

/// A victim in no container is told of too.
pub(in super::super) fn unregistered(context: &Context) -> Result<Outcome> {
    let loose = context.cgroup("loose")?;
    loose.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &tier("pid", discovering()))?;
    let hog = kill_one(context, &mut case, &loose)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    if let Some(event) = checks.only_event() {
        check_named(&mut checks, event, hog.pid(), None);
        let path = event.text("victim.cgroup_path");
        checks.eq("victim.cgroup_path", path, "/loose".to_owned());
    }
    checks.finish("reported without a container")
}
