//! Collecting the lines of a running program, so that a test can wait for one.

use std::{
    io::{BufRead, BufReader, Read},
    process::Child,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::totals::{self, ContainerTotals, Stopped, Summary};
use crate::event::Event;

/// What a program has written so far.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Standard output, untouched.
    pub bytes: Vec<u8>,
    /// Events among its lines, in order.
    pub events: Vec<Event>,
    /// Lines that are JSON but not events.
    pub other: Vec<Value>,
    /// Lines that are not JSON at all.
    pub malformed: Vec<String>,
    /// Lines of standard error.
    pub errors: Vec<String>,
    /// The numbers of each container, from the last of them.
    pub totals: Vec<ContainerTotals>,
    /// The numbers of the whole node.
    pub stopped: Option<Stopped>,
}

impl Output {
    fn take_error(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        match totals::parse(&text) {
            Some(Summary::Container(own)) => self.totals.push(own),
            Some(Summary::Stopped(stopped)) => self.stopped = Some(stopped),
            None => {}
        }
        self.errors.push(text);
    }

    fn take_line(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        match serde_json::from_slice::<Value>(line) {
            Ok(value) => match Event::from_json(&value) {
                Some(event) => self.events.push(event),
                None => self.other.push(value),
            },
            Err(_) => self
                .malformed
                .push(String::from_utf8_lossy(line).into_owned()),
        }
    }
}

/// Shared between the reading threads and the test.
#[derive(Clone, Debug, Default)]
pub(super) struct Collector(Arc<(Mutex<Output>, Condvar)>);

impl Collector {
    /// What there is now.
    pub(super) fn snapshot(&self) -> Output {
        let output = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.clone()
    }

    /// Waits until `wanted` finds something in the output.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        wanted: impl Fn(&Output) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let (output, changed) = &*self.0;
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = wanted(&output) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = changed.wait_timeout(output, left);
            output = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Output)) {
        let (output, changed) = &*self.0;
        change(&mut output.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}

/// Starts reading both pipes of a program; its stderr may be somebody else's.
pub(super) fn collect(child: &mut Child, collector: &Collector) -> Result<Vec<JoinHandle<()>>> {
    let stdout = child.stdout.take().context("no standard output")?;
    let (lines, errors) = (collector.clone(), collector.clone());
    let mut readers = vec![thread::spawn(move || {
        each_line(stdout, |line| {
            lines.change(|output| output.take_line(line));
        });
    })];
    if let Some(stderr) = child.stderr.take() {
        readers.push(thread::spawn(move || {
            each_line(stderr, |line| {
                errors.change(|output| output.take_error(line));
            });
        }));
    }
    Ok(readers)
}

fn each_line(pipe: impl Read, mut take: impl FnMut(&[u8])) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    // An error is the end as well: the program is gone.
    while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        take(&line);
        line.clear();
    }
}
