//! The node itself runs out of memory.

use anyhow::Result;

use super::registering;
use crate::{
    guest::{
        case::{Case, KILL_LIMIT},
        checks::Checks,
        context::Context,
        report::Outcome,
    },
    hog::MIB,
};

/// More than any test machine has.
const ENDLESS_BYTES: u64 = 64 * 1024 * MIB;

/// A container without a limit takes all memory there is: nobody's limit was hit.
pub(super) fn global_oom(context: &Context) -> Result<Outcome> {
    let greedy = context.cgroup("greedy")?;
    let mut case = Case::start(context, &registering(&[("greedy", &greedy)]))?;
    case.container("greedy", &greedy)?;
    let mut hog = case.hog(&context.hog("greedy-hog").oom_score_adj(1000), &greedy)?;
    hog.start_allocating(ENDLESS_BYTES)?;
    hog.wait_killed(4 * KILL_LIMIT)?;
    case.wait_for_kills(1);
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.oom_kill_rose(&greedy, 1);
    checks.eq("rise of oom", findings.rise(&greedy, "oom"), 0);
    checks.law(context);
    checks.logged(&[hog.pid()]);
    if let Some(kills) = checks.kills(1)
        && let Some(event) = kills.first()
    {
        context.report.note(&format!("event global_oom: {event}"));
        checks.eq(
            "container.id",
            event.container_id(),
            Some("greedy".to_owned()),
        );
        checks.eq("victim.pid", event.victim_pid(), hog.pid());
        checks.eq("scope", event.text("scope"), "node".to_owned());
        checks.eq("constraint", event.text("constraint"), "none".to_owned());
        checks.eq("limit.cgroup_id", event.limit_cgroup_id(), None);
    }
    checks.finish("the node's memory, no cgroup's limit")
}
