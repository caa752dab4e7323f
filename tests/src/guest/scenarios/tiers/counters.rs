//! Tier `counters`: how many were killed, and not who.

use std::{fs, io, os::unix::process::CommandExt, process::Command};

use anyhow::Result;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{
    super::{LIMIT_BYTES, TOO_MUCH_BYTES, hex_id, registering},
    check_told, discovering, kill_one, tier,
};
use crate::{
    cgroup::Cgroup,
    daemon::Daemon,
    event::Event,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
    hog::{Hog, MIB},
};

const NOBODY: u32 = 65534;
const CONTAINERS: u64 = 5;
const ROUNDS: usize = 2;

/// Every event counts kills of a container, and claims nothing else.
fn check_counted(checks: &mut Checks<'_>, events: &[Event]) {
    for event in events {
        checks.eq("kind", event.kind(), "counter_only".to_owned());
        checks.eq("tier", event.text("quality.tier"), "counters".to_owned());
        checks.eq("victim.pid", event.number_or_null("victim.pid"), None);
        checks.eq("trigger.pid", event.number_or_null("trigger.pid"), None);
        checks.eq("tracepoint", event.has_evidence("tracepoint"), false);
        checks.eq("counter", event.has_evidence("counter"), true);
    }
}

/// One process reaches the limit of its own container, twice; an old kill is not told.
pub(in super::super) fn single(context: &Context) -> Result<Outcome> {
    let web = context.cgroup("web-1")?;
    web.limit_memory(LIMIT_BYTES)?;
    let mut before = Hog::spawn(&context.hog("old-hog"))?;
    web.add(before.pid())?;
    before.start_allocating(TOO_MUCH_BYTES)?;
    before.wait_killed(KILL_LIMIT)?;
    let arguments = tier("counters", registering(&[("web-1", &web)]));
    let mut case = Case::start(context, &arguments)?;
    case.watch(&web)?;
    for kills in 1..=2 {
        kill_one(context, &mut case, &web)?;
        case.wait_for_count(kills);
    }
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&web, 2);
    checks.conserved("web-1", &web);
    check_counted(&mut checks, findings.events());
    for event in findings.events() {
        context.report.note(&format!("event counters: {event}"));
    }
    if !findings.dry {
        checks.eq("number of events", Ok(findings.events().len()), 2);
    }
    for event in findings.events() {
        checks.eq("scope", event.text("scope"), "container".to_owned());
    }
    checks.finish("two kills, counted")
}

/// Three processes die together, and the kernel counts four where it tells that it was a group.
pub(in super::super) fn group(context: &Context) -> Result<Outcome> {
    let cgroup = context.cgroup("group")?;
    cgroup.limit_memory(LIMIT_BYTES)?;
    cgroup.write("memory.oom.group", "1")?;
    let arguments = tier("counters", registering(&[("group", &cgroup)]));
    let mut case = Case::start(context, &arguments)?;
    case.watch(&cgroup)?;
    let mut hog = case.hog(&context.hog("group-hog"), &cgroup)?;
    for pid in hog.fork(2, 0)? {
        case.remember(pid, &cgroup)?;
    }
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_count(3);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&cgroup, 4);
    check_counted(&mut checks, findings.events());
    let tells_groups = findings.rise(&cgroup, "oom_group_kill").is_ok();
    check_told(
        &mut checks,
        &findings,
        "group",
        if tells_groups { 3 } else { 4 },
    );
    for event in findings.events() {
        let double_counts = event.number_or_null("counter.recounts");
        checks.eq(
            "whether double_counts are known",
            double_counts.map(|double_counts| double_counts.is_some()),
            tells_groups,
        );
    }
    checks.finish("a group of three")
}

/// Pod and container have the same limit: the kernel blames the pod, the container lost.
pub(in super::super) fn pod(context: &Context) -> Result<Outcome> {
    let pod = context.cgroup("pod")?;
    pod.limit_memory(LIMIT_BYTES)?;
    pod.enable_memory()?;
    let (pause, app) = (pod.child("pause")?, pod.child("app")?);
    app.limit_memory(LIMIT_BYTES)?;
    let arguments = registering(&[("app", &app), ("pause", &pause), ("pod", &pod)]);
    let mut case = Case::start(context, &tier("counters", arguments))?;
    case.watch(&pod)?;
    case.watch(&app)?;
    let mut idler = case.hog(&context.hog("pause"), &pause)?;
    idler.allocate(MIB)?;
    kill_one(context, &mut case, &app)?;
    case.wait_for_count(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&app, 1);
    checks.oom_kill_rose(&pod, 1);
    check_counted(&mut checks, findings.events());
    check_told(&mut checks, &findings, "app", 1);
    check_told(&mut checks, &findings, "pod", 0);
    check_told(&mut checks, &findings, "pause", 0);
    for event in findings.events() {
        checks.eq("scope", event.text("scope"), "unknown".to_owned());
    }
    checks.finish("the pod's limit, the container's loss")
}

