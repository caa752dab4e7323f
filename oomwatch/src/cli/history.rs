//! `oomwatch history`: events of the past, from the store. Needs no daemon and does not talk to one.

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write, stdout},
    ops::ControlFlow,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use oomwatch::{History, HistoryEntry, HistoryFilter};

use super::{HistoryArgs, HistoryOutput, StoreArgs, exit::Exit, output};

/// Default state directory of a daemon.
const DEFAULT_STATE_DIR: &str = "/var/lib/oomwatch";

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
    let mut stream = BufWriter::new(stdout().lock());
    let mut written = Ok(());
    history.each(&filter(args), |entry| {
        written = write_entry(&mut stream, &entry, form);
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    output::written(written.and_then(|()| stream.flush()))
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
