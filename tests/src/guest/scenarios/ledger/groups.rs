//! Group kills during which something changes: cgroups of the dead go, programs are replaced.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{HOG, Runs, container_in, start, state_dir, system_slice};
use crate::{
    cgroup::Cgroup,
    guest::{
        case::KILL_LIMIT,
        context::Context,
        report::Outcome,
        scenarios::{LIMIT_BYTES, TOO_MUCH_BYTES, hex_id, pinned},
    },
    hog::{Hog, MIB, reap},
    kernel_trace::KernelTrace,
};

/// In the container that is killed last, whose deaths give the other's removal its time.
const MEMBERS: u32 = 20;
const ROUNDS: u64 = 3;
/// In a group that is killed before and after programs are replaced, and in one that is killed meanwhile: the
/// kernel is to be in the midst of one as much of the time as can be had.
const SMALL_GROUP: u32 = 3;
const LARGE_GROUP: u32 = 60;
/// Killed one after another while one daemon starts.
const GROUPS: u64 = 4;
/// Room for the records of all of these (880 bytes each), and for little more than two of them.
const LARGE_RING_BYTES: &str = "1048576";
const SMALL_RING_BYTES: &str = "131072";
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);

/// A pod is killed as one: the container that is killed first is gone before the last is killed, and the
/// kernel's second count is no kill.
pub(in super::super) fn members_removed(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pod = context.cgroup("ledger-pod")?;
    pod.limit_memory(LIMIT_BYTES)?;
    pod.write("memory.oom.group", "1")?;
    pod.enable_memory()?;
    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&["--discover", "cgroup"])?;
    let trace = KernelTrace::start()?;
    let console = Console::slow()?;
    let mut early = Vec::new();
    for round in 0..ROUNDS {
        let before = trace.marks()?.len();
        // The kernel kills in the order in which they were made.
        let (side_id, side) = member_of(&pod, 7600 + 2 * round)?;
        let (app_id, app) = member_of(&pod, 7601 + 2 * round)?;
        let mut idle = Hog::spawn(&context.hog("side-hog"))?;
        side.add(idle.pid())?;
        let group = Group::gather(context, &app, MEMBERS)?;
        let (killed, gone_at) = thread::scope(|scope| {
            let remover = scope.spawn(|| {
                remove_at_once(side.path())?;
                Ok::<_, anyhow::Error>(trace.marks()?.len())
            });
            let killed = group.kill();
            let gone_at = remover
                .join()
                .map_err(|_| anyhow!("the remover panicked"))?;
            Ok::<_, anyhow::Error>((killed?, gone_at?))
        })?;
        idle.wait_killed(KILL_LIMIT)?;
        app.remove_emptied()?;
        runs.died(&[idle.pid()], Some(&side_id));
        runs.died(&killed, Some(&app_id));
        early.push(format!(
            "{} of {}",
            gone_at - before,
            trace.marks()?.len() - before
        ));
    }
    drop(console);
    let marks = early.join(", ");
    context
        .report
        .note(&format!("removed after that many marks: {marks}"));
    let _ = daemon.wait_for_kills(KILL_LIMIT, runs.deaths.len());
    runs.stop(daemon)?;
    check_double_counts(&mut runs, &pod)?;
    let number = runs.deaths.len();
    runs.judge(&format!(
        "{number} processes, each once; cgroups gone after {marks} marks"
    ))
}

/// Other programs are attached while groups are killed, and those that were pinned go: each process once.
pub(in super::super) fn upgraded_meanwhile(context: &Context) -> Result<Outcome> {
    upgraded(context, LARGE_RING_BYTES, false)
}

/// The same where the ring that is replaced has no room for all: those are counted, and as many are told as died.
pub(in super::super) fn upgraded_without_room(context: &Context) -> Result<Outcome> {
    upgraded(context, SMALL_RING_BYTES, true)
}

