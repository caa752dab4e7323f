//! Waiting for something to become true, with a deadline.

use std::{
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Short enough to notice a death at once, long enough to leave an emulated processor free.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Asks `probe` again and again until it gives a value, and fails after `limit` naming `what`.
///
/// For things that the kernel offers no notification for. What can be waited for is waited for:
/// see [`crate::daemon::Daemon::wait_for_event`].
pub fn wait_until<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().with_context(|| format!("waiting for {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what} did not happen within {limit:?}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits for a child process to end.
pub fn wait_for_exit(child: &mut Child, limit: Duration, what: &str) -> Result<ExitStatus> {
    let what = format!("the end of {what} (pid {})", child.id());
    wait_until(limit, &what, || Ok(child.try_wait()?))
}
