//! The task's side of scanning again, after records of cgroups were lost: the walk over the hierarchy is made
//! on a thread of its own, so that the ring need not wait for a file.

use std::{future::pending, io, time::Duration};

use tokio::task::{self, JoinError, JoinHandle};
use tracing::{debug, error, warn};

use super::Task;
use crate::{CgroupId, cgroup::walk::Walk, clock};

/// How long the scans at the end may take; each of them is a fraction of a second.
const LAST_SCANS: Duration = Duration::from_secs(2);

/// Which scans are under way and to come: one at a time.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// Something was lost that the one under way, if any, may have missed.
    wanted: bool,
    running: Option<JoinHandle<io::Result<Walk>>>,
}

impl Scans {
    /// Records of cgroups were lost.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the next one can begin; told once.
    fn take_due(&mut self) -> bool {
        self.running.is_none() && std::mem::take(&mut self.wanted)
    }

    fn is_idle(&self) -> bool {
        self.running.is_none() && !self.wanted
    }

    /// What the one under way has found; for ever where there is none.
    pub(super) async fn next(&mut self) -> Result<io::Result<Walk>, JoinError> {
        match &mut self.running {
            Some(running) => {
                let walk = running.await;
                self.running = None;
                walk
            }
            None => pending().await,
        }
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
        let walk = move || Walk::careful(&hierarchy, known, began_ns);
        self.scans.running = Some(task::spawn_blocking(walk));
    }

    /// Takes in what a scan has found.
    pub(super) fn scanned(&mut self, walk: Result<io::Result<Walk>, JoinError>) {
        let walk = match walk {
            Ok(Ok(walk)) => walk,
            Ok(Err(error)) => {
                return error!(%error, "the cgroup hierarchy cannot be scanned");
            }
            Err(error) => return error!(%error, "a scan of the cgroup hierarchy ended early"),
        };
        // What has been told of meanwhile comes first; and whether something was lost again.
        self.drain_ring();
        self.check_drops();
        let walked = self.engine.walked_again(&walk, clock::now());
        debug!(
            new = walked.new.len(),
            missing = walk.missing.len(),
            "scanned again"
        );
        if walked.is_outdated {
            self.scans.want();
        }
        self.register_finds();
    }

    /// Completes what is under way or wanted, for the last audit.
    pub(super) async fn finish_scans(&mut self) {
        let scans = async {
            while !self.scans.is_idle() {
                self.begin_scan();
                let walk = self.scans.next().await;
                self.scanned(walk);
            }
        };
        if tokio::time::timeout(LAST_SCANS, scans).await.is_err() {
            warn!(
                "the last scan was not waited for: cgroups whose records were lost may be unknown"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_asks_for_one_scan() {
        let mut scans = Scans::default();
        assert!(scans.is_idle() && !scans.take_due());
        scans.want();
        scans.want();
        assert!(!scans.is_idle());
        assert!(scans.take_due());
        assert!(!scans.take_due());
    }

    #[tokio::test]
    async fn a_loss_during_a_scan_asks_for_another_after_it() {
        let mut scans = Scans::default();
        let (go, gone_on) = std::sync::mpsc::channel::<()>();
        scans.want();
        assert!(scans.take_due());
        scans.running = Some(task::spawn_blocking(move || {
            gone_on.recv().unwrap();
            Ok(Walk::default())
        }));
        scans.want();
        assert!(!scans.take_due(), "one at a time");
        go.send(()).unwrap();
        assert_eq!(scans.next().await.unwrap().unwrap(), Walk::default());
        assert!(scans.take_due(), "what was lost meanwhile");
        assert!(scans.is_idle());
    }
}
