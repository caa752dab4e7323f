//! How soon after its start a kill would be seen, beside libbpf-tools' `oomkill` in the same
//! machine.
//!
//! From `exec` to the end of the system call that attaches, by the kernel's own trace. Addresses
//! are not randomised for either: an emulator translates code anew for each address that it runs
//! at, and would be what is measured. Nothing is said of which is quicker but in the report.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    guest::{context::Context, report::Outcome},
    kernel_trace::KernelTrace,
    wait::{wait_for_exit, wait_until},
};

const OOMKILL: &str = "/usr/sbin/oomkill";
/// The first of them warms up the caches.
const ROUNDS: usize = 7;
const LIMIT: Duration = Duration::from_secs(60);

/// `bpf()` and `ioctl()` of x86-64.
const CALLS: &str = "id == 321 || id == 16";
/// As the trace has them: `BPF_RAW_TRACEPOINT_OPEN`, of which the first is for `mark_victim`.
const RAW_TRACEPOINT_OPEN: &str = "NR 321 (11,";
/// `PERF_EVENT_IOC_ENABLE`, by which a kprobe is switched on.
const PERF_ENABLE: (&str, &str) = ("NR 16 (", ", 2400,");

/// Starts both in turn, and tells how long each took.
pub(super) fn attached_beside_oomkill(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    if !Path::new(OOMKILL).exists() {
        return Ok(Outcome::Skipped(format!("there is no {OOMKILL}")));
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let run = ["run", "--output", "none", "--discover", "none"];
        let attaches = |call: &str| call.starts_with(RAW_TRACEPOINT_OPEN);
        ours.push(measure(context.command(&run), attaches)?);
        let (begins, has) = PERF_ENABLE;
        let attaches = |call: &str| call.starts_with(begins) && call.contains(has);
        theirs.push(measure(Command::new(OOMKILL), attaches)?);
    }
    let seen = format!(
        "attached after: oomwatch {}, oomkill {}",
        in_short(&mut ours),
        in_short(&mut theirs)
    );
    Ok(Outcome::Passed(seen))
}

fn in_short(seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let ms = |at: usize| seconds.get(at).map_or(f64::NAN, |seconds| seconds * 1e3);
    format!("{:.0} ms, median {:.0} ms", ms(0), ms(seconds.len() / 2))
}

/// Seconds from a command's `exec` to the end of its first call that `attaches`.
fn measure(mut command: Command, attaches: impl Fn(&str) -> bool) -> Result<f64> {
    let trace = KernelTrace::of_calls(CALLS)?;
    // SAFETY: a system call, with no memory of this process in it.
    unsafe {
        command.pre_exec(
            || match libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            },
        );
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let what = format!("{command:?} attaching");
    let attached = wait_until(LIMIT, &what, || {
        let ended = child.try_wait().context("looking at the process")?;
        ensure!(ended.is_none(), "{command:?} ended: {ended:?}");
        Ok(seconds(&trace.lines()?, child.id(), &attaches))
    });
    end(&mut child)?;
    attached
}

fn end(child: &mut Child) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process id")?, Signal::INT).context("stopping a process")?;
    wait_for_exit(child, LIMIT, "a process that was interrupted").map(drop)
}

/// Seconds between two of these lines of a process: its `exec`, and the end of the call.
fn seconds(lines: &[String], pid: u32, attaches: impl Fn(&str) -> bool) -> Option<f64> {
    let task = format!("-{pid} ");
    let mut own = lines
        .iter()
        .filter(|line| line.contains(&task))
        .filter_map(|line| moment(line));
    // The one that starts a process is its own first `exec`.
    let (began, ..) = own.find(|(_, event, _)| *event == "sched_process_exec")?;
    own.find(|(_, event, call)| *event == "sys_enter" && attaches(call))?;
    let (ended, ..) = own.find(|(_, event, _)| *event == "sys_exit")?;
    Some(ended - began)
}

/// Time, name and text of an event: `comm-7 [000] ..... 3.250000: sys_exit: NR 321 = 5`.
fn moment(line: &str) -> Option<(f64, &str, &str)> {
    let (before, rest) = line.split_once(": ")?;
    let (_, time) = before.rsplit_once(' ')?;
    let (event, text) = rest.split_once(": ")?;
    Some((time.parse().ok()?, event, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_from_exec_to_the_end_of_the_call() {
        let lines = [
            "sh-8 [000] ..... 1.000000: sched_process_exec: filename=/bin/x pid=8 old_pid=8",
            "x-7 [000] ..... 1.500000: sched_process_exec: filename=/bin/x pid=7 old_pid=7",
            "x-7 [000] ..... 1.600000: sys_enter: NR 321 (0, 7ffc, 98, 3, 7f, 0)",
            "x-7 [000] ..... 1.610000: sys_exit: NR 321 = 9",
            "x-7 [001] ..... 1.700000: sys_enter: NR 321 (11, 7ffc, 98, 7, 55, 0)",
            "y-9 [001] ..... 1.710000: sys_exit: NR 321 = 0",
        ];
        let mut lines = lines.map(str::to_owned).to_vec();
        let attaches = |call: &str| call.starts_with(RAW_TRACEPOINT_OPEN);
        assert_eq!(seconds(&lines, 7, attaches), None);
        lines.push("x-7 [001] ..... 1.750000: sys_exit: NR 321 = 20".to_owned());
        assert_eq!(seconds(&lines, 7, attaches), Some(0.25));
    }
}
