//! What the daemon costs, measured from outside: how soon it is ready, what it keeps in memory,
//! how often it wakes, and how late an event is.

mod node;
mod runtime;
mod status;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use oomwatch_tests::{daemon::Daemon, host::Layout};

use self::{node::Node, runtime::Runtime, status::Status};
use super::{
    Subject,
    table::{Table, Target},
};

/// Containers of the large run.
const CONTAINERS: usize = 10_000;
/// Containers of the listing.
const LISTED: usize = 5_000;
/// How long an idle daemon is looked at.
const IDLE: Duration = Duration::from_secs(5);
const IDLE_QUICK: Duration = Duration::from_secs(1);
/// A daemon that slept through this has started.
const SETTLE: Duration = Duration::from_millis(100);
/// How long an event may take before something is wrong.
const EVENT_LIMIT: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;

/// One look at a running daemon.
struct Run {
    ready_ms: f64,
    /// Processor time until then.
    cpu_ms: f64,
    status: Status,
    wake_ups: u64,
}

/// From exec to readiness on this host as it is.
pub(super) fn start(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let times = ready_times(subject, if subject.quick { 3 } else { 10 })?;
    let best = times.first().copied().context("no start")?;
    let median = times.get(times.len() / 2).copied().context("no start")?;
    let target = Target::AtMost(100.0);
    table.add("start: exec to ready, best", best, "ms", target);
    table.add("start: exec to ready, median", median, "ms", target);
    Ok(())
}

/// The same daemon without containers and with many, found by their cgroups' paths.
pub(super) fn registered(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let repetitions = if subject.quick { 1 } else { 3 };
    let empty = best_of(subject, repetitions)?;
    let node = Node::create(CONTAINERS)?;
    let full = best_of(subject, repetitions)?;
    drop(node);
    let grown = full.status.anonymous_bytes as f64 - empty.status.anonymous_bytes as f64;
    let what = |text: &str| format!("registered: {text}");
    let each = Target::AtMost(300.0);
    let bytes = grown / CONTAINERS as f64;
    table.add(&what("memory of each of 10,000"), bytes, "bytes", each);
    let resident = empty.status.resident_bytes as f64 / MIB;
    let most = Target::AtMost(8.0);
    table.add(&what("resident memory without any"), resident, "MiB", most);
    let took = full.ready_ms - empty.ready_ms;
    let soon = Target::AtMost(100.0);
    table.add(&what("10,000 at the start take"), took, "ms", soon);
    let took = full.cpu_ms - empty.cpu_ms;
    table.add(&what("processor time of that"), took, "ms", soon);
    let descriptors = full.status.descriptors as f64 - empty.status.descriptors as f64;
    let none = Target::AtMost(0.0);
    table.add(&what("descriptors for 10,000"), descriptors, "", none);
    let wake_ups = full.wake_ups as f64;
    table.add(&what("wake-ups while idle"), wake_ups, "", none);
    Ok(())
}

/// A runtime's listing: from its request to the last container that is named.
pub(super) fn listed(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let program: PathBuf = subject.workspace.release_binary("oomwatch");
    let runtime = Runtime::create(LISTED)?;
    let (mut best, mut best_in_all) = (f64::MAX, f64::MAX);
    for _ in 0..if subject.quick { 1 } else { 5 } {
        let started = Instant::now();
        let daemon = Daemon::start(&program, &runtime::arguments(&runtime.socket()))?;
        let asked = runtime.asked()?;
        let listed = format!("\"containers\":{LISTED}");
        let all = daemon.wait_for_output(EVENT_LIMIT, |output| {
            let mut lines = output.errors.iter();
            lines.any(|line| line.contains("\"listed\"") && line.contains(&listed))
        });
        ensure!(all, "the listing did not come through");
        best = best.min(asked.elapsed().as_secs_f64() * 1_000.0);
        best_in_all = best_in_all.min(started.elapsed().as_secs_f64() * 1_000.0);
        daemon.stop()?;
    }
    let target = Target::AtMost(1_000.0);
    table.add("listed: 5,000 containers of Docker", best, "ms", target);
    table.add("listed: the same, from exec", best_in_all, "ms", target);
    Ok(())
}

/// From the kernel's time stamp to the hand-over to the publishers, of real kills.
pub(super) fn latency(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let layout = Layout::read()?;
    let daemon = run_daemon(subject)?;
    let hog = subject.workspace.release_binary("oom-hog");
    let mut delivered = Vec::new();
    for number in 0..if subject.quick { 5 } else { 50 } {
        let limited = layout.limited(&format!("bench-{number}"))?;
        let pid = limited.kill_a_hog(&hog, "bench-hog", limited.identity())?;
        let event = daemon.wait_for_event(EVENT_LIMIT, "of a kill", |event| {
            event.is_kill() && event.victim_pid().is_ok_and(|victim| victim == pid)
        })?;
        delivered.push(event.number("latency.delivered_ns")? as f64 / 1_000.0);
    }
    daemon.stop()?;
    delivered.sort_by(f64::total_cmp);
    for (name, share, most) in [("p50", 0.5, 100.0), ("p99", 0.99, 1_000.0)] {
        let place = (delivered.len() as f64 * share) as usize;
        let value = delivered.get(place).copied().context("no kill")?;
        let what = format!("latency: kernel to publishers, {name}");
        table.add(&what, value, "µs", Target::AtMost(most));
    }
    Ok(())
}

/// The least of several runs in each respect: others use this machine too.
fn best_of(subject: &Subject<'_>, repetitions: usize) -> Result<Run> {
    let mut best = look(subject)?;
    for _ in 1..repetitions {
        let run = look(subject)?;
        best.ready_ms = best.ready_ms.min(run.ready_ms);
        best.cpu_ms = best.cpu_ms.min(run.cpu_ms);
        best.wake_ups = best.wake_ups.min(run.wake_ups);
        if run.status.anonymous_bytes < best.status.anonymous_bytes {
            best.status = run.status;
        }
    }
    Ok(best)
}

fn look(subject: &Subject<'_>) -> Result<Run> {
    let daemon = run_daemon(subject)?;
    let before = asleep(daemon.pid())?;
    // No condition to wait for: that nothing happens is what is measured.
    thread::sleep(if subject.quick { IDLE_QUICK } else { IDLE });
    let status = Status::read(daemon.pid())?;
    let wake_ups = status.switches - before.switches;
    let ready_ms = daemon.ready_after().as_secs_f64() * 1_000.0;
    daemon.stop()?;
    Ok(Run {
        ready_ms,
        cpu_ms: before.cpu_ns as f64 / 1_000_000.0,
        status,
        wake_ups,
    })
}

/// Waits until the start is over: ready is said before the loop goes to sleep.
fn asleep(pid: u32) -> Result<Status> {
    let mut status = Status::read(pid)?;
    for _ in 0..20 {
        thread::sleep(SETTLE);
        let now = Status::read(pid)?;
        if now.switches == status.switches {
            break;
        }
        status = now;
    }
    Ok(status)
}

fn ready_times(subject: &Subject<'_>, starts: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(starts);
    for _ in 0..starts {
        let daemon = run_daemon(subject)?;
        times.push(daemon.ready_after().as_secs_f64() * 1_000.0);
        daemon.stop()?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn run_daemon(subject: &Subject<'_>) -> Result<Daemon> {
    let is_root = rustix::process::geteuid().is_root();
    ensure!(is_root, "needs root");
    let program: PathBuf = subject.workspace.release_binary("oomwatch");
    Daemon::start(&program, &["--discover", "cgroup"])
}
