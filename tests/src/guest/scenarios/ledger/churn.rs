//! Kills beside cgroups that come and go in thousands, which any user with a delegated one can have.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::chown,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rusqlite::Connection;
use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{HOG, Runs, state_dir, system_slice};
use crate::{
    cgroup::Cgroup,
    guest::{
        context::Context,
        report::Outcome,
        scenarios::{SMALL_LIMIT_BYTES, SMALL_TOO_MUCH_BYTES, hex_id},
    },
    hog::Hog,
    wait::wait_until,
};

const NOBODY: u32 = 65534;
/// So many of a round, one in each.
const CONTAINERS: u64 = 20;
const ROUNDS: usize = 5;
/// Removals while the database is busy: more than any queue has room for.
const REMOVALS: u64 = 3000;
const CHURN_LIMIT: Duration = Duration::from_secs(60);

/// A hundred kills while an ordinary user makes and removes cgroups, and while the database is busy for a time:
/// all are in the history.
pub(in super::super) fn storm_of_cgroups(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = state_dir(context);
    let mut arguments: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    arguments.extend(["--state-dir".into(), state.clone().into()]);
    let slice = system_slice(context)?;
    let mut containers = Vec::new();
    for number in 7500..7500 + CONTAINERS {
        let id = hex_id(number);
        let cgroup = slice.child(format!("docker-{id}.scope"))?;
        cgroup.limit_memory(SMALL_LIMIT_BYTES)?;
        containers.push((id, cgroup));
    }
    let delegated = context.cgroup("user.slice")?;
    chown(delegated.path(), Some(NOBODY), Some(NOBODY)).context("delegating a cgroup")?;

    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&arguments)?;
    let (over, removals) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let user = scope.spawn(|| churn(delegated.path(), &over, &removals));
        let done = kills(context, &mut runs, &containers, &state, &removals);
        over.store(true, Ordering::Relaxed);
        let churned = user.join().map_err(|_| anyhow!("the user panicked"))?;
        done.and(churned)
    })?;
    runs.wait_for_history(&state);
    runs.stop(daemon)?;
    let seen = format!(
        "{} kills beside {} cgroups that came and went, each once in the history",
        runs.deaths.len(),
        removals.into_inner()
    );
    runs.judge_history(&state, &seen)
}

/// Rounds of kills; the database is somebody else's in the midst of them.
fn kills(
    context: &Context,
    runs: &mut Runs<'_>,
    containers: &[(String, Cgroup)],
    state: &Path,
    removals: &AtomicU64,
) -> Result<()> {
    let mut hog = Hog::spawn(&context.hog(HOG))?;
    round(runs, &mut hog, containers)?;
    let database = Connection::open(state.join("oomwatch.db")).context("opening the database")?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.execute_batch("BEGIN IMMEDIATE")?;
    let before = removals.load(Ordering::Relaxed);
    round(runs, &mut hog, containers)?;
    wait_until(CHURN_LIMIT, "cgroups that come and go", || {
        let now = removals.load(Ordering::Relaxed);
        Ok((now - before >= REMOVALS).then_some(()))
    })?;
    round(runs, &mut hog, containers)?;
    database.execute_batch("ROLLBACK")?;
    for _ in 3..ROUNDS {
        round(runs, &mut hog, containers)?;
    }
    Ok(())
}

/// One process dies in each container, all at the same time.
fn round(runs: &mut Runs<'_>, hog: &mut Hog, containers: &[(String, Cgroup)]) -> Result<()> {
    let born = hog.brood(u32::try_from(containers.len())?, SMALL_TOO_MUCH_BYTES)?;
    for (pid, (_, cgroup)) in born.iter().zip(containers) {
        cgroup.add(*pid)?;
    }
    let killed = hog.release()?;
    ensure!(killed == born, "{born:?} started, {killed:?} killed");
    for (pid, (id, _)) in born.iter().zip(containers) {
        runs.died(&[*pid], Some(id));
    }
    Ok(())
}

/// What a user does, in a thread that has no more rights than one.
fn churn(delegated: &Path, over: &AtomicBool, removals: &AtomicU64) -> Result<()> {
    let (nobody, nogroup) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[]).context("leaving all groups")?;
    set_thread_res_gid(nogroup, nogroup, nogroup).context("becoming an ordinary user")?;
    set_thread_res_uid(nobody, nobody, nobody).context("becoming an ordinary user")?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let path = delegated.join(format!("docker-{number:064x}.scope"));
        fs::create_dir(&path).context("making a cgroup as a user")?;
        fs::remove_dir(&path).context("removing a cgroup as a user")?;
        number = removals.fetch_add(1, Ordering::Relaxed) + 1;
    }
    Ok(())
}
