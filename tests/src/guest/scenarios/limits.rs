//! Whose limit was hit, and by whom.

use anyhow::Result;

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, registering};
use crate::{
    event::Event,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
    hog::MIB,
};

/// One process reaches the limit of its own container: every field of the event is known.
pub(super) fn single_kill(context: &Context) -> Result<Outcome> {
    let web = context.cgroup("web-1")?;
    web.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("web-1", &web)]))?;
    case.container("web-1", &web)?;
    let mut hog = case.hog(&context.hog("web-hog"), &web)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&web, 1);
    checks.law(context);
    checks.logged(&[hog.pid()]);
    if let Some(event) = checks.only_event() {
        context.report.note(&format!("event single_kill: {event}"));
        checks.eq("count", event.count(), 1);
        checks.eq(
            "container.id",
            event.container_id(),
            Some("web-1".to_owned()),
        );
        checks.eq("scope", event.text("scope"), "container".to_owned());
        checks.eq("constraint", event.text("constraint"), "memcg".to_owned());
        checks.eq("attribution", event.attribution(), "exact".to_owned());
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq(
            "victim.comm",
            event.text("victim.comm"),
            "web-hog".to_owned(),
        );
        checks.eq("victim.cgroup_id", event.victim_cgroup_id(), web.id()?);
        checks.eq(
            "victim.oom_score_adj",
            event.number("victim.oom_score_adj"),
            0,
        );
        checks.eq("victim.uid", event.number("victim.uid"), 0);
        checks.eq("trigger.pid", event.trigger_pid(), hog.pid());
        checks.eq("limit.cgroup_id", event.limit_cgroup_id(), Some(web.id()?));
        checks.eq(
            "limit.max_bytes",
            event.number("limit.max_bytes"),
            LIMIT_BYTES,
        );
        let anon = event.number("victim.anon_rss_bytes");
        // What it had before it was moved into the cgroup is charged elsewhere.
        checks.that(
            "victim.anon_rss_bytes is between 8 MiB and a little more than the limit",
            anon.is_ok_and(|bytes| bytes > 8 * MIB && bytes <= LIMIT_BYTES + MIB),
        );
        for witness in ["tracepoint", "counter"] {
            checks.eq(witness, event.has_evidence(witness), true);
        }
    }
    checks.finish("one kill, fully described")
}

/// Pod and container have the same limit, as under Kubernetes: the kernel blames the pod.
///
/// A second container of the pod holds some memory, so that the pod always reaches the limit
/// before the container does.
pub(super) fn pod_limit(context: &Context) -> Result<Outcome> {
    let pod = context.cgroup("pod")?;
    pod.limit_memory(LIMIT_BYTES)?;
    pod.enable_memory()?;
    let (pause, app) = (pod.child("pause")?, pod.child("app")?);
    app.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &registering(&[("app", &app)]))?;
    case.watch(&pod)?;
    case.container("app", &app)?;
    let mut idler = case.hog(&context.hog("pause"), &pause)?;
    idler.allocate(MIB)?;
    let mut hog = case.hog(&context.hog("app-hog"), &app)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&app, 1);
    checks.eq(
        "rise of oom in the container",
        findings.rise(&app, "oom"),
        0,
    );
    let pod_oom = findings.local_rise(&pod, "oom");
    checks.that("the pod's own oom rose", pod_oom.is_ok_and(|rise| rise > 0));
    checks.law(context);
    checks.logged(&[hog.pid()]);
    if let Some(event) = checks.only_event() {
        context.report.note(&format!("event pod_limit: {event}"));
        checks.eq("container.id", event.container_id(), Some("app".to_owned()));
        checks.eq("scope", event.text("scope"), "pod".to_owned());
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq("limit.cgroup_id", event.limit_cgroup_id(), Some(pod.id()?));
        checks.eq("counter.oom", event.counter("oom"), 0);
        checks.eq("counter.oom_kill", event.counter("oom_kill"), 1);
    }
    checks.finish("the pod's limit, the container's loss")
}

/// The limit is that of a cgroup above the pod.
pub(super) fn ancestor_limit(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("pods")?;
    slice.limit_memory(LIMIT_BYTES)?;
    slice.enable_memory()?;
    let pod = slice.child("pod")?;
    pod.enable_memory()?;
    let app = pod.child("app")?;
    let mut case = Case::start(context, &registering(&[("app", &app)]))?;
    case.container("app", &app)?;
    let mut hog = case.hog(&context.hog("app-hog"), &app)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.oom_kill_rose(&app, 1);
    checks.eq("rise of oom", findings.rise(&app, "oom"), 0);
    checks.logged(&[hog.pid()]);
    if let Some(event) = checks.only_event() {
        checks.eq("scope", event.text("scope"), "ancestor".to_owned());
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        let slice = slice.id()?;
        checks.eq("limit.cgroup_id", event.limit_cgroup_id(), Some(slice));
    }
    checks.finish("the limit of a cgroup above the pod")
}

/// One container allocates, another one pays.
pub(super) fn other_allocator(context: &Context) -> Result<Outcome> {
    let pod = context.cgroup("p")?;
    pod.limit_memory(32 * MIB)?;
    pod.enable_memory()?;
    let (victim, alloc) = (pod.child("victim")?, pod.child("alloc")?);
    let arguments = registering(&[("victim", &victim), ("alloc", &alloc)]);
    let mut case = Case::start(context, &arguments)?;
    case.watch(&pod)?;
    case.container("victim", &victim)?;
    case.container("alloc", &alloc)?;
    let mut idle = case.hog(&context.hog("idle-hog").oom_score_adj(1000), &victim)?;
    idle.allocate(24 * MIB)?;
    // Immune, for it may reach the limit again while the pages of the victim are being freed.
    let mut eater = case.hog(&context.hog("eater").oom_score_adj(-1000), &alloc)?;
    eater.allocate(LIMIT_BYTES)?;
    idle.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&victim, 1);
    checks.oom_kill_rose(&alloc, 0);
    checks.law(context);
    checks.logged(&[idle.pid()]);
    if let Some(event) = checks.only_event() {
        check_other_allocator(&mut checks, event, (idle.pid(), eater.pid()));
        checks.eq("victim.cgroup_id", event.victim_cgroup_id(), victim.id()?);
        checks.eq(
            "trigger.cgroup_id",
            event.number("trigger.cgroup_id"),
            alloc.id()?,
        );
        checks.eq("limit.cgroup_id", event.limit_cgroup_id(), Some(pod.id()?));
    }
    checks.finish("victim and trigger in different containers, told apart")
}

fn check_other_allocator(checks: &mut Checks<'_>, event: &Event, (victim, trigger): (u32, u32)) {
    checks.eq(
        "container.id",
        event.container_id(),
        Some("victim".to_owned()),
    );
    checks.eq("scope", event.text("scope"), "pod".to_owned());
    checks.eq("victim.pid", event.victim_pid(), victim);
    checks.eq(
        "victim.comm",
        event.text("victim.comm"),
        "idle-hog".to_owned(),
    );
    checks.eq(
        "victim.oom_score_adj",
        event.number("victim.oom_score_adj"),
        1000,
    );
    checks.eq("trigger.pid", event.trigger_pid(), trigger);
    checks.eq(
        "trigger.comm",
        event.text("trigger.comm"),
        "eater".to_owned(),
    );
}
