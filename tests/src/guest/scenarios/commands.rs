//! The command line: checks, the demonstration, and every way to be told off.

use std::{ffi::OsString, os::unix::process::CommandExt};

use anyhow::{Result, bail, ensure};

use super::registering;
use crate::guest::{context::Context, report::Outcome};

const NOBODY: u32 = 65534;
const USAGE: i32 = 2;
const NO_PRIVILEGE: i32 = 77;

/// A test machine lacks nothing, so `check` finds nothing amiss.
pub(super) fn check_full(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let output = context.run_to_end(context.command(&["check"]))?;
    context.note_output("check", &output);
    ensure!(
        output.status.code() == Some(0),
        "oomwatch check: {}",
        output.status
    );
    Ok(Outcome::Passed("exit code 0".to_owned()))
}

/// The demonstration makes a real kill and shows it.
pub(super) fn demo(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let output = context.run_to_end(context.command(&["demo"]))?;
    context.note_output("demo", &output);
    ensure!(
        output.status.code() == Some(0),
        "oomwatch demo: {}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    ensure!(text.contains("kill"), "the demonstration shows no kill");
    Ok(Outcome::Passed("exit code 0 and a kill".to_owned()))
}

/// Without privilege the daemon says what it needs, and ends with a code of its own.
pub(super) fn unprivileged(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let mut command = context.command(&["run", "--output", "json"]);
    command.uid(NOBODY).gid(NOBODY);
    let output = context.run_to_end(command)?;
    context.note_output("unprivileged", &output);
    ensure!(
        output.status.code() == Some(NO_PRIVILEGE),
        "exit: {}",
        output.status
    );
    let message = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let remedies = ["root", "sudo", "cap_"];
    ensure!(
        remedies.iter().any(|remedy| message.contains(remedy)),
        "the message names no remedy: {message}"
    );
    Ok(Outcome::Passed("exit code 77 and a remedy".to_owned()))
}

/// Each mistake is a usage error whose message names the thing that is wrong.
pub(super) fn bad_input(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let (one, two) = (context.cgroup("one")?, context.cgroup("two")?);
    let file = context.cgroups.join("cgroup.procs");
    let absent = context.cgroups.join("no-such-cgroup");
    let mistakes: Vec<(Vec<OsString>, String)> = vec![
        (container("malformed"), "malformed".to_owned()),
        (container("a=/etc"), "/etc".to_owned()),
        (
            container(&format!("a={}", file.display())),
            file.display().to_string(),
        ),
        (
            container(&format!("a={}", absent.display())),
            absent.display().to_string(),
        ),
        (
            registering(&[("twice", &one), ("twice", &two)]),
            "twice".to_owned(),
        ),
    ];
    let mut failures = Vec::new();
    for (arguments, named) in &mistakes {
        let mut command = context.command(&["run", "--output", "json"]);
        command.args(arguments);
        match context.run_to_end(command) {
            Err(error) => failures.push(format!("{arguments:?}: {error:#}")),
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr);
                if output.status.code() != Some(USAGE) || !message.contains(named) {
                    failures.push(format!("{arguments:?}: {}: {message}", output.status));
                }
            }
        }
    }
    if !failures.is_empty() {
        bail!(
            "not told off with exit code 2 and a name:\n{}",
            failures.join("\n")
        );
    }
    Ok(Outcome::Passed(format!(
        "{} mistakes, each named",
        mistakes.len()
    )))
}

fn container(value: &str) -> Vec<OsString> {
    vec!["--container".into(), value.into()]
}
