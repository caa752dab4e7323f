//! Many kills in many containers at the same time.

use std::collections::BTreeMap;

use anyhow::Result;
use rustix::process::Signal;

use super::{TOO_MUCH_BYTES, hex_id};
use crate::cgroup::Cgroup;
use crate::event::Event;
use crate::guest::case::{Case, KILL_LIMIT};
use crate::guest::checks::Checks;
use crate::guest::context::Context;
use crate::guest::findings::Findings;
use crate::guest::report::Outcome;
use crate::hog::{Hog, MIB};

const CONTAINERS: u64 = 20;
const ROUNDS: u64 = 10;
const OVERFLOW_CONTAINERS: u64 = 5;
/// Small, so that 200 kills do not take all day on an emulated machine.
const SMALL_LIMIT_BYTES: u64 = 8 * MIB;

/// Which process died where.
type Truth = BTreeMap<u32, String>;

/// Twenty containers lose ten processes each, all twenty at a time.
pub(super) fn many_containers(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &["--discover", "cgroup"])?;
    let containers = containers(&mut case, &slice, 2000, CONTAINERS)?;
    let mut truth = Truth::new();
    for _ in 0..ROUNDS {
        kill_one_in_each(context, &mut case, &containers, &mut truth)?;
        case.read_log()?;
    }
    case.wait_for_kills(truth.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    for (id, cgroup) in &containers {
        checks.oom_kill_rose(cgroup, i64::try_from(ROUNDS)?);
        checks.conserved(id, cgroup);
    }
    let pids: Vec<u32> = truth.keys().copied().collect();
    checks.logged(&pids);
    if checks.kills(truth.len()).is_some() {
        checks.eq("number of events", Ok(findings.events.len()), truth.len());
        checks.eq("misattributed", Ok(wrong(&findings.kills(), &truth)), 0);
    }
    context.report.table(&table(&containers, &findings, &truth));
    checks.finish(&format!(
        "{} kills over {CONTAINERS} containers",
        truth.len()
    ))
}

/// A ring of one page and a reader that is stopped: most records are lost, and yet each
/// container's numbers add up.
pub(super) fn ring_overflow(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &["--discover", "cgroup", "--ring-size", "4096"])?;
    let containers = containers(&mut case, &slice, 3000, OVERFLOW_CONTAINERS)?;
    case.signal_daemon(Signal::STOP)?;
    let mut truth = Truth::new();
    for _ in 0..ROUNDS {
        kill_one_in_each(context, &mut case, &containers, &mut truth)?;
        case.read_log()?;
    }
    case.signal_daemon(Signal::CONT)?;
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    for (id, cgroup) in &containers {
        checks.oom_kill_rose(cgroup, i64::try_from(ROUNDS)?);
        checks.conserved(id, cgroup);
    }
    let kills = findings.kills();
    checks.eq("misattributed", Ok(wrong(&kills, &truth)), 0);
    let seen = kills.len();
    if !findings.dry {
        checks.eq("whether records were lost", Ok(seen < truth.len()), true);
    }
    context.report.table(&table(&containers, &findings, &truth));
    checks.finish(&format!(
        "{} kills, {seen} of them seen, the others counted",
        truth.len()
    ))
}

/// Makes `count` watched containers with ids from `first` on.
fn containers(
    case: &mut Case,
    slice: &Cgroup,
    first: u64,
    count: u64,
) -> Result<Vec<(String, Cgroup)>> {
    let mut containers = Vec::new();
    for number in first..first + count {
        let id = hex_id(number);
        let cgroup = slice.child(format!("docker-{id}.scope"))?;
        cgroup.limit_memory(SMALL_LIMIT_BYTES)?;
        case.watch(&cgroup)?;
        containers.push((id, cgroup));
    }
    Ok(containers)
}

fn kill_one_in_each(
    context: &Context,
    case: &mut Case,
    containers: &[(String, Cgroup)],
    truth: &mut Truth,
) -> Result<()> {
    let mut hogs: Vec<Hog> = Vec::new();
    for (id, cgroup) in containers {
        let hog = case.hog(&context.hog("many-hog"), cgroup)?;
        truth.insert(hog.pid(), id.clone());
        hogs.push(hog);
    }
    for hog in &mut hogs {
        hog.start_allocating(TOO_MUCH_BYTES)?;
    }
    for hog in &mut hogs {
        hog.wait_killed(KILL_LIMIT)?;
    }
    Ok(())
}

/// How many events name a container that did not lose that process.
fn wrong(kills: &[&Event], truth: &Truth) -> usize {
    let right = |event: &Event| -> Option<bool> {
        let expected = truth.get(&event.victim_pid().ok()?)?;
        Some(event.container_id().ok()??.as_str() == expected)
    };
    kills
        .iter()
        .filter(|event| right(event) != Some(true))
        .count()
}

fn table(containers: &[(String, Cgroup)], findings: &Findings, truth: &Truth) -> Vec<String> {
    let mut rows = vec![
        "| container | processes killed | oom_kill | events | misattributed |".to_owned(),
        "|---|--:|--:|--:|--:|".to_owned(),
    ];
    for (id, cgroup) in containers {
        let spawned = truth.values().filter(|owner| *owner == id).count();
        let counted = findings.rise(cgroup, "oom_kill").unwrap_or(-1);
        let named = |event: &&Event| {
            event
                .container_id()
                .is_ok_and(|id_| id_.as_ref() == Some(id))
        };
        let events: Vec<&Event> = findings.kills().into_iter().filter(named).collect();
        let misattributed = wrong(&events, truth);
        let short = id.get(52..).unwrap_or(id);
        let row = format!(
            "| …{short} | {spawned} | {counted} | {} | {misattributed} |",
            events.len()
        );
        rows.push(row);
    }
    rows
}
