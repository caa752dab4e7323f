//! Runs scenarios one after the other and survives each of them.

use std::{
    any::Any,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::{context::Context, report::Outcome, scenarios::Scenario};

/// No scenario takes a quarter of this, even emulated on a busy host.
const SCENARIO_LIMIT: Duration = Duration::from_secs(300);

/// What a scenario gets for each of its rounds: a runtime starts a container in a third of this.
const ROUND_LIMIT: Duration = Duration::from_secs(15);

/// Runs every scenario that has one of the comma-separated words of `filter` in its name.
pub(super) fn run_all(context: &Context, scenarios: &[(&'static str, Scenario)], filter: &str) {
    for (name, scenario) in scenarios {
        if filter.split(',').any(|word| name.contains(word)) {
            context.report.start(name);
            let started = Instant::now();
            let outcome = run_guarded(context, name, *scenario);
            context.report.test(name, &outcome, started.elapsed());
        }
    }
}

/// Runs one in a thread of its own: a panic or a hang must not cost the report of the others.
fn run_guarded(context: &Context, name: &'static str, scenario: Scenario) -> Result<Outcome> {
    let limit = SCENARIO_LIMIT + ROUND_LIMIT * context.rounds;
    let (finished, finish) = channel::<()>();
    let context = Context {
        scenario: name,
        ..context.clone()
    };
    let thread = thread::Builder::new()
        .name(name.chars().take(15).collect())
        .spawn(move || {
            // Dropped on the way out, by a panic as well.
            let _finished = finished;
            scenario(&context)
        })
        .context("starting a thread")?;
    match finish.recv_timeout(limit) {
        // The thread is left behind; the machine is thrown away soon enough.
        Err(RecvTimeoutError::Timeout) => Err(anyhow!("still running after {limit:?}")),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => Err(anyhow!("panicked: {}", panic_text(panic.as_ref()))),
        },
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a text")
}
