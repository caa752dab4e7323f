//! The log's queue and the thread that empties it.
//!
//! Adding a line never waits for the writer. Knows neither a line's content nor its destination.

use std::{
    collections::VecDeque,
    io::Write,
    os::fd::AsFd,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::cli::stream::write_whole;

/// Lines that wait.
const MAX_LINES: usize = 1024;
/// Bytes of the waiting lines together. Paths of cgroups may be long, and others choose them.
const MAX_BYTES: usize = 1 << 20;
/// Least time between two notices of dropped lines while more lines wait. A slow reader should not read only notices.
const NOTICE_PAUSE: Duration = Duration::from_secs(1);
/// How long the end waits for a reader.
const END_LIMIT: Duration = Duration::from_secs(1);
/// How long the end then waits for the newest lines alone.
const LAST_LIMIT: Duration = Duration::from_millis(100);
/// Number of those newest lines.
const LAST_LINES: usize = 8;

/// The next item to write.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Line(Vec<u8>),
    /// The number of lines dropped since the last notice.
    Dropped(u64),
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// Dropped lines that wait for the next line before their notice. A stderr that takes nothing is not tried again
    /// and again.
    unwritten: u64,
    said: Option<Instant>,
    /// A line was taken, and is being written.
    writing: bool,
}

impl Waiting {
    fn push(&mut self, line: Vec<u8>) {
        if self.lines.len() < MAX_LINES && self.bytes.saturating_add(line.len()) <= MAX_BYTES {
            self.push_last(line);
        } else {
            self.dropped += 1;
        }
    }

    /// Adds a line in any case: there is always room for the reason of the end.
    fn push_last(&mut self, line: Vec<u8>) {
        self.dropped += std::mem::take(&mut self.unwritten);
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn next(&mut self, now: Instant) -> Option<Next> {
        let rested = |said| now.duration_since(said) >= NOTICE_PAUSE;
        if self.dropped > 0 && (self.lines.is_empty() || self.said.is_none_or(rested)) {
            self.said = Some(now);
            return Some(Next::Dropped(std::mem::take(&mut self.dropped)));
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(Next::Line(line))
    }

    /// Drops all but the newest lines.
    fn cut(&mut self) {
        let old = self.lines.len().saturating_sub(LAST_LINES);
        self.bytes -= self
            .lines
            .drain(..old)
            .map(|line| line.len())
            .sum::<usize>();
        self.dropped += old as u64;
        self.said = None;
    }

    fn is_busy(&self) -> bool {
        self.writing || self.dropped > 0 || !self.lines.is_empty()
    }
}

/// Between those who log and the thread that writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
}

impl Queue {
    /// Adds a line, or drops it where there is no room.
    pub(super) fn push(&self, line: Vec<u8>) {
        self.lock().push(line);
        self.filled.notify_one();
    }

    /// Adds a line in any case, for the reason why the command ends.
    pub(super) fn push_last(&self, line: Vec<u8>) {
        self.lock().push_last(line);
        self.filled.notify_one();
    }

    /// Waits until all is written, in bounded time.
    pub(super) fn finish(&self) {
        if !self.wait_emptied(END_LIMIT) {
            self.lock().cut();
            self.wait_emptied(LAST_LIMIT);
        }
    }

    fn wait_emptied(&self, limit: Duration) -> bool {
        let busy = |waiting: &mut Waiting| waiting.is_busy();
        let waited = self.emptied.wait_timeout_while(self.lock(), limit, busy);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    /// Waits for the next item to write.
    fn next(&self) -> Next {
        let mut waiting = self.lock();
        loop {
            let next = waiting.next(Instant::now());
            waiting.writing = next.is_some();
            if let Some(next) = next {
                return next;
            }
            self.emptied.notify_all();
            let woken = self.filled.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No holder of the lock can panic halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the lines as they come, for as long as the process lives. `notice` makes the line for a number of dropped
/// ones.
pub(super) fn write(queue: &Queue, mut stream: impl Write + AsFd, notice: impl Fn(u64) -> Vec<u8>) {
    loop {
        let (line, worth) = match queue.next() {
            Next::Line(line) => (line, 1),
            Next::Dropped(lines) => (notice(lines), lines),
        };
        if write_whole(&mut stream, &line).is_err() {
            queue.lock().unwritten += worth;
        }
    }
}

#[cfg(test)]
mod tests;
