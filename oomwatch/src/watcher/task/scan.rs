//! The task's side of scanning again, after records of cgroups were lost. The walk over the hierarchy runs on a
//! thread of its own, so that the ring need not wait for a file.
//!
//! A scan that failed, or that skipped cgroups which another scan may find, is made again. The delay between tries
//! grows.

use std::{future::pending, io, time::Duration};

use backon::BackoffBuilder as _;
use tokio::{
    task::{self, JoinError, JoinHandle},
    time::Instant,
};
use tracing::{debug, error};

use super::Task;
use crate::{
    cgroup::{scan::MAX_DEPTH, walk},
    clock,
    id::{CgroupId, printable},
    log::warn,
    topology::{skipped::Skipped, walk::Walk},
};

/// How long the scans at the end may take; each of them is a fraction of a second.
const LAST_SCANS: Duration = Duration::from_secs(2);
/// Shortest and longest time between two tries.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Counters read in one go: then the ring has its turn.
const SLICE: usize = 64;

/// What [`Scans::next`] waited for.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A scan has ended.
    Walked(Result<io::Result<Walk>, JoinError>),
    /// It is time to try again.
    Retry,
}

/// Which scans are under way and to come: one at a time.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// Something was lost that the scan under way, if any, may have missed.
    wanted: bool,
    running: Option<JoinHandle<io::Result<Walk>>>,
    /// When to try again.
    retry_at: Option<Instant>,
    /// The times between tries; `None` after a scan that skipped nothing.
    delays: Option<backon::ExponentialBackoff>,
}

impl Scans {
    /// Records of cgroups were lost.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the next scan can begin. True once; then `want` must be called again.
    fn take_due(&mut self) -> bool {
        let is_due = self.running.is_none() && std::mem::take(&mut self.wanted);
        if is_due {
            self.retry_at = None;
        }
        is_due
    }

    fn is_idle(&self) -> bool {
        self.running.is_none() && !self.wanted
    }

    /// The result of the scan under way, or that it is time for another; waits forever if there is neither.
    pub(super) async fn next(&mut self) -> Outcome {
        if let Some(running) = &mut self.running {
            let walk = running.await;
            self.running = None;
            return Outcome::Walked(walk);
        }
        match self.retry_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => pending().await,
        }
        self.retry_at = None;
        Outcome::Retry
    }

    /// A scan ended: logs what it skipped, and plans another one if that may find more.
    pub(super) fn ended(&mut self, skipped: &Skipped) {
        say(skipped);
        if skipped.may_pass {
            self.retry_later();
        } else {
            self.retry_at = None;
            self.delays = None;
        }
    }

    /// A scan failed; another one may succeed.
    pub(super) fn retry_later(&mut self) {
        let delays = self.delays.get_or_insert_with(delays);
        if self.retry_at.is_none() {
            let delay = delays.next().unwrap_or(LAST_RETRY);
            self.retry_at = Some(Instant::now() + delay);
        }
    }

    /// No retry follows: tells whether one was planned.
    fn take_retry(&mut self) -> bool {
        self.retry_at.take().is_some()
    }
}

fn delays() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(FIRST_RETRY)
        .with_max_delay(LAST_RETRY)
        .without_max_times()
        .build()
}

/// Logs one line for each reason, whatever the number of cgroups.
fn say(skipped: &Skipped) {
    if let Some((path, error)) = &skipped.first_failed {
        warn!(
            skipped = skipped.failed,
            first = printable(path),
            error = %error,
            "the scan skipped cgroups that cannot be read: what is below them is unknown"
        );
    }
    if let Some(path) = &skipped.first_too_deep {
        warn!(
            skipped = skipped.too_deep,
            first = printable(path),
            limit = MAX_DEPTH,
            "the scan skipped cgroups that are nested deeper than its limit"
        );
    }
}

impl Task {
    /// Begins the scan that is wanted, unless one is under way.
    pub(super) fn begin_scan(&mut self) {
        if !self.scans.take_due() {
            return;
        }
        let hierarchy = self.hierarchy.clone();
        let known: Vec<CgroupId> = self.engine.tree().live().collect();
        let began_ns = clock::now().boottime_ns;
        let walk = move || walk::careful(&hierarchy, known, began_ns);
        self.scans.running = Some(task::spawn_blocking(walk));
    }

    /// Takes in what a scan has found.
    pub(super) fn scanned(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Walked(Ok(Ok(walk))) => self.take_in(&walk),
            Outcome::Walked(Ok(Err(error))) => {
                error!(%error, "cannot scan the cgroup hierarchy: oomwatch tries again");
                self.scans.retry_later();
            }
            Outcome::Walked(Err(error)) => {
                error!(%error, "a scan of the cgroup hierarchy ended early: oomwatch tries again");
                self.scans.retry_later();
            }
            Outcome::Retry if self.source.counters.is_some() => self.rescan_counted(),
            Outcome::Retry => self.scans.want(),
        }
    }

    fn take_in(&mut self, walk: &Walk) {
        // Records that came meanwhile come first, and so does any new loss.
        self.drain_ring();
        self.check_drops();
        let walked = self.engine.walked_again(walk, clock::now());
        debug!(
            new = walked.new.len(),
            unread = walked.unread.len(),
            missing = walk.missing.len(),
            "scanned again"
        );
        self.scans.ended(&walk.skipped);
        if walked.is_outdated {
            self.scans.want();
        }
        for slice in walked.unread.chunks(SLICE) {
            self.read_baselines(slice);
            self.drain_ring();
        }
        self.claim();
    }

    /// Completes the scans that are under way or wanted, for the last audit.
    pub(super) async fn finish_scans(&mut self) {
        if self.scans.take_retry() {
            self.scanned(Outcome::Retry);
        }
        let scans = async {
            while !self.scans.is_idle() {
                self.begin_scan();
                let outcome = self.scans.next().await;
                self.scanned(outcome);
            }
        };
        if tokio::time::timeout(LAST_SCANS, scans).await.is_err() {
            warn!(
                "the last scan did not end in time: cgroups whose records were lost may be unknown"
            );
        }
    }
}

#[cfg(test)]
mod tests;
