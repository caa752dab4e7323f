//! What the guest says on its second serial line: one JSON object per line.
//!
//! | line | meaning |
//! |---|---|
//! | `{"note":"…"}` | text to print |
//! | `{"test":"…","outcome":"passed\|failed\|skipped","duration_ms":1,"detail":"…"}` | a scenario |
//! | `{"scenario":"…","law":{…}}` | its numbers, see [`Law`]: a row of the table at the end |
//! | `{"start":"…"}` | a scenario begins |
//! | `{"alive":12}` | seconds since the boot: the machine runs, whatever the scenario does |
//! | `{"done":true}` | the last line: without it, the guest has crashed |
//!
//! Pure: takes lines, gives text to print and a report.

use std::fmt;

use serde::Deserialize;

use crate::summary::Tally;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// One scenario's result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Scenario {
    #[serde(rename = "test")]
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    #[serde(default)]
    duration_ms: u64,
    /// Why it failed or was skipped.
    #[serde(default)]
    pub(crate) detail: String,
}

impl Scenario {
    /// One line for the end of the run; the whole detail was printed when it came.
    pub(crate) fn in_short(&self) -> String {
        let text = self.to_string();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        if lines.next().is_none() {
            return first;
        }
        first + " [more above]"
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            outcome,
            duration_ms,
            detail,
        } = self;
        write!(f, "{outcome:<7} {name} ({duration_ms} ms)")?;
        if detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {detail}")
    }
}

/// The conservation law in numbers: what the kernel counted beside what was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Law {
    /// Rise of `oom_kill`, all registered containers together.
    pub(crate) truth: i64,
    /// Rise of `oom_kill` in `/proc/vmstat`.
    pub(crate) node: i64,
    /// Processes that the kernel logged as killed; `None` where its log was not complete.
    pub(crate) log: Option<i64>,
    pub(crate) kills: i64,
    pub(crate) counter_only: i64,
    pub(crate) double_counts: i64,
    pub(crate) already_exiting: i64,
    /// What is not explained. The scenario fails where it is not 0.
    pub(crate) residual: i64,
    /// Processes in the wrong container. The same.
    pub(crate) misattributed: i64,
}

/// Whose numbers they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct LawOf {
    pub(crate) scenario: String,
    pub(crate) law: Law,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Line {
    Scenario(Scenario),
    Law(LawOf),
    Note { note: String },
    Start { start: String },
    Alive { alive: u64 },
    Done { done: bool },
}

/// What one line means for the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// A line about this guest.
    Text(String),
    Nothing,
}

/// The results of one guest, as they come in.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) laws: Vec<LawOf>,
    pub(crate) done: bool,
    /// What began last, and when the guest was last alive, in seconds since its boot.
    last: Option<String>,
    alive_s: u64,
}

impl Report {
    /// Takes in one line, which may end in `\r` and may be noise of the firmware.
    pub(crate) fn accept(&mut self, line: &str) -> Show {
        let line = line.trim();
        if line.is_empty() {
            return Show::Nothing;
        }
        match serde_json::from_str(line) {
            Ok(Line::Scenario(scenario)) => {
                let text = scenario.to_string();
                self.scenarios.push(scenario);
                Show::Text(text)
            }
            Ok(Line::Law(law)) => {
                self.laws.push(law);
                Show::Nothing
            }
            Ok(Line::Note { note }) => Show::Text(format!("note: {note}")),
            Ok(Line::Start { start }) => {
                self.last = Some(start);
                Show::Nothing
            }
            Ok(Line::Alive { alive }) => {
                self.alive_s = alive;
                Show::Nothing
            }
            Ok(Line::Done { done }) => {
                self.done = done;
                Show::Nothing
            }
            Err(_) => Show::Text(format!("\x1b[2m{line}\x1b[0m")),
        }
    }

    /// Whether the guest never reached its end, for no fault of a scenario. To be asked after
    /// [`Self::finish`], which adds the failure to boot.
    pub(crate) fn ended_early(&self) -> bool {
        let failed = |scenario: &&Scenario| scenario.outcome == Outcome::Failed;
        !self.done && self.scenarios.iter().filter(failed).count() == 1
    }

