//! Inside the virtual machine: set it up, run the scenarios, report, power off.
//!
//! The kernel command line chooses:
//!
//! | parameter | meaning |
//! |---|---|
//! | `oomwatch.filter=a,b` | only scenarios with `a` or `b` in their name |
//! | `oomwatch.dry=1` | without oomwatch, to see whether a kernel does to the counters what a scenario is built upon |
//! | `oomwatch.image=NAME` | go on from the root image on the disk, and run the scenarios for that |
//! | `oomwatch.rounds=N` | how often those do what is to be done often |

use std::{
    fs,
    path::{Path, PathBuf},
    process::abort,
};

use anyhow::{Context as _, Result};
use rustix::system::{RebootCommand, reboot};

mod boot;
mod case;
mod checks;
mod context;
mod findings;
mod handover;
mod law;
mod report;
mod runner;
mod scenarios;

use context::Context;
use report::Report;
use scenarios::Scenario;

/// Where there is no other number.
const ROUNDS: u32 = 3;

/// Runs everything and switches the machine off, or becomes the root image's init. Call it as
/// PID 1 only.
pub fn run_as_init() -> ! {
    let done = boot::mount_first().and_then(|()| {
        let command_line = command_line()?;
        match parameter(&command_line, "oomwatch.image") {
            Some(_) => handover::into_image().map(|never| match never {}),
            None => run_here(&command_line),
        }
    });
    tell(done);
    power_off()
}

/// Runs the scenarios of a root image, as a service in it, and switches the machine off. An error
/// on any other machine.
pub fn run_as_service() -> Result<()> {
    let command_line = command_line()?;
    let image = parameter(&command_line, "oomwatch.image")
        .context("this is no machine for tests: it would have to be powered off")?;
    tell(run_in_image(&command_line, image));
    power_off()
}

fn command_line() -> Result<String> {
    fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")
}

fn tell(done: Result<()>) {
    if let Err(error) = done {
        // There is no other way to tell anyone: the report itself may be what failed.
        println!("vm-guest: {error:#}");
    }
}

fn power_off() -> ! {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    // PID 1 must not return. The kernel panics, and `panic=-1` with `-no-reboot` ends the machine.
    abort()
}

fn run_here(command_line: &str) -> Result<()> {
    boot::mount_others()?;
    let set_up = || {
        boot::quieten()?;
        boot::hand_out_controllers()
    };
    run(
        command_line,
        Path::new("/bin/oomwatch"),
        scenarios::BARE,
        set_up,
    )
}

fn run_in_image(command_line: &str, image: &str) -> Result<()> {
    let scenarios = scenarios::runtimes::of_image(image)?;
    let oomwatch = Path::new(handover::LUGGAGE).join("oomwatch");
    run(command_line, &oomwatch, &scenarios, boot::quieten)
}

fn run(
    command_line: &str,
    oomwatch: &Path,
    scenarios: &[(&'static str, Scenario)],
    set_up: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let report = Report::open()?;
    report.keep_alive();
    let outcome = set_up().and_then(|()| {
        let context = context(command_line, oomwatch, &report)?;
        let kernel = rustix::system::uname();
        report.note(&format!("kernel {}", kernel.release().to_string_lossy()));
        let filter = parameter(command_line, "oomwatch.filter").unwrap_or_default();
        runner::run_all(&context, scenarios, filter);
        Ok(())
    });
    if let Err(error) = &outcome {
        report.note(&format!("the guest itself failed: {error:#}"));
    }
    report.done();
    outcome
}

fn context(command_line: &str, oomwatch: &Path, report: &Report) -> Result<Context> {
    let rounds = match parameter(command_line, "oomwatch.rounds") {
        Some(rounds) => rounds.parse().context("reading oomwatch.rounds")?,
        None => ROUNDS,
    };
    Ok(Context {
        oomwatch: oomwatch.to_owned(),
        program: std::env::current_exe().context("finding this program")?,
        cgroups: PathBuf::from("/sys/fs/cgroup"),
        dry: parameter(command_line, "oomwatch.dry").is_some_and(|value| value == "1"),
        rounds,
        scenario: "",
        report: report.clone(),
    })
}

fn parameter<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        let line = "console=ttyS0 oomwatch.filter=pod,group quiet\n";
        assert_eq!(parameter(line, "oomwatch.filter"), Some("pod,group"));
        assert_eq!(parameter(line, "filter"), None);
    }
}
