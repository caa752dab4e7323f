//! Names chosen to break logs, terminals and parsers.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use anyhow::{Context as _, Result, ensure};

use super::{LIMIT_BYTES, TOO_MUCH_BYTES};
use crate::{
    cgroup::Cgroup,
    daemon::{Daemon, Output},
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
    hog::Hog,
};

/// A line break, an escape sequence that colours a terminal, and what is no UTF-8.
const COMM: &[u8] = b"a\n\x1b[31mb\xff\xfe\rc";
/// The same for a directory, but for the line break, which the kernel refuses.
const DIRECTORY: &[u8] = b"evil\x1b[31m\xff\xfe\x7f\r\"\\";

/// A hostile process in a hostile cgroup, in both output formats.
pub(super) fn hostile_names(context: &Context) -> Result<Outcome> {
    let newline = context.cgroup("with\nnewline");
    ensure!(
        newline.is_err(),
        "this kernel allows line breaks in cgroup names: extend this test"
    );
    let cgroup = context.cgroup("hostile")?;
    cgroup.enable_memory()?;
    let evil = cgroup.child(OsStr::from_bytes(DIRECTORY))?;
    evil.limit_memory(LIMIT_BYTES)?;

    let mut case = Case::start(context, &["--discover", "none"])?;
    case.watch(&evil)?;
    let mut hog = case.hog(&context.hog("").comm(COMM), &evil)?;
    kill_by_limit(&mut hog)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;
    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&evil, 1);
    checks.logged(&[hog.pid()]);
    checks.law(context);
    if let Some(event) = checks.only_event() {
        context
            .report
            .note(&format!("event hostile_names: {event}"));
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        let comm = event.text("victim.comm");
        checks.that(
            "victim.comm begins with a",
            comm.is_ok_and(|comm| comm.starts_with('a')),
        );
        let path = event.text("victim.cgroup_path");
        checks.that(
            "victim.cgroup_path holds the name",
            path.is_ok_and(|path| path.contains("/hostile/evil")),
        );
    }
    if !context.dry {
        let output = run_as_text(context, &evil)?;
        let text = String::from_utf8(output.bytes).context("text output is not UTF-8")?;
        context
            .report
            .note(&format!("text hostile_names: {text:?}"));
        checks.that("text output tells of the kill", !text.is_empty());
        let raw = text.chars().any(|c| c.is_control() && c != '\n');
        checks.that(&format!("no raw control character in {text:?}"), !raw);
        checks.that(
            "no line of the text output is made by the name",
            !text
                .lines()
                .any(|line| line.starts_with("\u{1b}") || line.starts_with("[31mb")),
        );
    }
    checks.finish("escaped in JSON and in text")
}

fn run_as_text(context: &Context, evil: &Cgroup) -> Result<Output> {
    let arguments = ["--discover", "none"];
    let daemon = Daemon::start_with_output(&context.oomwatch, "text", &arguments)?;
    let mut hog = Hog::spawn(&context.hog("").comm(COMM))?;
    evil.add(hog.pid())?;
    kill_by_limit(&mut hog)?;
    let pid = hog.pid().to_string();
    // If nothing comes, the output stays empty, and the check on it says so.
    let _ = daemon.wait_for_output(KILL_LIMIT, |output| {
        String::from_utf8_lossy(&output.bytes).contains(&pid)
    });
    daemon.stop()
}

fn kill_by_limit(hog: &mut Hog) -> Result<()> {
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)
}
