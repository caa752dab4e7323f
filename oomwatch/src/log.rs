//! Log lines that somebody else can cause, limited to [`MAX_LINES`] a minute at each place in the
//! code.
//!
//! A user who makes cgroups, or a runtime that lists nonsense, fills no log with it. The log counts the lines that it
//! leaves out. The next line from that place, or [`say_left_out`], reports their number. Stands before `tracing`, so
//! that it holds for whoever embeds the library; installs and formats nothing.

use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tracing::Level;

/// Most lines that one place logs in [`WINDOW_S`].
const MAX_LINES: u32 = 10;
const WINDOW_S: u32 = 60;

/// As [`tracing::warn!`], limited. `left_out` is how many such lines are missing before this one.
macro_rules! limited_warn {
    ($($arg:tt)+) => { $crate::log::limited!(WARN, warn, $($arg)+) };
}

/// As [`tracing::info!`], limited likewise.
macro_rules! limited_info {
    ($($arg:tt)+) => { $crate::log::limited!(INFO, info, $($arg)+) };
}

macro_rules! limited {
    ($level:ident, $log:ident, $($arg:tt)+) => {{
        static PLACE: $crate::log::Place =
            $crate::log::Place::new(file!(), line!(), ::tracing::Level::$level);
        // A line whose level is off is not counted either.
        if ::tracing::enabled!(::tracing::Level::$level)
            && let Some(left_out) = PLACE.admit()
        {
            ::tracing::$log!(left_out = left_out.get(), $($arg)+);
        }
    }};
}

// `warn` itself is the name of an attribute.
pub(crate) use limited;
pub(crate) use limited_info as info;
pub(crate) use limited_warn as warn;

/// The places that have left lines out.
static PLACES: Mutex<Vec<&'static Place>> = Mutex::new(Vec::new());

/// Logs for each place how many of its lines were left out since it last logged. Call it now and then, and at the
/// end: a place may not log again.
pub(crate) fn say_left_out() {
    let places = PLACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for place in places {
        if let Some(left_out) = place.take_left_out().get() {
            place.say(left_out);
        }
    }
}

/// How many lines were left out; `None` adds no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl LeftOut {
    pub(crate) fn get(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

/// A place in the code that logs.
#[derive(Debug)]
pub(crate) struct Place {
    file: &'static str,
    line: u32,
    level: Level,
    window: AtomicU64,
    left_out: AtomicU64,
    is_listed: AtomicBool,
}

impl Place {
    pub(crate) const fn new(file: &'static str, line: u32, level: Level) -> Self {
        Self {
            file,
            line,
            level,
            window: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            is_listed: AtomicBool::new(false),
        }
    }

    /// Lets a line through, or counts it as left out.
    pub(crate) fn admit(&'static self) -> Option<LeftOut> {
        self.admit_at(seconds())
    }

    fn admit_at(&'static self, now_s: u32) -> Option<LeftOut> {
        let admit = |window| Some(Window::unpack(window).admit(now_s)?.pack());
        if self.window.fetch_update(Relaxed, Relaxed, admit).is_ok() {
            return Some(self.take_left_out());
        }
        self.left_out.fetch_add(1, Relaxed);
        if !self.is_listed.swap(true, Relaxed) {
            PLACES
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self);
        }
        None
    }

    fn take_left_out(&self) -> LeftOut {
        LeftOut(self.left_out.swap(0, Relaxed))
    }

    fn say(&self, left_out: u64) {
        let place = format_args!("{}:{}", self.file, self.line);
        if self.level == Level::INFO {
            tracing::info!(%place, left_out, "log lines of one kind were left out");
        } else {
            tracing::warn!(%place, left_out, "log lines of one kind were left out");
        }
    }
}

/// The lines of a place since a second of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    since_s: u32,
    lines: u32,
}

impl Window {
    /// With one more line; `None` if that is one too many.
    fn admit(self, now_s: u32) -> Option<Self> {
        if self.lines == 0 || now_s.saturating_sub(self.since_s) >= WINDOW_S {
            return Some(Self {
                since_s: now_s,
                lines: 1,
            });
        }
        let lines = self.lines + 1;
        (lines <= MAX_LINES).then_some(Self { lines, ..self })
    }

    fn pack(self) -> u64 {
        u64::from(self.since_s) << 32 | u64::from(self.lines)
    }

    fn unpack(packed: u64) -> Self {
        Self {
            since_s: (packed >> 32) as u32,
            lines: packed as u32,
        }
    }
}

/// Since the first line that is limited.
fn seconds() -> u32 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u32::try_from(FIRST.elapsed().as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
