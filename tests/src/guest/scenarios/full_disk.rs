//! A disk that is full: what is reported then, what is stored later, and what is taken again from a
//! pinned ring when the daemon dies meanwhile.

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::{
    LIMIT_BYTES, pinned,
    restart::{ONLY_APP, arguments},
};
use crate::{
    cgroup::Cgroup,
    daemon::{Daemon, Output},
    event::Event,
    guest::{case::KILL_LIMIT, context::Context, report::Outcome},
    wait::wait_until,
};

const HOG: &str = "full-disk-hog";
/// Far more than fill what is allocated to an empty store.
const MOST_KILLS: usize = 100;

/// While the disk is full kills are reported all the same, and stored as soon as there is room.
pub(super) fn stored_later(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let disk = Disk::mount(context)?;
    let app = context.cgroup(context.scenario)?;
    app.limit_memory(LIMIT_BYTES)?;
    let daemon = Daemon::start(&context.oomwatch, &arguments(&disk.state, &app))?;
    let kills = disk.lose_until_full(context, &daemon, &app)?;
    disk.make_room()?;
    disk.wait_for_history(context, kills)?;
    let output = daemon.stop()?;
    ensure!(output.events.len() == kills, "{:?}", output.events);
    disk.unmount()?;
    Ok(Outcome::Passed(format!(
        "{kills} kills, reported and stored"
    )))
}

/// The daemon dies with kills that it reported and could not store. Its ring is pinned: the next one tells
/// exactly those once more, in full and under their ids.
pub(super) fn taken_again(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = Path::new("/sys/fs/bpf/oomwatch-taken-again");
    let disk = Disk::mount(context)?;
    let app = context.cgroup(context.scenario)?;
    app.limit_memory(LIMIT_BYTES)?;
    let mut arguments = arguments(&disk.state, &app);
    arguments.extend(["--pin".into(), pin.into()]);

    let first = Daemon::start(&context.oomwatch, &arguments)?;
    let kills = disk.lose_until_full(context, &first, &app)?;
    let first = first.kill()?;
    let stored = ids(&context.history(&disk.state, ONLY_APP)?)?;
    disk.make_room()?;
    let lost = kills - stored.len();
    ensure!(lost > 0, "all of {kills} were stored");

    let second = Daemon::start(&context.oomwatch, &arguments)?;
    ensure!(second.wait_for_kills(KILL_LIMIT, lost), "{lost} again");
    context.lose_a_process(HOG, &app)?;
    ensure!(second.wait_for_kills(KILL_LIMIT, lost + 1), "a new one");
    let second = second.stop()?;
    let again = second.events.get(..lost).context("fewer than reported")?;
    let told_before = ids(&first.events)?;
    let expected: BTreeSet<String> = told_before.difference(&stored).cloned().collect();
    ensure!(ids(again)? == expected, "{again:?}, and not {expected:?}");
    for event in again {
        ensure!(event.is_kill(), "{event}");
        ensure!(event.field("while_down")? == &Value::Bool(true), "{event}");
        ensure!(
            event.number_or_null("victim.anon_rss_bytes")?.is_some(),
            "{event}"
        );
    }
    let history = context.history(&disk.state, ONLY_APP)?;
    ensure!(history.len() == kills + 1, "{} stored", history.len());
    ensure!(
        ids(&history)?.len() == kills + 1,
        "stored twice: {history:?}"
    );
    pinned::unpin(context, pin)?;
    disk.unmount()?;
    Ok(Outcome::Passed(format!(
        "{kills} kills, {lost} of them told again after kill -9, each stored once"
    )))
}

fn ids(events: &[Event]) -> Result<BTreeSet<String>> {
    events.iter().map(|event| event.text("id")).collect()
}

/// A small disk with the state directory, and a file that can take all that is left of it.
struct Disk {
    state: PathBuf,
    filler: PathBuf,
}

impl Disk {
    fn mount(context: &Context) -> Result<Self> {
        let state = Path::new("/run").join(context.scenario);
        fs::create_dir_all(&state)?;
        let options = Some(c"size=512k");
        mount("tmpfs", &state, "tmpfs", MountFlags::empty(), options)
            .context("mounting a tmpfs")?;
        let filler = state.join("filler");
        Ok(Self { state, filler })
    }

    /// Fills it once something is stored, and loses processes until the daemon says so; returns how many
    /// were reported, of which not all are stored.
    fn lose_until_full(&self, context: &Context, daemon: &Daemon, app: &Cgroup) -> Result<usize> {
        let mut kills = 0;
        let mut lose = || {
            context.lose_a_process(HOG, app)?;
            kills += 1;
            ensure!(daemon.wait_for_kills(KILL_LIMIT, kills), "kill {kills}");
            Ok(kills)
        };
        self.wait_for_history(context, lose()?)?;
        fill(&self.filler)?;
        let says_so = |output: &Output| output.errors.iter().any(|line| line.contains("for now"));
        // What is allocated to the store's files already takes some.
        while !daemon.wait_for_output(Duration::ZERO, says_so) {
            ensure!(lose()? < MOST_KILLS, "nothing said of the full disk");
        }
        let kills = lose()?;
        let stored = context.history(&self.state, ONLY_APP)?.len();
        ensure!(stored < kills, "the disk was full");
        Ok(kills)
    }

    fn make_room(&self) -> Result<()> {
        fs::remove_file(&self.filler).context("emptying the disk")
    }

    fn wait_for_history(&self, context: &Context, kills: usize) -> Result<()> {
        wait_until(KILL_LIMIT, "all kills in the history", || {
            let stored = context.history(&self.state, ONLY_APP)?.len();
            Ok((stored == kills).then_some(()))
        })
    }

    fn unmount(self) -> Result<()> {
        unmount(&self.state, UnmountFlags::empty()).context("unmounting the tmpfs")
    }
}

/// Takes all that is left of a disk.
fn fill(path: &Path) -> Result<()> {
    let mut file = fs::File::create(path)?;
    loop {
        match file.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("filling the disk"),
        }
    }
}
