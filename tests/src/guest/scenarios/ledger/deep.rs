//! Deeper than a record's chain of cgroups reaches, which is 16 links.

use anyhow::{Context as _, Result};

use super::{Runs, ask, listed};
use crate::{
    cgroup::Cgroup,
    guest::{case::KILL_LIMIT, context::Context, report::Outcome, scenarios::hex_id},
    hog::MIB,
    wait::wait_until,
};

const LIMIT_BYTES: u64 = 20 * MIB;
/// With 15 the container is the chain's last link.
const DEPTHS: [usize; 3] = [16, 17, 20];
/// So many between two containers, and one in the inner: the outer is the first that no chain reaches.
const BETWEEN: usize = 14;

/// A kill far below its container, and the removal of it all: one kill, and the container's own.
pub(in super::super) fn chain(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let control = "/run/oomwatch-ledger-deep";
    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&["--discover", "cgroup", "--control", control])?;
    let mut containers = Vec::new();
    for (depth, number) in DEPTHS.into_iter().zip(7100..) {
        let (id, container) = container(context, number)?;
        container.limit_memory(LIMIT_BYTES)?;
        let nest = Nest::below(&container, depth)?;
        runs.lose(&daemon, nest.deepest()?, Some(&id))?;
        containers.push((id, container, nest));
    }
    let list = ask(context, control, &["list"])?;
    let mut ids = Vec::new();
    for ((id, container, nest), depth) in containers.into_iter().zip(DEPTHS) {
        let says = listed(&list, &id)?;
        let what = format!("the list has 1 kill, none counted, at depth {depth}: {says:?}");
        runs.that(&what, says == (Some(1), Some(0)));
        nest.remove()?;
        container.remove_emptied()?;
        ids.push(id);
    }
    let status = once_all_are_gone(context, control)?;
    let number = |key| status.get(key).and_then(serde_json::Value::as_u64);
    let says = (number("kills"), number("counter_only"));
    runs.that(
        &format!("the status has 3 kills: {says:?}"),
        says == (Some(3), Some(0)),
    );
    runs.stop(daemon)?;
    check_totals(&mut runs, &ids, 1);
    runs.judge("kills 16, 17 and 20 levels below their containers, each once")
}

/// A container 16 levels above another's victims has nothing to tell of them.
pub(in super::super) fn outer(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let control = "/run/oomwatch-ledger-outer";
    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&["--discover", "cgroup", "--control", control])?;
    let (_, outer) = container(context, 7110)?;
    let nest = Nest::below(&outer, BETWEEN)?;
    nest.deepest()?.enable_memory()?;
    let id = hex_id(7111);
    let inner = nest.deepest()?.child(format!("docker-{id}.scope"))?;
    inner.limit_memory(LIMIT_BYTES)?;
    inner.enable_memory()?;
    let last = inner.child("last")?;
    for _ in 0..2 {
        runs.lose(&daemon, &last, Some(&id))?;
    }
    let says = listed(&ask(context, control, &["list"])?, &id)?;
    let what = format!("the list has 2 kills of the inner, none counted: {says:?}");
    runs.that(&what, says == (Some(2), Some(0)));
    last.remove_emptied()?;
    inner.remove_emptied()?;
    nest.remove()?;
    outer.remove_emptied()?;
    once_all_are_gone(context, control)?;
    runs.stop(daemon)?;
    check_totals(&mut runs, &[id], 2);
    runs.judge("2 kills of the inner container, and nothing of the outer")
}

fn container(context: &Context, number: u64) -> Result<(String, Cgroup)> {
    let id = hex_id(number);
    let container = context.cgroup(&format!("docker-{id}.scope"))?;
    Ok((id, container))
}

/// The status, as soon as no container is left.
fn once_all_are_gone(context: &Context, control: &str) -> Result<serde_json::Value> {
    wait_until(KILL_LIMIT, "the end of all containers", || {
        let status = ask(context, control, &["status"])?;
        let left = status.get("containers").and_then(serde_json::Value::as_u64);
        Ok((left == Some(0)).then_some(status))
    })
}

/// What the daemon's own totals say at the end of each of these containers.
fn check_totals(runs: &mut Runs<'_>, ids: &[String], kills: i64) {
    for id in ids {
        let mine = runs
            .totals
            .iter()
            .find(|book| book.container == *id)
            .cloned();
        let right = mine.as_ref().is_some_and(|book| {
            (book.increase, book.kills, book.counter_only, book.residual) == (kills, kills, 0, 0)
        });
        runs.that(&format!("the totals have {kills} of {id}: {mine:?}"), right);
    }
}

/// Cgroups in one another, with the memory controller in each.
struct Nest(Vec<Cgroup>);

impl Nest {
    fn below(top: &Cgroup, levels: usize) -> Result<Self> {
        let mut nest = Self(Vec::new());
        for _ in 0..levels {
            let above = nest.0.last().unwrap_or(top);
            above.enable_memory()?;
            let next = above.child("n")?;
            nest.0.push(next);
        }
        Ok(nest)
    }

    fn deepest(&self) -> Result<&Cgroup> {
        self.0.last().context("no cgroup in the nest")
    }

    /// From the deepest up.
    fn remove(mut self) -> Result<()> {
        while let Some(deepest) = self.0.pop() {
            deepest.remove_emptied()?;
        }
        Ok(())
    }
}
