//! Kills in a child of a container, which the lesser tiers see in the container's counter alone.

use std::{ffi::OsString, path::Path};

use anyhow::{Context as _, Result};

use super::{Runs, state_dir, tell};
use crate::{
    cgroup::Cgroup,
    daemon::Daemon,
    guest::{
        context::Context,
        report::Outcome,
        scenarios::{LIMIT_BYTES, registering},
    },
};

/// A container, and its child with the memory controller.
fn family(context: &Context) -> Result<(Cgroup, Cgroup)> {
    let container = context.cgroup(context.scenario)?;
    container.enable_memory()?;
    let child = container.child("child")?;
    child.limit_memory(LIMIT_BYTES)?;
    Ok((container, child))
}

fn arguments(tier: &str, state: &Path, container: &Cgroup) -> Vec<OsString> {
    let mut arguments = registering(&[("app", container)]);
    arguments.extend(["--tier".into(), tier.into()]);
    arguments.extend(["--state-dir".into(), state.into()]);
    arguments
}

/// Runs of tier `pid`, one after another.
pub(in super::super) fn child_pid(context: &Context) -> Result<Outcome> {
    over_runs(context, &["pid", "pid", "pid"])
}

/// Runs of tier `counters`.
pub(in super::super) fn child_counters(context: &Context) -> Result<Outcome> {
    over_runs(context, &["counters", "counters", "counters"])
}

/// A host that has BTF for one run, and has it again.
pub(in super::super) fn child_tiers(context: &Context) -> Result<Outcome> {
    over_runs(context, &["ebpf", "pid", "ebpf", "counters", "ebpf"])
}

/// Two kills in each run, and none between: what one run told is nothing new to the next, in whichever tier.
fn over_runs(context: &Context, tiers: &[&str]) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = state_dir(context);
    let (container, child) = family(context)?;
    let mut runs = Runs::begin(context)?;
    for tier in tiers {
        let daemon = runs.start(&arguments(tier, &state, &container))?;
        for _ in 0..2 {
            lose(&mut runs, &daemon, tier, &child)?;
        }
        runs.wait_for_history(&state);
        runs.stop(daemon)?;
    }
    let last = runs.start(&arguments(
        tiers.first().copied().unwrap_or("ebpf"),
        &state,
        &container,
    ))?;
    runs.stop(last)?;
    runs.judge_history(&state, "2 kills in a child in each run, each once")
}

fn lose(runs: &mut Runs<'_>, daemon: &Daemon, tier: &str, child: &Cgroup) -> Result<()> {
    if tier == "counters" {
        return runs.lose_unseen(child, Some("app"));
    }
    runs.lose(daemon, child, Some("app"))
}

/// The child is registered itself, between kills there, in tier `pid`.
pub(in super::super) fn child_added(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let control = "/run/oomwatch-ledger-child";
    let (container, child) = family(context)?;
    let path = child.path().to_str().context("the path is no UTF-8")?;
    let mut arguments = registering(&[("app", &container)]);
    arguments.extend(["--tier".into(), "pid".into()]);
    arguments.extend(["--control".into(), control.into()]);

    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&arguments)?;
    runs.lose(&daemon, &child, Some("app"))?;
    tell(context, control, &["add", "child", path])?;
    runs.lose(&daemon, &child, Some("child"))?;
    tell(context, control, &["remove", "child"])?;
    runs.lose(&daemon, &child, Some("app"))?;
    tell(context, control, &["add", "child", path])?;
    runs.lose(&daemon, &child, Some("child"))?;
    runs.stop(daemon)?;
    runs.judge("2 kills of the container and 2 of its child, each once")
}
