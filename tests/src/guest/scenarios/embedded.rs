//! oomwatch as a library inside another program, which registers its containers itself, and late.

use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use oomwatch::{Attribution, Events, Kind, OomEvent, Watcher};
use tokio::time::timeout;

use super::{LIMIT_BYTES, hex_id};
use crate::{
    event::Event,
    guest::{case::vmstat, context::Context, law::Law, report::Outcome},
};

const ROUNDS: u64 = 200;
/// Between the kill and the registration.
const LATE_BY: Duration = Duration::from_millis(50);
/// Far beyond what an event takes.
const EVENT_LIMIT: Duration = Duration::from_secs(20);

/// A runtime that registers its container only after a process of it was killed.
pub(super) fn late_registration(context: &Context) -> Result<Outcome> {
    if let Some(skipped) = context.dry_skip() {
        return Ok(skipped);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    runtime.block_on(async {
        let watcher = Watcher::builder().start().await?;
        let mut events = watcher.events().await?;
        let node = vmstat()?;
        let mut seen = Seen::default();
        for round in 0..ROUNDS {
            late_by_a_moment(context, &watcher, &mut events, round, &mut seen)
                .await
                .with_context(|| format!("round {round}"))?;
        }
        let report = watcher.shutdown().await?;
        let totals = report.totals;
        ensure!(
            (totals.kills, totals.late, totals.unregistered) == (ROUNDS, ROUNDS, 0),
            "{totals:?}"
        );
        ensure!(totals.counter_only == 0, "{totals:?}");
        ensure!(report.residual == 0, "residual {}", report.residual);
        let node = vmstat()?.rise(&node, "oom_kill").context("no oom_kill")?;
        let law = Law::of_history(seen.truth, node, &seen.homes, &seen.last_words)?;
        context.report.law(context.scenario, &law);
        ensure!(law.holds(), "{law:?}");
        Ok(Outcome::Passed(format!(
            "{ROUNDS} kills claimed by containers registered {} ms after them",
            LATE_BY.as_millis()
        )))
    })
}

/// What happened, and what was said of it last.
#[derive(Default)]
struct Seen {
    truth: i64,
    homes: BTreeMap<u32, String>,
    last_words: Vec<Event>,
}

async fn late_by_a_moment(
    context: &Context,
    watcher: &Watcher,
    events: &mut Events,
    round: u64,
    seen: &mut Seen,
) -> Result<()> {
    let id = hex_id(round);
    let container = context.cgroup(&format!("late-{round}"))?;
    container.limit_memory(LIMIT_BYTES)?;
    let pid = context.lose_a_process("late-hog", &container)?;
    let at_once = next(events).await?;
    ensure!(at_once.victim.pid == Some(pid), "killed {pid}: {at_once:?}");
    ensure!(
        at_once.quality.attribution == Attribution::Unregistered && at_once.container.is_none(),
        "not unregistered: {at_once:?}"
    );
    thread::sleep(LATE_BY);
    let path: PathBuf = container.path().to_owned();
    watcher.add(&id, path).await?;
    let late = next(events).await?;
    ensure!(
        late.id == at_once.id && late.supersedes == Some(at_once.seq),
        "another kill: {late:?}"
    );
    ensure!(
        late.kind == Kind::Kill && late.quality.attribution == Attribution::Late,
        "not late: {late:?}"
    );
    let named = late.container.as_ref().map(|found| found.id.as_str());
    ensure!(named == Some(id.as_str()), "misattributed: {late:?}");
    watcher.remove(&id).await?;
    seen.homes.insert(pid, id);
    seen.truth += i64::try_from(container.events()?.value("oom_kill").unwrap_or(0))?;
    let json = serde_json::from_str(&late.to_json())?;
    seen.last_words.extend(Event::from_json(&json));
    Ok(())
}

async fn next(events: &mut Events) -> Result<std::sync::Arc<OomEvent>> {
    let event = timeout(EVENT_LIMIT, events.next()).await;
    event
        .context("no event came")?
        .context("the events have ended")
}
