//! The report that leaves the machine: one JSON object per line on the second serial port.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::law::Law;

const PORT: &str = "/dev/ttyS1";

/// The host takes a machine for dead that gives none for many times this.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All its checks held. The text says in a few words what was seen.
    Passed(String),
    /// It could not run here, for this reason.
    Skipped(String),
}

/// Writes the report. Clones write to the same place.
#[derive(Clone, Debug)]
pub(super) struct Report(Arc<Mutex<File>>);

impl Report {
    /// Opens the serial port.
    pub(super) fn open() -> Result<Self> {
        let port = OpenOptions::new().write(true).open(PORT);
        let port = port.with_context(|| format!("opening {PORT}"))?;
        Ok(Self(Arc::new(Mutex::new(port))))
    }

    /// A remark for the reader of the report.
    pub(super) fn note(&self, text: &str) {
        self.line(&json!({ "note": text }));
    }

    /// The numbers of one scenario.
    pub(super) fn law(&self, scenario: &str, law: &Law) {
        self.line(&json!({ "scenario": scenario, "law": law }));
    }

    /// A scenario begins.
    pub(super) fn start(&self, name: &str) {
        self.line(&json!({ "start": name }));
    }

    /// Says every few seconds, for as long as the machine runs, that it does.
    pub(super) fn keep_alive(&self) {
        let report = self.clone();
        let boot = Instant::now();
        thread::spawn(move || {
            loop {
                report.line(&json!({ "alive": boot.elapsed().as_secs() }));
                thread::sleep(SIGN_OF_LIFE);
            }
        });
    }

    /// The result of one scenario.
    pub(super) fn test(&self, name: &str, outcome: &Result<Outcome>, took: Duration) {
        let (word, detail) = match outcome {
            Ok(Outcome::Passed(detail)) => ("passed", detail.clone()),
            Ok(Outcome::Skipped(reason)) => ("skipped", reason.clone()),
            Err(error) => ("failed", format!("{error:#}")),
        };
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.line(&json!({
            "test": name, "outcome": word, "duration_ms": took_ms, "detail": detail,
        }));
    }

    /// The last line: without it the report was cut short.
    pub(super) fn done(&self) {
        self.line(&json!({ "done": true }));
    }

    fn line(&self, value: &Value) {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One write per line, so that lines stay whole. There is nowhere to report a failure to.
        let _ = port.write_all(format!("{value}\n").as_bytes());
        let _ = port.flush();
    }
}
