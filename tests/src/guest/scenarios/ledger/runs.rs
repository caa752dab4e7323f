//! Kills that one run tells of, another one has a record of, and a third one only counts.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Runs, container_in, history, state_dir, system_slice};
use crate::{
    event::Event,
    guest::{context::Context, report::Outcome, scenarios::pinned},
};

/// A run without pins between two with them: its kills are in the pinned ring too, which the next one reads.
pub(in super::super) fn pinned_between(context: &Context) -> Result<Outcome> {
    without_pins_between(context, false)
}

/// The same with a run that would have them, and finds what is not ours where they are.
pub(in super::super) fn pinned_fallback(context: &Context) -> Result<Outcome> {
    without_pins_between(context, true)
}

fn without_pins_between(context: &Context, falls_back: bool) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = &Path::new("/sys/fs/bpf").join(context.scenario.replace('_', "-"));
    let foreign = pin.join("foreign");
    let state = state_dir(context);
    let mut unpinned: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    unpinned.extend(["--state-dir".into(), state.clone().into()]);
    let mut pinning = unpinned.clone();
    pinning.extend(["--pin".into(), pin.into()]);
    let slice = system_slice(context)?;
    let (id, container) = container_in(&slice, 7300)?;

    let mut runs = Runs::begin(context)?;
    let first = runs.start(&pinning)?;
    runs.lose(&first, &container, Some(&id))?;
    runs.stop(first)?;

    // The next run does not read the ring that has it.
    runs.lose_unseen(&container, Some(&id))?;
    let second = match falls_back {
        true => {
            fs::create_dir(&foreign)?;
            runs.start(&pinning)?
        }
        false => runs.start(&unpinned)?,
    };
    runs.lose(&second, &container, Some(&id))?;
    runs.stop(second)?;
    if falls_back {
        fs::remove_dir(&foreign)?;
    }

    // And the next one does.
    runs.lose_unwatched(&container, Some(&id))?;
    let third = runs.start(&pinning)?;
    runs.lose(&third, &container, Some(&id))?;
    runs.stop(third)?;
    let fourth = runs.start(&pinning)?;
    runs.stop(fourth)?;
    pinned::unpin(context, pin)?;
    runs.judge_history(
        &state,
        "5 kills over runs with pins, without, and with, each once",
    )
}

/// Kills between two runs in a container that lives and in one that is removed before the second: all are
/// told as of that time, those of the one that lives as its own, and a third run knows of nothing more.
pub(in super::super) fn removed_while_down(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = state_dir(context);
    let mut arguments: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    arguments.extend(["--state-dir".into(), state.clone().into()]);
    let slice = system_slice(context)?;
    let (living, lives) = container_in(&slice, 7310)?;
    let (going, goes) = container_in(&slice, 7311)?;

    let mut runs = Runs::begin(context)?;
    let first = runs.start(&arguments)?;
    // What was told of one that is gone later is not told again.
    runs.lose(&first, &lives, Some(&living))?;
    runs.lose(&first, &goes, Some(&going))?;
    runs.stop(first)?;
    for _ in 0..2 {
        runs.lose_unseen(&lives, Some(&living))?;
    }
    // Of those its parent's counter is all that is left, and nobody knows whose they were.
    for _ in 0..2 {
        runs.lose_unseen(&goes, None)?;
    }
    goes.remove_emptied()?;

    let second = runs.start(&arguments)?;
    runs.stop(second)?;
    let missed = |event: &&Event| event.kind().is_ok_and(|kind| kind == "counter_only");
    let told: Vec<Event> = runs.told.iter().filter(missed).cloned().collect();
    for event in &told {
        let down = event
            .field("while_down")
            .is_ok_and(|down| down == &Value::Bool(true));
        runs.that(&format!("of the time without a run: {event}"), down);
    }
    let stored = history(context, &state)?.len();
    let third = runs.start(&arguments)?;
    runs.stop(third)?;
    let last = runs.stopped.last().context("no run")?;
    let said = last.kills + last.counter_only + last.double_counts;
    runs.that(
        &format!("a third run has nothing to say: {said}"),
        said == 0,
    );
    let now = history(context, &state)?.len();
    runs.that(
        &format!("nothing is added to {stored}: {now}"),
        now == stored,
    );
    runs.judge_history(&state, "6 kills, 4 of them while none ran, each once")
}
