//! The memory controller is switched off and on: the counters begin again, under another key.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{Runs, container_in, state_dir, system_slice};
use crate::{
    cgroup::Cgroup,
    guest::{
        context::Context,
        report::Outcome,
        scenarios::{LIMIT_BYTES, pinned},
    },
};

/// What a daemon has that may know of a kill while it was down.
#[derive(Clone, Copy)]
struct Memory {
    pins: bool,
    stores: bool,
}

/// With nothing that goes on.
pub(in super::super) fn toggled(context: &Context) -> Result<Outcome> {
    between_kills(
        context,
        Memory {
            pins: false,
            stores: false,
        },
    )
}

/// With a history, which has the counters of before.
pub(in super::super) fn toggled_stored(context: &Context) -> Result<Outcome> {
    between_kills(
        context,
        Memory {
            pins: false,
            stores: true,
        },
    )
}

/// With programs that go on.
pub(in super::super) fn toggled_pinned(context: &Context) -> Result<Outcome> {
    between_kills(
        context,
        Memory {
            pins: true,
            stores: false,
        },
    )
}

/// With both.
pub(in super::super) fn toggled_pinned_stored(context: &Context) -> Result<Outcome> {
    between_kills(
        context,
        Memory {
            pins: true,
            stores: true,
        },
    )
}

/// Each time the counter is 1 again after the kill, as it was before. While a run watches, between two
/// runs, and before and after a kill that comes between two.
fn between_kills(context: &Context, memory: Memory) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let pin = Path::new("/sys/fs/bpf").join(context.scenario.replace('_', "-"));
    let state = state_dir(context);
    let arguments = arguments(memory, &pin, &state);
    let slice = system_slice(context)?;
    let (id, container) = container_in(&slice, 7200)?;

    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&arguments)?;
    runs.lose(&daemon, &container, Some(&id))?;
    toggle(&slice, &container)?;
    runs.lose(&daemon, &container, Some(&id))?;
    runs.stop(daemon)?;

    // Nothing died: what the counter lost is nothing to tell of.
    toggle(&slice, &container)?;
    let daemon = runs.start(&arguments)?;
    runs.lose(&daemon, &container, Some(&id))?;
    runs.stop(daemon)?;

    toggle(&slice, &container)?;
    match memory {
        Memory { pins: true, .. } => drop(runs.lose_unwatched(&container, Some(&id))?),
        Memory { stores: true, .. } => runs.lose_unseen(&container, Some(&id))?,
        Memory { .. } => runs.lose_unknown(&container)?,
    }
    let daemon = runs.start(&arguments)?;
    toggle(&slice, &container)?;
    runs.lose(&daemon, &container, Some(&id))?;
    runs.stop(daemon)?;
    if memory.pins {
        pinned::unpin(context, &pin)?;
    }
    let seen = "5 kills, over 3 runs and 4 counters that began again, each once";
    match memory.stores {
        true => runs.judge_history(&state, seen),
        false => runs.judge(seen),
    }
}

fn arguments(memory: Memory, pin: &Path, state: &PathBuf) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    if memory.pins {
        arguments.extend(["--pin".into(), pin.into()]);
    }
    if memory.stores {
        arguments.extend(["--state-dir".into(), state.into()]);
    }
    arguments
}

fn toggle(slice: &Cgroup, container: &Cgroup) -> Result<()> {
    slice.write("cgroup.subtree_control", "-memory")?;
    slice.enable_memory()?;
    container.limit_memory(LIMIT_BYTES)
}
