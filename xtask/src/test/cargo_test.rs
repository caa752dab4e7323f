//! Running `cargo test` and counting what it ran.
//!
//! The harness of Rust knows no "skipped at run time": such a test returns early and passes. So
//! by convention it also appends `name<TAB>reason` to the file that [`SKIP_LOG_ENV`] names, and
//! is counted here as skipped, not as passed.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    build, ebpf,
    paths::{self, Workspace},
    process,
    summary::Tally,
};

const SKIP_LOG_ENV: &str = "OOMWATCH_SKIP_LOG";

/// What the tests on this machine came to.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Skipped tests with their reasons, and what else a reader should know.
    pub(crate) remarks: Vec<String>,
}

/// Runs all tests of the host crates with the eBPF object in place.
pub(crate) fn run(workspace: &Workspace, object: &Path) -> Result<Outcome> {
    // Whole-program tests start the program, and `cargo test` does not build it for them: they are
    // in another package.
    build::for_host_tests(workspace, object)?;
    let skip_log = workspace.target.join("skipped-tests.tsv");
    paths::create_dir(&workspace.target)?;
    paths::write(&skip_log, "")?;
    let mut cargo = process::cargo();
    cargo
        .args(["test", "--workspace", "--exclude", "oomwatch-ebpf"])
        .args(["--locked", "--no-fail-fast"])
        .current_dir(&workspace.root)
        .env(ebpf::OBJECT_ENV, object)
        .env(SKIP_LOG_ENV, &skip_log);
    let (success, tally) = stream(&mut cargo)?;
    let skips = paths::read_if_present(&skip_log)?.unwrap_or_default();
    Ok(outcome(success, tally, &skips))
}

/// Runs cargo with its output on our terminal and adds up the result lines in it.
fn stream(cargo: &mut Command) -> Result<(bool, Tally)> {
    let shown = process::describe(cargo);
    eprintln!("+ {shown}");
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{shown}`"))?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("reading the output of `{shown}`"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(counted) = result_line(&line) {
            tally += counted;
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for `{shown}`"))?;
    Ok((status.success(), tally))
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        let field = counts.split(';').map(str::trim);
        let mut number = field.filter_map(|field| field.strip_suffix(word));
        number.next()?.trim().parse::<usize>().ok()
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

/// Moves the tests in the skip log from passed to skipped, and makes sure that a run that
/// failed as a whole (by not compiling, say) has at least one failure to show.
fn outcome(success: bool, mut tally: Tally, skip_log: &str) -> Outcome {
    let mut remarks = Vec::new();
    for line in skip_log.lines().filter(|line| !line.trim().is_empty()) {
        let (name, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
        remarks.push(format!("{name}: skipped: {reason}"));
    }
    if !success && tally.failed == 0 {
        tally += Tally::ONE_FAILED;
        remarks.push("cargo test failed before or between the tests, see above".to_owned());
    }
    Outcome { tally, remarks }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; \
                        7 filtered out; finished in 0.05s";

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        let tally = Tally {
            passed: 12,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(result_line(LINE), Some(tally));
        assert_eq!(result_line("test result::parse ... ok"), None);
        assert_eq!(result_line("running 3 tests"), None);
    }

    #[test]
    fn a_test_in_the_skip_log_is_skipped_and_not_passed() {
        let ran = Tally {
            passed: 3,
            failed: 0,
            skipped: 1,
        };
        let outcome = outcome(true, ran, "attach\tno tracefs here\n\n");
        assert_eq!(
            outcome.tally,
            Tally {
                passed: 2,
                failed: 0,
                skipped: 2
            }
        );
        assert_eq!(outcome.remarks, ["attach: skipped: no tracefs here"]);
    }

    #[test]
    fn a_run_that_does_not_compile_is_a_failure() {
        assert_eq!(
            outcome(false, Tally::default(), "").tally,
            Tally::ONE_FAILED
        );
    }
}
