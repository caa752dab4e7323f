//! The command-line tools of systemd and of the runtimes, as people use them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    guest::{context::Context, handover::LUGGAGE},
    wait::wait_until,
};

/// For a shell that was just started to set a trap.
const TRAP_LIMIT: Duration = Duration::from_secs(30);

/// Daemons of runtimes, with the sockets that would start them again.
const DAEMONS: &[&str] = &[
    "docker.socket",
    "docker.service",
    "podman.socket",
    "podman.service",
    "containerd.service",
];

/// Runs a command that must succeed; returns what it printed.
pub(super) fn tool(context: &Context, words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = context.run_to_end(command)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{words:?}: {}: {errors}",
        output.status
    );
    let printed = String::from_utf8(output.stdout).with_context(|| format!("{words:?}"))?;
    Ok(printed.trim().to_owned())
}

/// Starts these daemons and stops the others, which would take memory and time.
pub(super) fn only(context: &Context, wanted: &[&str]) -> Result<()> {
    let others = DAEMONS.iter().filter(|daemon| !wanted.contains(daemon));
    let stop: Vec<&str> = ["systemctl", "stop"]
        .into_iter()
        .chain(others.copied())
        .collect();
    // Not every image has all of them.
    let _ = tool(context, &stop);
    if wanted.is_empty() {
        return Ok(());
    }
    let start = [&["systemctl", "start"], wanted].concat();
    tool(context, &start).map(drop)
}

/// Does something once in a machine's life.
pub(super) fn once(what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let mark = Path::new(LUGGAGE).join(format!("done-{what}"));
    if !mark.exists() {
        act()?;
        fs::write(&mark, "").with_context(|| format!("writing {}", mark.display()))?;
    }
    Ok(())
}

/// Writes into a control file of the cgroup that has this directory name.
pub(super) fn write_in(context: &Context, cgroup: &str, file: &str, value: &str) -> Result<()> {
    let path = find(context, cgroup)?.join(file);
    fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
}

/// Sends `signal` to the first process of the cgroup that has this directory name, once it catches that.
pub(super) fn signal_first(context: &Context, cgroup: &str, signal: Signal) -> Result<()> {
    let dir = find(context, cgroup)?;
    let first = wait_until(
        TRAP_LIMIT,
        &format!("a trap for {signal:?} in {cgroup}"),
        || {
            let mut pids = Vec::new();
            processes(&dir, &mut pids)?;
            let first = pids.into_iter().min().and_then(Pid::from_raw);
            let first = first.with_context(|| format!("nobody in {}", dir.display()))?;
            Ok(catches(first, signal)?.then_some(first))
        },
    )?;
    kill_process(first, signal).with_context(|| format!("signalling {first:?}"))
}

fn catches(process: Pid, signal: Signal) -> Result<bool> {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.with_context(|| format!("no SigCgt in {path}"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).context("SigCgt")?;
    Ok(caught & 1 << (signal.as_raw() - 1) != 0)
}

fn find(context: &Context, cgroup: &str) -> Result<PathBuf> {
    let dir = find_dir(&context.cgroups, cgroup)?;
    dir.with_context(|| format!("no cgroup {cgroup}"))
}

fn find_dir(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    for child in children(dir)? {
        if child.file_name().is_some_and(|found| found == name) {
            return Ok(Some(child));
        }
        if let Some(found) = find_dir(&child, name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// All processes of a cgroup and those below it: crun puts them one deeper.
fn processes(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = dir.join("cgroup.procs");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    children(dir)?
        .iter()
        .try_for_each(|child| processes(child, pids))
}

/// Directories; those that vanish meanwhile are none.
fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
