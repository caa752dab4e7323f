//! The task's side of the sources of containers: it takes in what they report. It asks nobody itself: the sources run
//! on a thread of their own ([`thread`]), and everything crosses by bounded channels.

#[cfg(not(feature = "runtimes"))]
mod absent;
#[cfg(feature = "runtimes")]
mod running;
#[cfg(feature = "runtimes")]
mod thread;

#[cfg(not(feature = "runtimes"))]
pub(super) use self::absent::Sources;
#[cfg(feature = "runtimes")]
pub(super) use self::running::Sources;
use super::Task;
use crate::{
    clock,
    containers::{names::SourceNumber, sighting::Sighting},
};

/// Sightings taken in before the ring has its turn.
const TURN: usize = 64;

impl Task {
    /// Takes in a sighting, and those that sources have reported meanwhile: a listing comes in one go.
    pub(super) fn sighted_all(&mut self, source: SourceNumber, sighting: Sighting) {
        self.sighted(source, sighting);
        for _ in 1..TURN {
            let Some((source, sighting)) = self.sources.told() else {
                break;
            };
            self.sighted(source, sighting);
        }
        self.engine.judge_below_borders();
    }

    /// Takes in one sighting.
    fn sighted(&mut self, source: SourceNumber, sighting: Sighting) {
        let now_ns = clock::now().boottime_ns;
        if let Some((id, cgroup_id)) = self.engine.sighted(source, sighting, now_ns) {
            if !self.engine.tree().contains(cgroup_id) {
                // Created a moment ago: its record is still in the ring.
                self.drain();
            }
            self.read_before(cgroup_id);
            self.engine.register_seen(&id, cgroup_id);
            self.watch_counter(cgroup_id);
            self.claim();
        }
    }
}
