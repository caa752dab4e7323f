//! Programs that go on while no daemon runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    ops::Range,
    path::Path,
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, hex_id, registering};
use crate::{
    cgroup::Cgroup,
    daemon::Daemon,
    event::Event,
    guest::{
        case::{KILL_LIMIT, vmstat},
        context::Context,
        law::Law,
        report::Outcome,
    },
    hog::{Hog, MIB},
    wait::wait_until,
};

const HOG: &str = "pinned-hog";
const FAILURE: i32 = 1;
const STORM_CONTAINERS: u64 = 6;
const STORM_ROUNDS: usize = 10;
/// Rounds in which the daemon is killed.
const STORM_DEATHS: Range<usize> = 2..9;
/// Small, so that 60 kills do not take all day on an emulated machine.
const SMALL_LIMIT_BYTES: u64 = 8 * MIB;

/// A daemon that is killed misses nothing: not in a container that lives on, nor in those that came
/// or went meanwhile.
pub(super) fn while_down(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = Path::new("/sys/fs/bpf/oomwatch-while-down");
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let (lives, goes, comes) = (hex_id(5001), hex_id(5002), hex_id(5003));
    let lives_on = container(&slice, &lives, LIMIT_BYTES)?;
    let removed = container(&slice, &goes, LIMIT_BYTES)?;
    let arguments = pinning(pin);

    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    let before = context.lose_a_process(HOG, &lives_on)?;
    daemon.wait_for_event(KILL_LIMIT, "of the first run", Event::is_kill)?;
    // Dropped: SIGKILL.
    drop(daemon);
    let mut truth = vec![(context.lose_a_process(HOG, &lives_on)?, &lives)];
    truth.push((context.lose_a_process(HOG, &removed)?, &goes));
    removed.remove_emptied()?;
    let brief = container(&slice, &comes, LIMIT_BYTES)?;
    truth.push((context.lose_a_process(HOG, &brief)?, &comes));
    brief.remove_emptied()?;

    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    let ready_after = daemon.ready_after();
    ensure!(daemon.wait_for_kills(KILL_LIMIT, truth.len()), "the missed");
    let after = context.lose_a_process(HOG, &lives_on)?;
    daemon.wait_for_event(KILL_LIMIT, "a new one", |event| {
        event.victim_pid().is_ok_and(|pid| pid == after)
    })?;
    let output = daemon.stop()?;
    ensure!(
        output
            .errors
            .iter()
            .any(|line| line.contains("stay pinned")),
        "{:?}",
        output.errors
    );
    // Without a store, what was told right before a crash may be told once more.
    let is_new = |event: &&Event| event.victim_pid().is_ok_and(|pid| pid != before);
    let events: Vec<&Event> = output.events.iter().filter(is_new).collect();
    ensure!(events.len() == truth.len() + 1, "{events:?}");
    for ((pid, id), event) in truth.iter().zip(&events) {
        ensure!(event.victim_pid()? == *pid, "{event}");
        ensure!(event.container_id()?.as_ref() == Some(id), "{event}");
        ensure!(event.field("while_down")? == &Value::Bool(true), "{event}");
        ensure!(
            event.text_or_null("victim.cgroup_path")?.is_some(),
            "{event}"
        );
        ensure!(
            event.number_or_null("victim.anon_rss_bytes")?.is_some(),
            "{event}"
        );
        ensure!(event.limit_cgroup_id()?.is_some(), "{event}");
    }
    let last = events.last().context("no event")?;
    ensure!(last.victim_pid()? == after && before != after, "{last}");
    ensure!(last.field("while_down")? == &Value::Bool(false), "{last}");

    // Nothing happened since: a third run has nothing to say.
    let third = Daemon::start(&context.oomwatch, &arguments)?.stop()?;
    ensure!(third.events.is_empty(), "said again: {:?}", third.events);
    unpin(context, pin)?;
    Ok(Outcome::Passed(format!(
        "3 kills without a daemon, each in full; ready after {ready_after:?}"
    )))
}