/// Containers that are gone at once: what they counted last is told by their parent.
pub(in super::super) fn removed(context: &Context) -> Result<Outcome> {
    const REMOVED: u64 = 5;
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let stays = slice.child(format!("docker-{}.scope", hex_id(900)))?;
    stays.limit_memory(LIMIT_BYTES)?;
    let mut case = Case::start(context, &tier("counters", discovering()))?;
    case.watch(&slice)?;
    let mut ids = Vec::new();
    for round in 0..REMOVED {
        let id = hex_id(round);
        let container = slice.child(format!("docker-{id}.scope"))?;
        container.limit_memory(LIMIT_BYTES)?;
        let mut hog = case.hog(&context.hog("brief-hog"), &container)?;
        // Stopped, the daemon sees nothing of the kill before the container is gone.
        case.signal_daemon(rustix::process::Signal::STOP)?;
        hog.start_allocating(TOO_MUCH_BYTES)?;
        hog.wait_killed(KILL_LIMIT)?;
        if round == 0 {
            // A sibling's kill in the same moment is the sibling's.
            kill_one(context, &mut case, &stays)?;
        }
        container.remove_emptied()?;
        case.signal_daemon(rustix::process::Signal::CONT)?;
        ids.push(id);
        case.wait_for_count(round + 2);
    }
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&slice, i64::try_from(REMOVED)? + 1);
    check_counted(&mut checks, findings.events());
    for id in &ids {
        check_told(&mut checks, &findings, id, 1);
    }
    check_told(&mut checks, &findings, &hex_id(900), 1);
    checks.finish(&format!("{REMOVED} containers gone at once, each named"))
}

/// A container that comes after the start, in a slice that comes after the start.
pub(in super::super) fn discovery(context: &Context) -> Result<Outcome> {
    let mut case = Case::start(context, &tier("counters", discovering()))?;
    let kubepods = context.cgroup("kubepods.slice")?;
    kubepods.enable_memory()?;
    let pod = kubepods.child("kubepods-pod0f2a5c1e_8a3b_4d6f_9e10_1234567890ab.slice")?;
    pod.enable_memory()?;
    let id = hex_id(1000);
    let container = pod.child(format!("cri-containerd-{id}.scope"))?;
    container.limit_memory(LIMIT_BYTES)?;
    case.watch(&container)?;
    kill_one(context, &mut case, &container)?;
    case.wait_for_count(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&container, 1);
    checks.conserved(&id, &container);
    check_counted(&mut checks, findings.events());
    check_told(&mut checks, &findings, &id, 1);
    checks.finish("found and counted")
}

/// Kills in sub-cgroups are the container's, and a container's in a container are its own.
pub(in super::super) fn nested(context: &Context) -> Result<Outcome> {
    let outer = context.cgroup("outer")?;
    outer.enable_memory()?;
    let (inner, payload) = (outer.child("inner")?, outer.child("payload")?);
    inner.limit_memory(LIMIT_BYTES)?;
    payload.limit_memory(LIMIT_BYTES)?;
    let arguments = registering(&[("outer", &outer), ("inner", &inner)]);
    let mut case = Case::start(context, &tier("counters", arguments))?;
    case.watch(&outer)?;
    case.watch(&inner)?;
    for kills in [2, 4] {
        kill_one(context, &mut case, &inner)?;
        kill_one(context, &mut case, &payload)?;
        case.wait_for_count(kills);
    }
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&outer, 4);
    check_counted(&mut checks, findings.events());
    check_told(&mut checks, &findings, "inner", 2);
    check_told(&mut checks, &findings, "outer", 2);
    checks.finish("each told of its own")
}

/// Leaves as they come and go: what a child lost is not its parent's when that is a leaf again.
pub(in super::super) fn leaves(context: &Context) -> Result<Outcome> {
    let arguments = tier("counters", vec!["--all-cgroups".into()]);
    let mut case = Case::start(context, &arguments)?;
    let outer = context.cgroup("outer")?;
    outer.limit_memory(LIMIT_BYTES)?;
    outer.enable_memory()?;
    let inner = outer.child("inner")?;
    kill_one(context, &mut case, &inner)?;
    case.wait_for_count(1);
    inner.remove_emptied()?;
    outer.write("cgroup.subtree_control", "-memory")?;
    case.watch(&outer)?;
    kill_one(context, &mut case, &outer)?;
    case.wait_for_count(2);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&outer, 1);
    check_counted(&mut checks, findings.events());
    check_told(&mut checks, &findings, "/outer/inner", 1);
    check_told(&mut checks, &findings, "/outer", 1);
    checks.finish("a leaf's kill is its own")
}

