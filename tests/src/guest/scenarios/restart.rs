//! Daemons that are killed and started again, and their store.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{LIMIT_BYTES, registering};
use crate::{
    cgroup::Cgroup,
    daemon::Daemon,
    event::Event,
    guest::{
        case::{KILL_LIMIT, vmstat},
        context::Context,
        law::Law,
        report::Outcome,
    },
    wait::wait_until,
};

const HOG: &str = "restart-hog";
pub(super) const ONLY_APP: &[&str] = &["--container", "app"];

/// Kills while no daemon runs come out once, and the history adds up to what the kernel counted.
pub(super) fn while_down(context: &Context) -> Result<Outcome> {
    restarted(context, &[])
}

/// The same without BPF, where all that is known of a kill is that a counter rose.
pub(super) fn while_down_counters(context: &Context) -> Result<Outcome> {
    restarted(context, &["--tier", "counters"])
}

fn restarted(context: &Context, options: &[&str]) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = &Path::new("/run").join(context.scenario);
    let app = context.cgroup(context.scenario)?;
    app.limit_memory(LIMIT_BYTES)?;
    let (before, node) = (app.events()?, vmstat()?);
    let mut homes = BTreeMap::new();
    let mut lose = || -> Result<()> {
        homes.insert(context.lose_a_process(HOG, &app)?, "app".to_owned());
        Ok(())
    };
    let mut arguments = arguments(state, &app);
    arguments.extend(options.iter().map(OsString::from));
    let is_seen = |event: &Event| event.field("while_down").is_ok_and(|down| down == false);

    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    lose()?;
    daemon.wait_for_event(KILL_LIMIT, "of the first run", is_seen)?;
    wait_until(KILL_LIMIT, "the kill in the history", || {
        Ok((context.history(state, ONLY_APP)?.len() == 1).then_some(()))
    })?;
    // Dropped: SIGKILL.
    drop(daemon);
    lose()?;
    lose()?;

    let daemon = Daemon::start(&context.oomwatch, &arguments)?;
    let missed = daemon.wait_for_event(KILL_LIMIT, "of the time between", |event| {
        event.kind().is_ok_and(|kind| kind == "counter_only")
    })?;
    lose()?;
    daemon.wait_for_event(KILL_LIMIT, "of the second run", is_seen)?;
    let second = daemon.stop()?;
    ensure!(second.events.len() == 2, "{:?}", second.events);
    ensure!(missed.count()? == 2, "{missed}");
    ensure!(
        missed.field("while_down")? == &Value::Bool(true),
        "{missed}"
    );
    ensure!(missed.container_id()?.as_deref() == Some("app"), "{missed}");

    // Nothing happened since: a third run has nothing to say.
    let third = Daemon::start(&context.oomwatch, &arguments)?.stop()?;
    ensure!(third.events.is_empty(), "said again: {:?}", third.events);

    let events = context.history(state, ONLY_APP)?;
    let told: u64 = events.iter().map(Event::count).sum::<Result<u64>>()?;
    let rise = app.events()?.rise(&before, "oom_kill");
    let rise = u64::try_from(rise.context("no oom_kill")?)?;
    ensure!(
        told == rise && rise == 4,
        "{told} in the history, {rise} counted"
    );
    let node = vmstat()?.rise(&node, "oom_kill").context("no oom_kill")?;
    let law = Law::of_history(i64::try_from(rise)?, node, &homes, &events)?;
    context.report.law(context.scenario, &law);
    ensure!(law.holds(), "{law:?}");
    Ok(Outcome::Passed(format!(
        "{rise} kills over three runs, each once"
    )))
}

/// A damaged store is moved aside, and one that cannot be is done without; kills are reported.
pub(super) fn store_in_trouble(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = Path::new("/run/oomwatch-in-trouble");
    std::fs::create_dir_all(state)?;
    std::fs::write(state.join("oomwatch.db"), "no database".repeat(1000))?;
    let app = context.cgroup("troubled")?;
    app.limit_memory(LIMIT_BYTES)?;

    let arguments = arguments(state, &app);
    let first = Daemon::start(&context.oomwatch, &arguments)?;
    // Two daemons on one directory: the second one does without.
    let second = Daemon::start(&context.oomwatch, &arguments)?;
    context.lose_a_process(HOG, &app)?;
    for daemon in [&first, &second] {
        daemon.wait_for_event(KILL_LIMIT, "in spite of its store", Event::is_kill)?;
    }
    let (first, second) = (first.stop()?, second.stop()?);
    let said = |errors: &[String], what: &str| errors.iter().any(|line| line.contains(what));
    ensure!(said(&first.errors, "moved it aside"), "{:?}", first.errors);
    ensure!(
        said(&second.errors, "without history"),
        "{:?}",
        second.errors
    );
    ensure!(
        context.history(state, ONLY_APP)?.len() == 1,
        "the new store has the kill once"
    );
    Ok(Outcome::Passed("moved aside; done without".to_owned()))
}

pub(super) fn arguments(state: &Path, app: &Cgroup) -> Vec<OsString> {
    let mut arguments = registering(&[("app", app)]);
    arguments.extend(["--state-dir".into(), state.into()]);
    arguments
}
