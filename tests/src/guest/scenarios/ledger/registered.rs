//! Containers that are registered above others, between the kills of those.

use anyhow::{Context as _, Result};

use super::{Runs, ask, listed, tell};
use crate::guest::{
    context::Context,
    report::Outcome,
    scenarios::{LIMIT_BYTES, registering},
};

/// The outer one is registered, removed and registered again between kills in the inner one: it tells of
/// those in it alone that came meanwhile.
pub(in super::super) fn outer_added(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let control = "/run/oomwatch-ledger-added";
    let outer = context.cgroup("ledger-added")?;
    outer.enable_memory()?;
    let (inner, side) = (outer.child("inner")?, outer.child("side")?);
    for cgroup in [&inner, &side] {
        cgroup.limit_memory(LIMIT_BYTES)?;
    }
    let path = outer.path().to_str().context("the path is no UTF-8")?;
    let mut arguments = registering(&[("inner", &inner)]);
    arguments.extend(["--control".into(), control.into()]);

    let mut runs = Runs::begin(context)?;
    let daemon = runs.start(&arguments)?;
    runs.lose(&daemon, &inner, Some("inner"))?;
    tell(context, control, &["add", "outer", path])?;
    runs.lose(&daemon, &inner, Some("inner"))?;
    runs.lose(&daemon, &side, Some("outer"))?;
    tell(context, control, &["remove", "outer"])?;
    runs.lose(&daemon, &inner, Some("inner"))?;
    tell(context, control, &["add", "outer", path])?;
    runs.lose(&daemon, &inner, Some("inner"))?;
    let list = ask(context, control, &["list"])?;
    let (inner_says, outer_says) = (listed(&list, "inner")?, listed(&list, "outer")?);
    let what = format!("the list has 4 kills of the inner: {inner_says:?}");
    runs.that(&what, inner_says == (Some(4), Some(0)));
    let what = format!("the list has nothing of the outer that was counted: {outer_says:?}");
    runs.that(&what, outer_says.1 == Some(0));
    inner.remove_emptied()?;
    side.remove_emptied()?;
    outer.remove_emptied()?;
    runs.stop(daemon)?;
    runs.judge("4 kills of the inner container and 1 of the outer, each once")
}