/// An ordinary user may read counters.
pub(in super::super) fn user(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let web = context.cgroup("web-1")?;
    web.limit_memory(LIMIT_BYTES)?;
    let mut command = context.command(&["run", "--output", "json"]);
    command.args(tier("counters", registering(&[("web-1", &web)])));
    command.uid(NOBODY).gid(NOBODY);
    let mut case = Case::beside(Some(Daemon::spawn(command)?))?;
    case.watch(&web)?;
    kill_one(context, &mut case, &web)?;
    case.wait_for_count(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.conserved("web-1", &web);
    check_counted(&mut checks, findings.events());
    check_told(&mut checks, &findings, "web-1", 1);
    checks.finish("counted without any privilege")
}

/// Ten kills in five containers, all five at a time.
pub(in super::super) fn many(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &tier("counters", discovering()))?;
    let mut containers = Vec::new();
    for number in 0..CONTAINERS {
        let id = hex_id(4000 + number);
        let cgroup = slice.child(format!("docker-{id}.scope"))?;
        cgroup.limit_memory(8 * MIB)?;
        case.watch(&cgroup)?;
        containers.push((id, cgroup));
    }
    for _ in 0..ROUNDS {
        let mut hogs = Vec::new();
        for (_, cgroup) in &containers {
            hogs.push(case.hog(&context.hog("many-hog"), cgroup)?);
        }
        for hog in &mut hogs {
            hog.start_allocating(TOO_MUCH_BYTES)?;
        }
        for hog in &mut hogs {
            hog.wait_killed(KILL_LIMIT)?;
        }
    }
    let kills = CONTAINERS * ROUNDS as u64;
    case.wait_for_count(kills);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    for (id, cgroup) in &containers {
        checks.oom_kill_rose(cgroup, i64::try_from(ROUNDS)?);
        checks.conserved(id, cgroup);
    }
    check_counted(&mut checks, findings.events());
    checks.finish(&format!("{kills} kills over {CONTAINERS} containers"))
}

/// Neither watches nor descriptors for all: what cannot be watched is looked at now and then.
pub(in super::super) fn limited(context: &Context) -> Result<Outcome> {
    const WATCHES: &str = "/proc/sys/fs/inotify/max_user_watches";
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let before = fs::read_to_string(WATCHES)?;
    fs::write(WATCHES, "3")?;
    let outcome = run_limited(context);
    fs::write(WATCHES, before.trim())?;
    outcome
}

fn run_limited(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut command = context.command(&["run", "--output", "json"]);
    command.args(tier("counters", discovering()));
    limit_open_files(&mut command, 66);
    let container = |number| -> Result<(String, Cgroup)> {
        let id = hex_id(5000 + number);
        let cgroup = slice.child(format!("docker-{id}.scope"))?;
        cgroup.limit_memory(8 * MIB)?;
        Ok((id, cgroup))
    };
    let containers: Result<Vec<_>> = (1..CONTAINERS).map(container).collect();
    let mut containers = containers?;
    let mut case = Case::beside(Some(Daemon::spawn(command)?))?;
    // One comes after the start.
    containers.push(container(0)?);
    for (_, cgroup) in &containers {
        case.watch(cgroup)?;
        kill_one(context, &mut case, cgroup)?;
    }
    case.wait_for_count(CONTAINERS);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    check_counted(&mut checks, findings.events());
    for (id, cgroup) in &containers {
        checks.conserved(id, cgroup);
        check_told(&mut checks, &findings, id, 1);
    }
    for limit in ["open files", "max_user_watches"] {
        let said = findings
            .output
            .errors
            .iter()
            .filter(|line| line.contains(limit));
        checks.eq(&format!("warnings of {limit}"), Ok(said.count()), 1);
    }
    checks.finish("all counted in spite of both limits")
}

fn limit_open_files(command: &mut Command, most: u64) {
    let limit = move || -> io::Result<()> {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        Ok(setrlimit(Resource::Nofile, limit)?)
    };
    // SAFETY: a system call only.
    unsafe {
        command.pre_exec(limit);
    }
}