/// Killed with -9 in a storm and started again, time after time: the history adds up, with programs that
/// went on, with others that took over from them, and without. With those that go on it has every kill
/// in full, for what was taken from the ring and not stored is taken again.
pub(super) fn storm(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = Path::new("/sys/fs/bpf/oomwatch-storm");
    let plain: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    let pinning = pinning(pin);
    let mut upgraded = pinning.clone();
    // Other programs than those that are pinned.
    upgraded.extend(["--ring-size".into(), "131072".into()]);
    let all = STORM_ROUNDS * usize::try_from(STORM_CONTAINERS)?;
    let pinned = storm_with(context, "pinned", [&pinning, &pinning])?;
    let replaced = storm_with(context, "replaced", [&pinning, &upgraded])?;
    unpin(context, pin)?;
    let without = storm_with(context, "plain", [&plain, &plain])?;
    let numbers =
        format!("in full of {all}: pinned {pinned}, replaced {replaced}, not pinned {without}");
    ensure!(pinned == all && replaced == all, "{numbers}");
    Ok(Outcome::Passed(numbers))
}

fn storm_with(context: &Context, name: &str, arguments: [&Vec<OsString>; 2]) -> Result<usize> {
    let state = Path::new("/run").join(format!("oomwatch-storm-{name}"));
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut containers = Vec::new();
    for number in 0..STORM_CONTAINERS {
        let id = hex_id(6000 + number);
        let cgroup = container(&slice, &id, SMALL_LIMIT_BYTES)?;
        containers.push((id, cgroup));
    }
    let start = |arguments: &[OsString]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--state-dir".into(), state.clone().into()]);
        Daemon::start(&context.oomwatch, &arguments)
    };

    let node = vmstat()?;
    let mut homes = BTreeMap::new();
    let mut next = arguments.into_iter().cycle();
    let mut start = || start(next.next().context("they go round")?);
    let mut daemon = start()?;
    for round in 0..STORM_ROUNDS {
        let mut hogs = Vec::new();
        for (id, cgroup) in &containers {
            let hog = greedy(context, cgroup)?;
            homes.insert(hog.pid(), id.clone());
            hogs.push(hog);
        }
        for hog in &mut hogs {
            hog.start_allocating(TOO_MUCH_BYTES)?;
        }
        if STORM_DEATHS.contains(&round) {
            // In the midst of this round's kills; the others come while none runs, and at its start.
            drop(daemon);
            daemon = start()?;
        }
        for hog in &mut hogs {
            hog.wait_killed(KILL_LIMIT)?;
        }
    }
    let all = STORM_ROUNDS * containers.len();
    let told = |history: &[Event]| history.iter().map(Event::count).sum::<Result<u64>>();
    wait_until(KILL_LIMIT, "all kills in the history", || {
        let history = context.history(&state, &[])?;
        Ok((told(&history)? >= all as u64).then_some(()))
    })?;
    daemon.stop()?;

    let history = context.history(&state, &[])?;
    let mut pids = BTreeSet::new();
    for event in history.iter().filter(|event| event.is_kill()) {
        ensure!(pids.insert(event.victim_pid()?), "told twice: {event}");
    }
    let mut truth = 0;
    for (id, cgroup) in &containers {
        let mut told = 0;
        for event in &history {
            if event.container_id()?.as_ref() == Some(id) {
                told += event.count()?;
            }
        }
        let rise = cgroup.events()?.value("oom_kill");
        ensure!(rise == Some(told), "{id}: {told} told, {rise:?} counted");
        truth += i64::try_from(told)?;
    }
    let node = vmstat()?.rise(&node, "oom_kill").context("no oom_kill")?;
    let law = Law::of_history(truth, node, &homes, &history)?;
    context.report.law(&format!("storm_{name}"), &law);
    ensure!(law.holds(), "{law:?}");
    ensure!(told(&history)? == all as u64, "{} told", told(&history)?);
    for (_, cgroup) in containers {
        cgroup.remove_emptied()?;
    }
    Ok(pids.len())
}