    /// Closes the report: a guest that did not reach its end, or ran nothing, has failed.
    pub(crate) fn finish(&mut self, ending: &str) {
        let detail = if !self.done {
            let during = self.last.as_deref().unwrap_or("its start");
            format!(
                "the guest did not reach its end: {ending}, in {during}, last alive {} s after its boot",
                self.alive_s
            )
        } else if self.scenarios.is_empty() {
            "the guest ran no scenario; does the filter match one?".to_owned()
        } else {
            return;
        };
        self.scenarios.push(Scenario {
            name: "boot".to_owned(),
            outcome: Outcome::Failed,
            duration_ms: 0,
            detail,
        });
    }

    /// The scenarios that did not pass.
    pub(crate) fn remarkable(&self) -> impl Iterator<Item = &Scenario> {
        let scenarios = self.scenarios.iter();
        scenarios.filter(|it| it.outcome != Outcome::Passed)
    }

    /// The numbers of scenarios by outcome.
    pub(crate) fn tally(&self) -> Tally {
        let count = |outcome| {
            let scenarios = self.scenarios.iter();
            scenarios.filter(|it| it.outcome == outcome).count()
        };
        Tally {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = r#"{"test":"single_kill","outcome":"passed","duration_ms":12}"#;

    #[test]
    fn a_whole_run_is_counted_and_shown() {
        let mut report = Report::default();
        assert_eq!(report.accept("\r\n"), Show::Nothing);
        assert_eq!(
            report.accept("{\"note\":\"hi\"}\r"),
            Show::Text("note: hi".into())
        );
        let shown = Show::Text("passed  single_kill (12 ms)".into());
        assert_eq!(report.accept(PASSED), shown);
        report.accept(r#"{"test":"b","outcome":"failed","detail":"no event"}"#);
        report.accept(r#"{"test":"c","outcome":"skipped","duration_ms":0,"detail":"no v2"}"#);
        assert_eq!(report.accept(r#"{"alive":7}"#), Show::Nothing);
        let law = r#"{"scenario":"b","law":{"truth":4,"node":4,"log":3,"kills":3,"counter_only":0,
            "double_counts":1,"already_exiting":0,"residual":0,"misattributed":0}}"#;
        assert_eq!(report.accept(law), Show::Nothing);
        assert_eq!(report.laws.first().map(|of| of.law.double_counts), Some(1));
        report.accept(r#"{"done":true}"#);
        report.finish("powered off");
        let tally = Tally {
            passed: 1,
            failed: 1,
            skipped: 1,
        };
        assert_eq!(report.tally(), tally);
    }

    #[test]
    fn a_long_detail_is_cut_to_its_first_line() {
        let mut report = Report::default();
        report.accept(r#"{"test":"b","outcome":"failed","detail":"no event\nseen: 3"}"#);
        let short = report.remarkable().next().unwrap().in_short();
        assert_eq!(short, "FAILED  b (0 ms): no event [more above]");
    }

    #[test]
    fn noise_is_shown_and_not_counted() {
        let mut report = Report::default();
        let noise = report.accept("SeaBIOS {broken");
        assert!(matches!(noise, Show::Text(text) if text.contains("SeaBIOS")));
        assert!(report.scenarios.is_empty());
    }

    #[test]
    fn a_guest_without_done_failed_to_boot() {
        let mut report = Report::default();
        report.accept(PASSED);
        report.accept(r#"{"start":"group_kill"}"#);
        report.accept(r#"{"alive":12}"#);
        report.finish("time limit");
        let boot = report.scenarios.last().unwrap();
        assert!(
            boot.detail
                .ends_with("in group_kill, last alive 12 s after its boot")
        );
        assert_eq!(
            (boot.name.as_str(), boot.outcome),
            ("boot", Outcome::Failed)
        );
        assert!(boot.detail.contains("time limit"));
    }

    #[test]
    fn a_guest_that_ran_nothing_is_not_green() {
        let mut report = Report::default();
        report.accept(r#"{"done":true}"#);
        report.finish("powered off");
        assert_eq!(report.tally().failed, 1);
    }
}
