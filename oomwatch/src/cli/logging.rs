//! Logs on stderr, never on stdout, by a thread of their own.
//!
//! A stderr that nobody reads delays neither events nor the end. A line without room is dropped, and the log counts
//! dropped lines. Nothing else may write to stderr while a command runs, because that would wait for the reader.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    fmt::Display,
    io::{self, Write, stderr},
    panic::{self, PanicHookInfo},
    sync::Arc,
    thread,
};

use tracing::{error, level_filters::LevelFilter, warn};
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::{Color, LogFormat};

mod queue;

use queue::Queue;

/// The log's end. Dropping it writes the waiting lines, or gives up after about 1 s.
#[must_use]
pub(crate) struct Log(Arc<Queue>);

impl Log {
    /// Prints a message to the user, as it is.
    pub(crate) fn say(&self, message: impl Display) {
        self.0.push_last(format!("{message}\n").into_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Sets up the log. `RUST_LOG` filters it by level and module (`info,oomwatch_ebpf=debug`); the default is `info`.
/// Filters by span or field are left out: they need regular expressions, which cost time at every start.
///
/// # Errors
/// When no thread can be made.
pub(crate) fn init(format: LogFormat, color: Color) -> io::Result<Log> {
    let (filter, complaint) = filter(std::env::var("RUST_LOG").ok().as_deref());
    let queue = Arc::new(Queue::default());
    start(Arc::clone(&queue))?;
    let lines = Arc::clone(&queue);
    let log = fmt::layer()
        .with_writer(move || Line(Arc::clone(&lines)))
        .with_ansi(color.applies_to(&stderr()));
    let log = match format {
        LogFormat::Text => log.with_target(false).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .init();
    panic::set_hook(Box::new(log_panic));
    if let Some(complaint) = complaint {
        warn!("{complaint}");
    }
    Ok(Log(queue))
}

/// The filter of the log. An unreadable setting is not followed, and gives a complaint.
fn filter(setting: Option<&str>) -> (Targets, Option<String>) {
    let default = Targets::new().with_default(LevelFilter::INFO);
    let (filter, complaint) = match setting.map(str::parse::<Targets>) {
        None => (default, None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (
            default,
            Some(format!(
                "RUST_LOG is not understood and not followed: {error}"
            )),
        ),
    };
    // A panic and dropped lines are logged in any case.
    (
        filter.with_target(module_path!(), LevelFilter::WARN),
        complaint,
    )
}

#[cfg(feature = "probe-log")]
/// Whether the log shows the eBPF programs' own log (`RUST_LOG=oomwatch_ebpf=debug`). Otherwise they are loaded
/// without one.
#[must_use]
pub(crate) fn wants_probe_log() -> bool {
    tracing::enabled!(target: "oomwatch_ebpf", tracing::Level::DEBUG)
}

fn start(queue: Arc<Queue>) -> io::Result<()> {
    thread::Builder::new()
        .name("oomwatch-log".into())
        .spawn(move || queue::write(&queue, stderr(), notice))?;
    Ok(())
}

/// The default hook writes to stderr, where it may wait for ever.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(
        thread = thread::current().name(),
        location = panic.location().map(ToString::to_string),
        reason = panic.payload_as_str(),
        backtrace,
        "a thread panicked"
    );
}

thread_local! {
    /// The log's own thread writes its line itself: the queue may be full.
    static NOTICE: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// A line of the log with the number of missing lines.
fn notice(dropped: u64) -> Vec<u8> {
    NOTICE.set(Some(Vec::new()));
    warn!(
        dropped,
        "stderr was not read in time: log lines were dropped"
    );
    NOTICE.take().unwrap_or_default()
}

/// Where a line of the log goes. It is written with one call.
struct Line(Arc<Queue>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        NOTICE.with_borrow_mut(|notice| match notice {
            Some(notice) => notice.extend_from_slice(line),
            None => self.0.push(line.to_vec()),
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_and_dropped_lines_are_said_whatever_the_filter() {
        for setting in [None, Some("off"), Some("oomwatch_ebpf=debug"), Some("?=?")] {
            let (filter, _) = filter(setting);
            assert!(
                filter.would_enable(module_path!(), &tracing::Level::WARN),
                "{setting:?}"
            );
        }
        let (filter, _) = filter(Some("oomwatch=error"));
        assert!(!filter.would_enable("oomwatch::cli::run", &tracing::Level::WARN));
    }
}
