//! `oomwatch run --publish containerd=…`: what containerd's subscribers see of a kill, in `ctr events`.

use std::time::Duration;

use anyhow::Result;

use super::{
    Containerd, Runtime,
    ctr::{Ctr, OOM},
    killed,
};
use crate::{
    event::Event,
    guest::{checks::Checks, context::Context, report::Outcome},
    wait::wait_until,
};

const EVENT_LIMIT: Duration = Duration::from_secs(30);
/// What a shim announces sooner than that, oomwatch must not announce. It gives a shim 2 s from when
/// it hears of the kill itself; in between, which of the two comes first is the machine's to say.
const SURELY_IN_TIME: Duration = Duration::from_secs(1);
/// Of each side.
const LINES_SHOWN: usize = 10;

/// Containers that are gone at once, of which containerd itself misses some, and one that lives on.
pub(super) fn beside(context: &Context, mode: &str) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    Containerd.start(context)?;
    let events = Ctr::start()?;
    let publish = format!("containerd={mode}");
    let mut case = killed::start(context, &Containerd, &["--publish", &publish])?;
    let lost = killed::lose_rounds(context, &Containerd)?;
    let mut names: Vec<String> = lost.into_iter().map(|lost| lost.name).collect();
    let child = format!("{}-child", context.scenario);
    Containerd.run(context, &child, killed::CHILD)?;
    names.push(child.clone());
    case.wait_for_logged(names.len())?;
    case.wait_for_kills(names.len());
    // The end of the daemon waits until everything is published.
    let findings = case.finish()?;
    Containerd.remove(context, &child)?;
    for name in &names {
        for topic in ["/tasks/create", "/containers/delete"] {
            wait_until(EVENT_LIMIT, &format!("{topic} of {name}"), || {
                Ok((events.count(topic, name) > 0).then_some(()))
            })?;
        }
    }

    let mut checks = Checks::new(&findings);
    checks.kills(names.len());
    for name in &names {
        let kill = findings.kill_in(name)?;
        let Announced {
            by_us,
            by_shim,
            shim_in_time,
        } = Announced::of(&events, name, kill)?;
        let what = format!("{mode}: {name} announced by us {by_us}, by the shim {by_shim}");
        let is_right = match mode {
            "off" => by_us == 0,
            "always" => by_us == 1,
            _ if shim_in_time => by_us == 0,
            _ if by_shim == 0 => by_us == 1,
            _ => by_us <= 1,
        };
        // The shim may miss a kill, and tells none twice.
        checks.that(&what, is_right && by_shim <= 1);
    }
    let told = events.of_topic(OOM);
    for line in told.iter().take(LINES_SHOWN) {
        context
            .report
            .note(&format!("ctr events ({mode}): {}", line.text));
    }
    for event in findings.events().iter().take(LINES_SHOWN) {
        let time = event.text("time")?;
        let id = event.text("container.id")?;
        context
            .report
            .note(&format!("oomwatch ({mode}): {time} kill in {id}"));
    }
    let (kills, told) = (names.len(), told.len());
    checks.finish(&format!("{kills} kills, {told} of /tasks/oom"))
}

/// Who announced one kill.
struct Announced {
    by_us: usize,
    by_shim: usize,
    shim_in_time: bool,
}

impl Announced {
    fn of(events: &Ctr, container: &str, kill: &Event) -> Result<Self> {
        let (mut by_us, mut by_shim, mut shim_in_time) = (0, 0, false);
        for line in events.about(OOM, container) {
            if line.is_published_for(kill)? {
                by_us += 1;
            } else {
                by_shim += 1;
                shim_in_time |= line.was_read_within(SURELY_IN_TIME, kill)?;
            }
        }
        Ok(Self {
            by_us,
            by_shim,
            shim_in_time,
        })
    }
}
