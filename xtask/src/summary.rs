//! The numbers at the end of a run: a table of steps and one line of totals.
//!
//! Only tests are counted. A step that is not a set of tests (a build, a lint) counts when it
//! fails, as one failure: so "N passed" never includes a build.

use std::{
    fmt::{self, Write as _},
    ops::AddAssign,
    time::Duration,
};

/// What a check that may lack a tool came to, unless it failed.
pub(crate) enum Checked {
    Passed,
    /// Why not. It is counted, and never taken for a pass.
    NotRun(String),
}

/// Tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// What could not run here: never counted as passed.
    pub(crate) skipped: usize,
}

impl Tally {
    /// A single failure: of a step that is not a test.
    pub(crate) const ONE_FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// A single thing that did not run.
    pub(crate) const ONE_SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// One line of the table.
struct Row {
    step: String,
    tally: Tally,
    /// `None` for a step that was not reached.
    took: Option<Duration>,
}

/// The table of a run.
#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
    /// Failures and skips worth a line of their own below the table.
    remarks: Vec<String>,
}

impl Summary {
    /// Adds a step that ran.
    pub(crate) fn add(&mut self, step: impl Into<String>, tally: Tally, took: Duration) {
        self.rows.push(Row {
            step: step.into(),
            tally,
            took: Some(took),
        });
    }

    /// Adds a step that did not run; `tally` tells what is missing by that.
    pub(crate) fn add_not_run(&mut self, step: impl Into<String>, tally: Tally) {
        self.rows.push(Row {
            step: step.into(),
            tally,
            took: None,
        });
    }

    /// Adds a line for below the table.
    pub(crate) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// All tests together.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::default();
        for row in &self.rows {
            total += row.tally;
        }
        total
    }

    /// Prints the table, the remarks and, as the very last line, the totals. Tells whether all
    /// is well.
    pub(crate) fn print(&self) -> bool {
        let total = self.total();
        println!("\n{self}{total}");
        total.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.step.len()).max();
        let width = width.unwrap_or_default().max("step".len());
        writeln!(f, "{:width$}  passed  failed  skipped  seconds", "step")?;
        for Row { step, tally, took } in &self.rows {
            let Tally {
                passed,
                failed,
                skipped,
            } = tally;
            let mut seconds = String::new();
            match took {
                Some(took) => write!(seconds, "{:.1}", took.as_secs_f64())?,
                None => seconds.push_str("not run"),
            }
            writeln!(
                f,
                "{step:width$}  {passed:>6}  {failed:>6}  {skipped:>7}  {seconds:>7}"
            )?;
        }
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_and_table_lines_up() {
        let mut summary = Summary::default();
        let tests = Tally {
            passed: 12,
            failed: 0,
            skipped: 3,
        };
        summary.add("tests", tests, Duration::from_millis(1500));
        summary.add("clippy", Tally::ONE_FAILED, Duration::from_secs(10));
        summary.add_not_run("kernel 6.1", Tally::ONE_SKIPPED);
        assert_eq!(
            summary.total().to_string(),
            "12 passed, 1 failed, 4 skipped"
        );
        let table = summary.to_string();
        let widths: Vec<_> = table.trim_end().lines().map(str::len).collect();
        assert_eq!(widths, [44, 44, 44, 44], "{table}");
        assert!(!summary.print());
    }
}