/// What is not oomwatch's is left alone, and watching goes on without; what is no place for
/// programs is refused; and one daemon at a time.
pub(super) fn in_trouble(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = Path::new("/sys/fs/bpf/oomwatch-in-trouble");
    let app = context.cgroup("pinned-in-trouble")?;
    app.limit_memory(LIMIT_BYTES)?;
    let mut arguments = registering(&[("app", &app)]);
    arguments.extend(["--pin".into(), pin.into()]);

    // Somebody else's.
    fs::create_dir_all(pin)?;
    fs::set_permissions(pin, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let foreign = pin.join("cilium");
    fs::create_dir(&foreign)?;
    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    context.lose_a_process(HOG, &app)?;
    daemon.wait_for_event(KILL_LIMIT, "in spite of it", Event::is_kill)?;
    let output = daemon.stop()?;
    let said = |what: &str| output.errors.iter().any(|line| line.contains(what));
    ensure!(
        said("cilium") && said("without --pin"),
        "{:?}",
        output.errors
    );
    ensure!(foreign.is_dir(), "what is not ours was removed");
    fs::remove_dir(&foreign)?;

    // Half of a start: begun again.
    fs::create_dir(pin.join("oomwatch-1"))?;
    let first = Daemon::start(&context.oomwatch, &arguments)?;
    ensure!(pin.join("oomwatch-2").join("about").is_symlink(), "pinned");
    ensure!(!pin.join("oomwatch-1").exists(), "the half is left");
    refused(context, &["run", "--pin"], pin, "in use")?;
    refused(context, &["unpin"], pin, "in use")?;
    context.lose_a_process(HOG, &app)?;
    first.wait_for_event(KILL_LIMIT, "by the first", Event::is_kill)?;
    first.stop()?;

    // Another ring: replaced, like another version's.
    context.lose_a_process(HOG, &app)?;
    arguments.extend(["--ring-size".into(), "65536".into()]);
    let upgraded = Daemon::start(&context.oomwatch, &arguments)?;
    let kill = upgraded.wait_for_event(KILL_LIMIT, "of before", Event::is_kill)?;
    ensure!(kill.field("while_down")? == &Value::Bool(true), "{kill}");
    context.lose_a_process(HOG, &app)?;
    ensure!(upgraded.wait_for_kills(KILL_LIMIT, 2), "the next");
    ensure!(!pin.join("oomwatch-2").exists(), "the old ones are left");
    let output = upgraded.stop()?;
    ensure!(output.events.len() == 2, "{:?}", output.events);

    unpin(context, pin)?;
    // What nothing was pinned for is not told.
    context.lose_a_process(HOG, &app)?;
    let fresh = Daemon::start(&context.oomwatch, &arguments)?;
    context.lose_a_process(HOG, &app)?;
    fresh.wait_for_event(KILL_LIMIT, "of a fresh start", Event::is_kill)?;
    let output = fresh.stop()?;
    ensure!(output.events.len() == 1, "{:?}", output.events);
    unpin(context, pin)?;

    let elsewhere = Path::new("/run/oomwatch-no-bpffs");
    refused(context, &["run", "--pin"], elsewhere, "mount -t bpf")?;
    ensure!(!elsewhere.exists(), "made for nothing");
    not_mounted(context)?;
    Ok(Outcome::Passed("left alone, replaced, refused".to_owned()))
}

fn not_mounted(context: &Context) -> Result<()> {
    let bpffs = Path::new("/sys/fs/bpf");
    unmount(bpffs, UnmountFlags::empty()).context("unmounting bpffs")?;
    let pin = bpffs.join("oomwatch");
    let answer = refused(context, &["run", "--pin"], &pin, "mount -t bpf");
    mount("bpf", bpffs, "bpf", MountFlags::empty(), None).context("mounting bpffs")?;
    answer
}

/// A command that fails and says why.
fn refused(context: &Context, arguments: &[&str], pin: &Path, why: &str) -> Result<()> {
    let output = with_dir(context, arguments, pin)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(FAILURE) && errors.contains(why),
        "{arguments:?}: {}: {errors}",
        output.status
    );
    Ok(())
}

pub(super) fn unpin(context: &Context, pin: &Path) -> Result<()> {
    let output = with_dir(context, &["unpin"], pin)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "oomwatch unpin: {errors}");
    ensure!(!pin.exists(), "something is left in {}", pin.display());
    Ok(())
}

fn with_dir(context: &Context, arguments: &[&str], dir: &Path) -> Result<Output> {
    let mut command = context.command(arguments);
    command.arg(dir);
    context.run_to_end(command)
}

fn pinning(pin: &Path) -> Vec<OsString> {
    vec![
        "--discover".into(),
        "cgroup".into(),
        "--pin".into(),
        pin.into(),
    ]
}

fn container(slice: &Cgroup, id: &str, limit_bytes: u64) -> Result<Cgroup> {
    let cgroup = slice.child(format!("docker-{id}.scope"))?;
    cgroup.limit_memory(limit_bytes)?;
    Ok(cgroup)
}

fn greedy(context: &Context, cgroup: &Cgroup) -> Result<Hog> {
    let hog = Hog::spawn(&context.hog(HOG))?;
    cgroup.add(hog.pid())?;
    Ok(hog)
}
