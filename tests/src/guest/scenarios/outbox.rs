//! A publisher whose other end is away while kills happen and while the daemon is killed: a journald
//! that is played here.

use std::{ffi::OsString, io::ErrorKind, os::unix::net::UnixDatagram, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{LIMIT_BYTES, registering};
use crate::{
    daemon::Daemon,
    event::Event,
    guest::{case::KILL_LIMIT, context::Context, report::Outcome},
    wait::wait_until,
};

const HOG: &str = "outbox-hog";
const ONLY_APP: &[&str] = &["--container", "app"];
const SOCKET: &str = "/run/systemd/journal/socket";
const EVENT_ID: &str = "OOMWATCH_EVENT_ID=";
const MOST_BYTES: usize = 65536;

/// What the journal missed it gets from the next daemon, all of it and in order.
pub(super) fn missed_by_a_publisher(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = Path::new("/run/oomwatch-outbox");
    let app = context.cgroup("outbox")?;
    app.limit_memory(LIMIT_BYTES)?;
    let mut arguments: Vec<OsString> = registering(&[("app", &app)]);
    arguments.extend(["--publish".into(), "journald".into()]);
    arguments.extend(["--state-dir".into(), state.into()]);

    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    for kill in 1..=2 {
        context.lose_a_process(HOG, &app)?;
        ensure!(daemon.wait_for_kills(KILL_LIMIT, kill), "kill {kill}");
    }
    wait_until(KILL_LIMIT, "both kills in the history", || {
        Ok((context.history(state, ONLY_APP)?.len() == 2).then_some(()))
    })?;
    // Dropped: SIGKILL.
    drop(daemon);
    context.lose_a_process(HOG, &app)?;

    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    context.lose_a_process(HOG, &app)?;
    daemon.wait_for_event(KILL_LIMIT, "of the second run", Event::is_kill)?;
    let socket = Path::new(SOCKET);
    std::fs::create_dir_all(socket.parent().context("no directory")?)?;
    let journald = UnixDatagram::bind(socket).with_context(|| format!("binding {SOCKET}"))?;
    journald.set_nonblocking(true)?;
    let mut ids = Vec::new();
    wait_until(KILL_LIMIT, "four events in the journal", || {
        ids.extend(received(&journald)?);
        Ok((ids.len() >= 4).then_some(()))
    })?;
    daemon.stop()?;
    ids.extend(received(&journald)?);
    std::fs::remove_file(socket)?;

    let history = context.history(state, ONLY_APP)?;
    let stored: Vec<String> = history
        .iter()
        .map(|event| event.text("id"))
        .collect::<Result<_>>()?;
    ensure!(ids == stored, "published {ids:?}, stored {stored:?}");
    let rest = Daemon::start(&context.oomwatch, &arguments)?.stop()?;
    ensure!(rest.events.is_empty(), "said again: {:?}", rest.events);
    Ok(Outcome::Passed(format!(
        "{} events over two runs, each once and in order",
        ids.len()
    )))
}

/// The ids of the events that came since.
fn received(journald: &UnixDatagram) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut entry = vec![0; MOST_BYTES];
    loop {
        match journald.recv(&mut entry) {
            Ok(length) => {
                let text = String::from_utf8_lossy(entry.get(..length).unwrap_or_default());
                let id = text.lines().find_map(|line| line.strip_prefix(EVENT_ID));
                ids.push(id.context("an entry without an id")?.to_owned());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(ids),
            Err(error) => return Err(error).context("receiving an entry"),
        }
    }
}
