//! A pod's sandbox that is killed: an event as for every container, and nothing for containerd,
//! where CRI would take it for the end of a container that nobody knows.

use std::time::Duration;

use anyhow::Result;

use super::{Client, Cri, NAME_LABEL, NAMESPACE, pod_name};
use crate::{
    event::Event,
    guest::{
        checks::Checks,
        context::Context,
        report::Outcome,
        scenarios::runtimes::{
            Runtime as _,
            ctr::{Ctr, OOM},
            killed, tools,
        },
    },
    wait::wait_until,
};

const EVENT_LIMIT: Duration = Duration::from_secs(30);

/// A container's child is killed, which is published, and then its pod's sandbox, which is not.
pub(in crate::guest::scenarios::runtimes) fn killed(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let cri = &Cri::SYSTEMD;
    cri.start(context)?;
    let events = Ctr::start()?;
    let mut case = killed::start(context, cri, &["--publish", "containerd=always"])?;
    let name = context.scenario;
    let container = cri.run(context, name, killed::CHILD)?;
    case.wait_for_logged(1)?;
    let sandbox = Client::connect()?.find_sandbox((NAME_LABEL, name))?;
    // Less than anything needs: the kernel finds nobody but the sandbox's only process.
    tools::write_in(context, &cri.cgroup(&sandbox), "memory.max", "0")?;
    case.wait_for_logged(2)?;
    case.wait_for_kills(2);
    // The end of the daemon waits until everything is published.
    let findings = case.finish()?;
    cri.remove(context, name)?;
    for id in [&container, &sandbox] {
        for topic in ["/tasks/create", "/containers/delete"] {
            wait_until(EVENT_LIMIT, &format!("{topic} of {id}"), || {
                Ok((events.count(topic, id) > 0).then_some(()))
            })?;
        }
    }

    let mut checks = Checks::new(&findings);
    checks.kills(2);
    let published = |id: &str, kill: &Event| -> Result<usize> {
        let mut number = 0;
        for line in events.about(OOM, id) {
            number += usize::from(line.is_published_for(kill)?);
        }
        Ok(number)
    };
    let told = findings.kill_in(&container)?;
    checks.eq("published of the container", published(&container, told), 1);
    let told = findings.kill_in(&sandbox)?;
    context.report.note(&format!("{name}: {told}"));
    checks.eq("published of the sandbox", published(&sandbox, told), 0);
    // The shim's own.
    let others = events.count(OOM, &sandbox);
    checks.that(
        &format!("{others} of {OOM} for the sandbox are one at most"),
        others <= 1,
    );
    let is = |field: &str| told.field(field).cloned();
    checks.eq("is_sandbox", is("container.is_sandbox"), true.into());
    checks.eq("is_init", is("victim.is_init"), true.into());
    checks.eq("pod", is("container.pod"), pod_name(name).into());
    checks.eq("namespace", is("container.namespace"), NAMESPACE.into());
    checks.finish("a container's kill was published, its sandbox's was not")
}
