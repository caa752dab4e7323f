//! A wall clock that is set while there are kills.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{Runs, container_in, history, state_dir, system_slice};
use crate::guest::{context::Context, report::Outcome};

const STEP_SECONDS: i64 = 3600;
/// Less than a step: by the wall clock all that was before it would be too old.
const MAX_AGE: &str = "30m";
/// The history is trimmed some seconds after the start.
const UNTIL_TRIMMED: Duration = Duration::from_secs(9);

/// Forward, back, and over a restart: the history keeps each kill, for none is as old as it says.
pub(in super::super) fn clock_steps(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let state = state_dir(context);
    let mut arguments: Vec<OsString> = vec!["--discover".into(), "cgroup".into()];
    arguments.extend(["--state-dir".into(), state.clone().into()]);
    arguments.extend(["--history-max-age".into(), MAX_AGE.into()]);
    let slice = system_slice(context)?;
    let (id, container) = container_in(&slice, 7400)?;
    let mut clock = Clock { ahead: 0 };

    let mut runs = Runs::begin(context)?;
    let first = runs.start(&arguments)?;
    runs.lose(&first, &container, Some(&id))?;
    clock.step(STEP_SECONDS)?;
    runs.lose(&first, &container, Some(&id))?;
    clock.step(-2 * STEP_SECONDS)?;
    runs.lose(&first, &container, Some(&id))?;
    runs.stop(first)?;
    runs.lose_unseen(&container, Some(&id))?;
    clock.step(2 * STEP_SECONDS)?;

    let second = runs.start(&arguments)?;
    runs.lose(&second, &container, Some(&id))?;
    clock.step(-STEP_SECONDS)?;
    runs.lose(&second, &container, Some(&id))?;
    runs.wait_for_history(&state);
    // That nothing goes takes the time in which it would.
    let until = Instant::now() + UNTIL_TRIMMED;
    let mut fewest = usize::MAX;
    while Instant::now() < until {
        fewest = fewest.min(history(context, &state)?.len());
        std::thread::sleep(Duration::from_millis(500));
    }
    runs.that(&format!("none of 6 events goes: {fewest}"), fewest == 6);
    runs.stop(second)?;
    let third = runs.start(&arguments)?;
    runs.stop(third)?;
    runs.judge_history(
        &state,
        "6 kills while the clock was set by hours, each once and kept",
    )
}

/// The wall clock, set right on drop.
struct Clock {
    ahead: i64,
}

impl Clock {
    fn step(&mut self, seconds: i64) -> Result<()> {
        let now = clock_gettime(ClockId::Realtime);
        let stepped = Timespec {
            tv_sec: now.tv_sec + seconds,
            tv_nsec: now.tv_nsec,
        };
        clock_settime(ClockId::Realtime, stepped).context("setting the clock")?;
        self.ahead += seconds;
        Ok(())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if self.ahead != 0 {
            // Nothing here depends on the right time of day.
            let _ = self.step(-self.ahead);
        }
    }
}
