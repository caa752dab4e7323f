//! The ways to find victims that are not the best this kernel has.

pub(super) mod counters;
pub(super) mod pid;

use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command};

use anyhow::{Result, ensure};
use rustix::{
    mount::{MountFlags, mount},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, registering};
use crate::{
    cgroup::Cgroup,
    daemon::Daemon,
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        findings::Findings,
        report::Outcome,
    },
    hog::Hog,
};

const FAILURE: i32 = 1;
const DEGRADED: i32 = 3;

/// These arguments, with this tier and no other.
fn tier(tier: &str, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut all = vec!["--tier".into(), tier.into()];
    all.extend(arguments);
    all
}

fn discovering() -> Vec<OsString> {
    vec!["--discover".into(), "cgroup".into()]
}

/// Kills one process in a cgroup.
fn kill_one(context: &Context, case: &mut Case, cgroup: &Cgroup) -> Result<Hog> {
    let mut hog = case.hog(&context.hog("counted-hog"), cgroup)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    Ok(hog)
}

/// How many kills were told of a container.
fn told(findings: &Findings, container: Option<&str>) -> Result<u64> {
    let mut told = 0;
    for event in findings.events() {
        if event.container_id()?.as_deref() == container {
            told += event.count()?;
        }
    }
    Ok(told)
}

/// As many kills as there were, in this container and in no other.
fn check_told(checks: &mut Checks<'_>, findings: &Findings, container: &str, kills: u64) {
    if !findings.dry {
        let what = format!("kills told of {container}");
        checks.eq(&what, told(findings, Some(container)), kills);
    }
}

/// Of `btf` and `btf-pid` each kernel has one, and refuses the other by name.
pub(super) fn forced(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let mut refused = Vec::new();
    for tier in ["btf", "btf-pid"] {
        let socketless = ["run", "--output", "none", "--tier", tier];
        let mut command = context.command(&socketless);
        command.args(["--discover", "none"]);
        match Daemon::spawn(command) {
            Ok(daemon) => drop(daemon.stop()?),
            Err(error) => refused.push((tier, format!("{error:#}"))),
        }
    }
    let [(tier, message)] = refused.as_slice() else {
        anyhow::bail!("one of two is refused, and not: {refused:?}");
    };
    ensure!(
        message.contains(&format!("tier {tier} is not possible on this host")),
        "not named: {message}"
    );
    let output = context.run_to_end(context.command(&["run", "--tier", tier]))?;
    ensure!(
        output.status.code() == Some(FAILURE),
        "exit: {}",
        output.status
    );
    Ok(Outcome::Passed(format!("{tier} is refused: {message}")))
}

/// Hides directories from a command, in a mount namespace of its own.
fn hide(command: &mut Command, directories: &'static [&'static str]) {
    let hide = move || -> io::Result<()> {
        // SAFETY: the child has one thread, and nothing shares its mounts.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        for directory in directories {
            mount("tmpfs", *directory, "tmpfs", MountFlags::empty(), None)?;
        }
        Ok(())
    };
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(hide);
    }
}

/// One kill as seen by a daemon that these directories are hidden from; what it is told is `tier`.
fn falls_back(context: &Context, hidden: &'static [&'static str], tier: &str) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let mut check = context.command(&["check"]);
    hide(&mut check, hidden);
    let output = context.run_to_end(check)?;
    context.note_output("check", &output);
    ensure!(
        output.status.code() == Some(DEGRADED),
        "oomwatch check: {}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains(&format!(" {tier}: ")),
        "no tier {tier} in: {text}"
    );

    let mut demo = context.command(&["demo"]);
    hide(&mut demo, hidden);
    let output = context.run_to_end(demo)?;
    context.note_output("demo", &output);
    ensure!(output.status.success(), "oomwatch demo: {}", output.status);

    let web = context.cgroup("web-1")?;
    web.limit_memory(LIMIT_BYTES)?;
    let mut command = context.command(&["run", "--output", "json"]);
    command.args(registering(&[("web-1", &web)]));
    hide(&mut command, hidden);
    let mut case = Case::beside(Some(Daemon::spawn(command)?))?;
    case.watch(&web)?;
    kill_one(context, &mut case, &web)?;
    case.wait_for_count(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.conserved("web-1", &web);
    check_told(&mut checks, &findings, "web-1", 1);
    for event in findings.events() {
        checks.eq("tier", event.text("quality.tier"), tier.to_owned());
    }
    let warned = |line: &String| line.contains("WARN") && line.contains("BTF");
    checks.that(
        "a warning names the cause",
        findings.output.errors.iter().any(warned),
    );
    checks.finish(&format!("tier {tier} without being asked"))
}

/// A kernel that does not describe its types.
pub(super) fn auto_without_btf(context: &Context) -> Result<Outcome> {
    falls_back(context, &["/sys/kernel/btf"], "pid")
}

/// The same without tracefs: no program can be attached where it is needed.
pub(super) fn auto_without_programs(context: &Context) -> Result<Outcome> {
    falls_back(
        context,
        &["/sys/kernel/btf", "/sys/kernel/tracing"],
        "counters",
    )
}
