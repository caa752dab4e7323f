//! `oomwatch history`: events of the past, from the store. Needs no daemon and does not talk to one.

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write, stderr, stdout},
    ops::ControlFlow,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use oomwatch::{History, HistoryEntry, HistoryFilter, printable};

use super::{HistoryArgs, HistoryOutput, StoreArgs, exit::Exit, output};

/// Default state directory of a daemon.
const DEFAULT_STATE_DIR: &str = "/var/lib/oomwatch";

/// Keys that a warning names.
const NAMED_KEYS: usize = 8;

/// The state directory that the service manager made. The first, if it made several.
fn service_state_dir() -> Option<PathBuf> {
    let dirs = std::env::var_os("STATE_DIRECTORY")?;
    let first = dirs.as_bytes().split(|&byte| byte == b':').next()?;
    (!first.is_empty()).then(|| OsString::from_vec(first.to_vec()).into())
}

/// The state directory of a daemon, if it has one.
pub(crate) fn kept_in(args: &StoreArgs) -> Option<PathBuf> {
    args.state_dir.clone().or_else(service_state_dir)
}

/// Prints the wanted events, the oldest first.
///
/// # Errors
/// When there is no history, it cannot be read, or stdout fails in another way than by being
/// closed.
pub(crate) fn history(args: HistoryArgs) -> anyhow::Result<Exit> {
    let dir = args.state_dir.clone().or_else(service_state_dir);
    let history = History::open(dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()))?;
    let form = args.output;
    let filter = filter(args);
    warn_of_several(&history, &filter)?;
    let mut stream = BufWriter::new(stdout().lock());
    let mut written = Ok(());
    history.each(&filter, |entry| {
        written = write_entry(&mut stream, &entry, form);
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    output::written(written.and_then(|()| stream.flush()))
}

/// Names on stderr the containers that one word means: their events are mixed.
fn warn_of_several(history: &History, filter: &HistoryFilter) -> anyhow::Result<()> {
    let Some(word) = &filter.container else {
        return Ok(());
    };
    let keys = history.keys(filter, NAMED_KEYS + 1)?;
    if keys.len() > 1 {
        let more = if keys.len() > NAMED_KEYS { ", ..." } else { "" };
        let named: Vec<_> = keys.iter().take(NAMED_KEYS).map(String::as_str).collect();
        let _ = writeln!(
            stderr(),
            "oomwatch: several containers are called {}, and these are the events of all: name one of {}{more}",
            printable(word.as_bytes()),
            printable(named.join(", ").as_bytes()),
        );
    }
    Ok(())
}

fn filter(args: HistoryArgs) -> HistoryFilter {
    let mut filter = HistoryFilter::default();
    filter.since_unix_time_ns = args.since;
    filter.container = args.container;
    filter.pod = args.pod;
    filter.namespace = args.namespace;
    filter.limit = args.limit;
    filter
}

fn write_entry(
    stream: &mut impl Write,
    entry: &HistoryEntry,
    output: HistoryOutput,
) -> io::Result<()> {
    match output {
        HistoryOutput::Text => writeln!(stream, "{}", entry.text),
        HistoryOutput::Json => writeln!(stream, "{}", entry.json),
    }
}