fn upgraded(context: &Context, ring_bytes: &str, loses: bool) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = &Path::new("/sys/fs/bpf").join(context.scenario.replace('_', "-"));
    let state = state_dir(context);
    let mut first: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    first.extend(["--state-dir".into(), state.clone().into()]);
    first.extend(["--pin".into(), pin.into()]);
    let mut other = first.clone();
    other.extend(["--ring-size".into(), ring_bytes.into()]);
    let slice = system_slice(context)?;
    let mut runs = Runs::begin(context)?;
    runs.loses_records = loses;
    let daemon = runs.start(&first)?;
    let (id, container) = container_in(&slice, 7700)?;
    container.write("memory.oom.group", "1")?;
    let killed = Group::gather(context, &container, SMALL_GROUP)?.kill()?;
    runs.died(&killed, Some(&id));
    runs.wait_for_history(&state);
    runs.stop(daemon)?;
    let console = Console::slow()?;
    let mut meanwhile = Vec::new();
    for (arguments, number) in [&other, &first].into_iter().zip([7710, 7720]) {
        let mut ready = Vec::new();
        for number in number..number + GROUPS {
            ready.push(LargeGroup::gather(context, &slice, number)?);
        }
        let daemon = thread::scope(|scope| {
            let starting = scope.spawn(|| start(context, arguments));
            let mut groups = 0;
            for group in ready {
                groups += usize::from(!starting.is_finished());
                let (id, killed) = group.kill()?;
                runs.died(&killed, Some(&id));
            }
            meanwhile.push(groups);
            starting.join().map_err(|_| anyhow!("the start panicked"))?
        })?;
        let killed = Group::gather(context, &container, SMALL_GROUP)?.kill()?;
        runs.died(&killed, Some(&id));
        runs.wait_for_history(&state);
        runs.stop(daemon)?;
    }
    drop(console);
    check_double_counts(&mut runs, &slice)?;
    pinned::unpin(context, pin)?;
    let number = runs.deaths.len();
    let folded: i64 = runs.stopped.iter().map(|stopped| stopped.folded).sum();
    let seen = format!(
        "{number} processes, each once; {meanwhile:?} groups during two starts, {folded} seen by both generations"
    );
    runs.judge_history(&state, &seen)
}

/// What the kernel counted that nobody died of is what the runs say it counted twice.
fn check_double_counts(runs: &mut Runs<'_>, cgroup: &Cgroup) -> Result<()> {
    let counted = cgroup.events()?.value("oom_kill").context("no oom_kill")?;
    let twice = i64::try_from(counted)? - i64::try_from(runs.deaths.len())?;
    let double_counts: i64 = runs
        .stopped
        .iter()
        .map(|stopped| stopped.double_counts)
        .sum();
    let what = format!("{twice} of {counted} were counted twice, double_counts {double_counts}");
    runs.that(&what, twice == double_counts);
    Ok(())
}

fn member_of(above: &Cgroup, number: u64) -> Result<(String, Cgroup)> {
    let id = hex_id(number);
    let cgroup = above.child(format!("docker-{id}.scope"))?;
    Ok((id, cgroup))
}

/// As soon as nobody lives in it.
fn remove_at_once(path: &Path) -> Result<()> {
    let until = Instant::now() + REMOVAL_LIMIT;
    while let Err(error) = fs::remove_dir(path) {
        if Instant::now() >= until {
            bail!("{} stays: {error}", path.display());
        }
        thread::yield_now();
    }
    Ok(())
}

/// Processes of which one reaches the limit.
struct Group {
    hog: Hog,
    brood: Vec<u32>,
}

impl Group {
    fn gather(context: &Context, cgroup: &Cgroup, size: u32) -> Result<Self> {
        let mut hog = Hog::spawn(&context.hog(HOG))?;
        cgroup.add(hog.pid())?;
        let brood = hog.brood(size - 1, 0)?;
        Ok(Self { hog, brood })
    }

    /// All die; returns who.
    fn kill(mut self) -> Result<Vec<u32>> {
        self.hog.start_allocating(TOO_MUCH_BYTES)?;
        self.hog.wait_killed(KILL_LIMIT)?;
        reap(&self.brood, KILL_LIMIT)?;
        self.brood.push(self.hog.pid());
        Ok(self.brood)
    }
}

/// A group that is near its limit.
struct LargeGroup {
    id: String,
    group: Group,
    /// Goes when the group is dead.
    _cgroup: Cgroup,
}

impl LargeGroup {
    fn gather(context: &Context, slice: &Cgroup, number: u64) -> Result<Self> {
        let (id, cgroup) = member_of(slice, number)?;
        cgroup.write("memory.oom.group", "1")?;
        let group = Group::gather(context, &cgroup, LARGE_GROUP)?;
        cgroup.limit_memory(cgroup.number("memory.current")? + MIB)?;
        Ok(Self {
            id,
            group,
            _cgroup: cgroup,
        })
    }

    fn kill(self) -> Result<(String, Vec<u32>)> {
        Ok((self.id, self.group.kill()?))
    }
}

/// The kernel says on the console whom it kills, in the midst of a group kill: that takes long. Until dropped.
struct Console(String);

impl Console {
    const LEVEL: &str = "/proc/sys/kernel/printk";

    fn slow() -> Result<Self> {
        let before = fs::read_to_string(Self::LEVEL).context("reading the console's level")?;
        fs::write(Self::LEVEL, "8").context("setting the console's level")?;
        let level = before.split_whitespace().next().unwrap_or("1");
        Ok(Self(level.to_owned()))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::write(Self::LEVEL, &self.0);
    }
}
