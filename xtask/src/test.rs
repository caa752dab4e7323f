//! `cargo xtask test`: every check there is, in one go, ending with one line of totals.
//!
//! Formatting, lints and the kernel side's build are gates: what comes after one that fails is
//! listed as not run. After the gates everything runs, so that one report shows all failures.

mod cargo_test;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    build, ebpf, lint,
    paths::Workspace,
    setup,
    summary::{Checked, Summary, Tally},
    vm,
    vm::{Plan, Scenarios},
};

const TESTS: &str = "tests on this machine";
const BUILD: &str = "build for the machines";

/// Runs it all and prints the summary. Tells whether nothing failed.
pub(crate) fn run(workspace: &Workspace, no_vm: bool) -> Result<bool> {
    let mut summary = Summary::default();
    let object = gates(workspace, &mut summary);
    match object {
        Some(object) => {
            host_tests(workspace, &object, &mut summary);
            if no_vm {
                machines_not_run(&mut summary, "left out by --no-vm");
            } else {
                machines(workspace, &object, &mut summary);
            }
        }
        None => {
            summary.add_not_run(TESTS, Tally::default());
            machines_not_run(&mut summary, "an earlier step failed");
        }
    }
    Ok(summary.print())
}

/// The steps without which nothing else makes sense; gives the eBPF object.
fn gates(workspace: &Workspace, summary: &mut Summary) -> Option<PathBuf> {
    step(summary, "setup", || setup::for_checks(workspace))?;
    for (name, check) in lint::GATES {
        gate(summary, name, || check(workspace))?;
    }
    step(summary, "build of the kernel side", || {
        ebpf::build(workspace)
    })
}

/// Runs one check; one that cannot run here counts as skipped, and does not stop the others.
fn gate(summary: &mut Summary, name: &str, check: impl FnOnce() -> Result<Checked>) -> Option<()> {
    println!("\n== {name}");
    let started = Instant::now();
    match check() {
        Ok(Checked::Passed) => summary.add(name, Tally::default(), started.elapsed()),
        Ok(Checked::NotRun(why)) => {
            println!("not run: {why}");
            summary.add_not_run(name, Tally::ONE_SKIPPED);
            summary.remark(format!("{name}: skipped: {why}"));
        }
        Err(error) => {
            fail(summary, name, &error, started.elapsed());
            return None;
        }
    }
    Some(())
}

/// Runs one step that is not a set of tests; `None` when it failed.
fn step<T>(summary: &mut Summary, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
    println!("\n== {name}");
    let started = Instant::now();
    match work() {
        Ok(value) => {
            summary.add(name, Tally::default(), started.elapsed());
            Some(value)
        }
        Err(error) => {
            fail(summary, name, &error, started.elapsed());
            None
        }
    }
}

fn fail(summary: &mut Summary, name: &str, error: &anyhow::Error, took: Duration) {
    eprintln!("{name}: {error:#}");
    summary.add(name, Tally::ONE_FAILED, took);
    summary.remark(format!("{name}: {error:#}"));
}

fn host_tests(workspace: &Workspace, object: &Path, summary: &mut Summary) {
    println!("\n== {TESTS}");
    // Without it some are skipped, and say so.
    if let Err(error) = setup::for_host_tests(workspace) {
        summary.remark(format!("tools of some tests are missing: {error:#}"));
    }
    let started = Instant::now();
    match cargo_test::run(workspace, object) {
        Ok(outcome) => {
            summary.add(TESTS, outcome.tally, started.elapsed());
            for remark in outcome.remarks {
                summary.remark(remark);
            }
        }
        Err(error) => fail(summary, TESTS, &error, started.elapsed()),
    }
}

fn machines(workspace: &Workspace, object: &Path, summary: &mut Summary) {
    let built = step(summary, BUILD, || build::for_vm(workspace, object));
    let set_up = built.and_then(|()| {
        step(summary, "setup of the machines", || {
            setup::for_vm(workspace)
        })
    });
    if set_up.is_none() {
        machines_not_run(summary, "an earlier step failed");
        return;
    }
    println!("\n== virtual machines");
    let started = Instant::now();
    let scenarios = Scenarios::default();
    if let Err(error) = vm::test(workspace, Plan::all(), &scenarios, summary) {
        fail(summary, "virtual machines", &error, started.elapsed());
    }
}

/// A machine that is not run is not passed over in silence: it counts as one skipped test.
fn machines_not_run(summary: &mut Summary, why: &str) {
    for row in Plan::all().rows() {
        summary.add_not_run(&row, Tally::ONE_SKIPPED);
        summary.remark(format!("{row}: skipped: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_cannot_run_is_counted_and_stops_nothing() {
        let mut summary = Summary::default();
        let not_run = || Ok(Checked::NotRun("no tool".to_owned()));
        assert!(gate(&mut summary, "licences", not_run).is_some());
        assert_eq!(summary.total(), Tally::ONE_SKIPPED);
        let table = summary.to_string();
        assert!(table.contains("licences: skipped: no tool"), "{table}");
    }

    #[test]
    fn a_check_that_fails_stops_the_rest() {
        let mut summary = Summary::default();
        let failed = || anyhow::bail!("two versions");
        assert!(gate(&mut summary, "bans", failed).is_none());
        assert_eq!(summary.total(), Tally::ONE_FAILED);
    }
}
