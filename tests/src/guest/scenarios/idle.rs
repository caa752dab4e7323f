//! What the daemon costs when nothing happens.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::hex_id;
use crate::{
    cgroup::Cgroup,
    daemon::Daemon,
    guest::{context::Context, report::Outcome},
    wait::{wait_for_exit, wait_until},
};

const CONTAINERS: u64 = 1000;
const LARGEST_RSS_KIB: u64 = 8 * 1024;
/// How long to watch an idle daemon.
const WINDOW: Duration = Duration::from_secs(5);
/// A slow timer (the audit) may fall into one window, never into two in a row.
const WINDOWS: usize = 2;
const STRACE_LIMIT: Duration = Duration::from_secs(20);

/// A thousand containers and no kill: no wake-up, no system call, little memory.
pub(super) fn idle_syscalls(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let containers: Result<Vec<Cgroup>> = (0..CONTAINERS)
        .map(|number| slice.child(format!("docker-{}.scope", hex_id(10_000 + number))))
        .collect();
    let containers = containers?;
    let daemon = Daemon::start(&context.oomwatch, &["--discover", "cgroup"])?;
    let ready_ms = daemon.ready_after().as_millis();
    let note = format!(
        "ready {ready_ms} ms after its start, {} containers",
        containers.len()
    );
    context.report.note(&note);
    let rss_kib = memory(context, &daemon)?;
    let wake_ups = fewest(|| wake_ups_in_window(&daemon))?;
    let calls = match fs::exists("/bin/strace")? {
        true => Some(fewest(|| system_calls_in_window(&daemon, &slice))?),
        false => None,
    };
    daemon.stop()?;
    let calls_text = calls.map_or("not counted, no /bin/strace".to_owned(), |n| n.to_string());
    let seen = format!("rss {rss_kib} KiB, wake-ups {wake_ups}, system calls {calls_text}");
    context.report.note(&format!("idle for {WINDOW:?}: {seen}"));
    ensure!(
        rss_kib <= LARGEST_RSS_KIB,
        "more than {LARGEST_RSS_KIB} KiB resident: {seen}"
    );
    ensure!(wake_ups == 0, "an idle daemon woke up: {seen}");
    ensure!(
        calls.is_none_or(|calls| calls == 0),
        "an idle daemon made system calls: {seen}"
    );
    Ok(match calls {
        Some(_) => Outcome::Passed(seen),
        None => Outcome::Skipped(format!("system calls: no /bin/strace; else {seen}")),
    })
}

fn fewest(mut measure: impl FnMut() -> Result<u64>) -> Result<u64> {
    let mut fewest = measure()?;
    for _ in 1..WINDOWS {
        if fewest > 0 {
            fewest = fewest.min(measure()?);
        }
    }
    Ok(fewest)
}

fn memory(context: &Context, daemon: &Daemon) -> Result<u64> {
    let path = PathBuf::from(format!("/proc/{}/status", daemon.pid()));
    let status = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let fields: BTreeMap<&str, &str> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    // The program itself lies in the initial RAM disk here, so its text is counted as RssShmem.
    for key in [
        "VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem", "Threads",
    ] {
        let value = fields.get(key).copied().unwrap_or("unknown");
        context.report.note(&format!("daemon {key}: {value}"));
    }
    let rss = fields.get("VmRSS").context("no VmRSS in the status")?;
    let number = rss.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("VmRSS is `{rss}`"))
}

/// Counts how often any thread of the daemon went back to sleep, which needs no help of ptrace.
fn wake_ups_in_window(daemon: &Daemon) -> Result<u64> {
    let before = switches(daemon.pid())?;
    // Not a wait for anything: the passing of time is what is measured.
    thread::sleep(WINDOW);
    Ok(switches(daemon.pid())?.saturating_sub(before))
}

fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .context("no context switches in the status")?;
        sum += line.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// Counts the daemon's system calls with strace.
///
/// Attaching interrupts the call each thread sleeps in, and leaving shows it unfinished. Both are
/// strace's doing, so a call counts only if it began after all threads had settled.
fn system_calls_in_window(daemon: &Daemon, slice: &Cgroup) -> Result<u64> {
    let log = std::env::temp_dir().join("oomwatch-tests-strace");
    let _ = fs::remove_file(&log);
    let mut strace = Command::new("/bin/strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .args(["-p", &daemon.pid().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting strace")?;
    let counted = count_after_settling(daemon, &log, slice);
    let pid = i32::try_from(strace.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process id")?, Signal::INT).context("stopping strace")?;
    wait_for_exit(&mut strace, STRACE_LIMIT, "strace")?;
    counted
}

fn count_after_settling(daemon: &Daemon, log: &Path, slice: &Cgroup) -> Result<u64> {
    wait_until(STRACE_LIMIT, "strace attaching", || traced(daemon.pid()))?;
    // Interrupted calls are begun anew at once; a second is an age for that.
    thread::sleep(Duration::from_secs(1));
    let settled = fs::metadata(log)?.len();
    thread::sleep(WINDOW);
    let text = fs::read_to_string(log)?;
    let since = text.get(usize::try_from(settled)?..).unwrap_or_default();
    let counted = u64::try_from(since.lines().count())?;

    // An empty log proves nothing unless something to do makes it grow.
    let wakes = slice.child(format!("docker-{}.scope", hex_id(20_000)))?;
    let before = u64::try_from(text.len())?;
    wait_until(STRACE_LIMIT, "strace seeing the daemon at work", || {
        Ok((fs::metadata(log)?.len() > before).then_some(()))
    })?;
    drop(wakes);
    Ok(counted)
}

/// Whether every thread has a tracer.
fn traced(pid: u32) -> Result<Option<()>> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(None);
        }
    }
    Ok(Some(()))
}
