//! Inside the virtual machine: set it up, run the scenarios, report, power off.
//!
//! The kernel command line chooses: `oomwatch.filter=a,b` runs only scenarios with `a` or `b` in
//! their name; `oomwatch.dry=1` runs them without oomwatch, to see whether a kernel does to the
//! counters what a scenario is built upon.

use std::fs;
use std::path::PathBuf;
use std::process::abort;

use anyhow::{Context as _, Result};
use rustix::system::{RebootCommand, reboot};

mod boot;
mod case;
mod checks;
mod context;
mod findings;
mod law;
mod report;
mod runner;
mod scenarios;

use context::Context;
use report::Report;

/// Runs everything and switches the machine off. Call it as PID 1 only.
pub fn run_as_init() -> ! {
    if let Err(error) = run() {
        // There is no other way to tell anyone: the report itself may be what failed.
        println!("vm-guest: {error:#}");
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    // PID 1 must not return. The kernel panics, and `panic=-1` with `-no-reboot` ends the machine.
    abort()
}

fn run() -> Result<()> {
    boot::mount_file_systems()?;
    let report = Report::open()?;
    report.keep_alive();
    let outcome = run_scenarios(&report);
    if let Err(error) = &outcome {
        report.note(&format!("the guest itself failed: {error:#}"));
    }
    report.done();
    outcome
}

fn run_scenarios(report: &Report) -> Result<()> {
    boot::settle()?;
    let command_line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let context = Context {
        oomwatch: PathBuf::from("/bin/oomwatch"),
        program: std::env::current_exe().context("finding this program")?,
        cgroups: PathBuf::from("/sys/fs/cgroup"),
        dry: parameter(&command_line, "oomwatch.dry").is_some_and(|value| value == "1"),
        scenario: "",
        report: report.clone(),
    };
    let kernel = rustix::system::uname();
    report.note(&format!("kernel {}", kernel.release().to_string_lossy()));
    let filter = parameter(&command_line, "oomwatch.filter").unwrap_or_default();
    runner::run_all(&context, filter);
    Ok(())
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
