//! Very many kills in many containers at the same time.

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::{SMALL_LIMIT_BYTES, SMALL_TOO_MUCH_BYTES, hex_id};
use crate::{
    cgroup::Cgroup,
    guest::{case::Case, checks::Checks, context::Context, report::Outcome},
    hog::Hog,
};

const CONTAINERS: u64 = 100;
const OVERFLOW_CONTAINERS: u64 = 50;
/// Kills in each container, one at a time.
const ROUNDS: u32 = 10;
/// The same, of a storm that goes on until the reader has made up for a loss in its midst.
const MOST_ROUNDS: u32 = 60;

/// A hundred containers lose ten processes each, all hundred at a time.
pub(super) fn many_containers(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &["--discover", "cgroup"])?;
    let mut storm = Storm::prepare(context, &mut case, &slice, (2000, CONTAINERS))?;
    for _ in 0..ROUNDS {
        storm.round(&mut case)?;
    }
    case.wait_for_kills(storm.killed.len());
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law(context);
    checks.logged(&storm.killed);
    for (_, cgroup) in &storm.containers {
        checks.oom_kill_rose(cgroup, i64::from(ROUNDS));
    }
    let killed = storm.killed.len();
    if checks.kills(killed).is_some() {
        checks.eq("number of events", Ok(findings.events().len()), killed);
    }
    checks.finish(&format!("{killed} kills over {CONTAINERS} containers"))
}

/// A ring of one page, and a reader that is stopped at first: most records are lost, and yet each
/// container's numbers add up. The kills go on until the reader has made up for a loss while more
/// are under way.
pub(super) fn ring_overflow(context: &Context) -> Result<Outcome> {
    let slice = context.cgroup("system.slice")?;
    slice.enable_memory()?;
    let mut case = Case::start(context, &["--discover", "cgroup", "--ring-size", "4096"])?;
    let mut storm = Storm::prepare(context, &mut case, &slice, (3000, OVERFLOW_CONTAINERS))?;
    case.signal_daemon(Signal::STOP)?;
    let mut rounds = 0;
    while rounds < ROUNDS || rounds < MOST_ROUNDS && !case.has_event("counter_only") {
        if rounds == ROUNDS / 2 {
            case.signal_daemon(Signal::CONT)?;
        }
        storm.round(&mut case)?;
        rounds += 1;
    }
    storm.round(&mut case)?;
    rounds += 1;
    let findings = case.finish()?;

    let mut checks = Checks::new(&findings);
    checks.law_with_losses(context);
    checks.logged(&storm.killed);
    for (_, cgroup) in &storm.containers {
        checks.oom_kill_rose(cgroup, i64::from(rounds));
    }
    checks.that(
        "a loss was made up for in the midst of the storm",
        findings.dry || rounds <= MOST_ROUNDS,
    );
    let (killed, seen) = (storm.killed.len(), findings.kills().len());
    if !findings.dry {
        checks.eq("whether records were lost", Ok(seen < killed), true);
    }
    checks.finish(&format!(
        "{killed} kills, {seen} of them seen, the others counted"
    ))
}

/// Containers, and one hog outside of them whose copies die in them.
struct Storm {
    hog: Hog,
    containers: Vec<(String, Cgroup)>,
    killed: Vec<u32>,
}

impl Storm {
    /// Makes `count` containers with ids from `first` on, after the daemon's start.
    fn prepare(
        context: &Context,
        case: &mut Case,
        slice: &Cgroup,
        (first, count): (u64, u64),
    ) -> Result<Self> {
        let mut containers = Vec::new();
        for number in first..first + count {
            let id = hex_id(number);
            let cgroup = slice.child(format!("docker-{id}.scope"))?;
            cgroup.limit_memory(SMALL_LIMIT_BYTES)?;
            case.container(&id, &cgroup)?;
            containers.push((id, cgroup));
        }
        Ok(Self {
            hog: Hog::spawn(&context.hog("many-hog"))?,
            containers,
            killed: Vec::new(),
        })
    }

    /// One process dies in each container, all at the same time.
    fn round(&mut self, case: &mut Case) -> Result<()> {
        let number = u32::try_from(self.containers.len())?;
        let born = self.hog.brood(number, SMALL_TOO_MUCH_BYTES)?;
        for (pid, (_, cgroup)) in born.iter().zip(&self.containers) {
            case.adopt(*pid, cgroup)?;
        }
        let killed = self.hog.release()?;
        ensure!(
            killed.len() == born.len(),
            "{} of {} were killed",
            killed.len(),
            born.len()
        );
        self.killed.extend(killed);
        case.read_log()
    }
}
