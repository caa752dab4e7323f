//! The victim sits in a cgroup below the container's (crun, systemd in a container, dind).

use anyhow::Result;

use super::{LIMIT_BYTES, TOO_MUCH_BYTES, registering};
use crate::guest::{
    case::{Case, KILL_LIMIT},
    checks::Checks,
    context::Context,
    report::Outcome,
};

/// The inner cgroup has counters of its own.
pub(super) fn with_controller(context: &Context) -> Result<Outcome> {
    nested(context, true)
}

/// The inner cgroup has no memory controller: the kernel counts for the container's cgroup,
/// and yet the victim's cgroup is the inner one.
pub(super) fn without_controller(context: &Context) -> Result<Outcome> {
    nested(context, false)
}

fn nested(context: &Context, controller: bool) -> Result<Outcome> {
    let container = context.cgroup("c")?;
    container.limit_memory(LIMIT_BYTES)?;
    if controller {
        container.enable_memory()?;
    }
    let inner = container.child("sub")?;
    let mut case = Case::start(context, &registering(&[("c", &container)]))?;
    case.container("c", &container)?;
    if controller {
        case.watch(&inner)?;
    }
    let mut hog = case.hog(&context.hog("inner-hog"), &inner)?;
    hog.start_allocating(TOO_MUCH_BYTES)?;
    hog.wait_killed(KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&container, 1);
    let own = findings.local_rise(&container, "oom_kill");
    checks.eq(
        "rise of the container's own oom_kill",
        own,
        i64::from(!controller),
    );
    if controller {
        checks.oom_kill_rose(&inner, 1);
    }
    checks.law(context);
    checks.logged(&[hog.pid()]);
    if let Some(event) = checks.only_event() {
        checks.eq("container.id", event.container_id(), Some("c".to_owned()));
        checks.eq("attribution", event.attribution(), "ancestor".to_owned());
        checks.eq("scope", event.text("scope"), "container".to_owned());
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq("victim.cgroup_id", event.victim_cgroup_id(), inner.id()?);
        checks.eq(
            "limit.cgroup_id",
            event.limit_cgroup_id(),
            Some(container.id()?),
        );
        checks.eq("counter.oom_kill", event.counter("oom_kill"), 1);
    }
    checks.finish("the container named for a victim below it")
}
