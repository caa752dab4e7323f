//! The task's side of watching counters. Files become readings, directories become topology, removed cgroups become
//! their last counts.

use std::collections::HashSet;

use tracing::error;

use super::{super::source::Coverage, Task};
use crate::{
    cgroup::hierarchy::CgroupError,
    clock,
    counters::{CounterWatch, Read, file::CounterFile},
    engine::counter_reading::CounterReading,
    id::{CgroupId, Css},
    ledger::Reading,
    log::warn,
};

/// Rounds of reading before others get their turn: each file wakes at most every 10 ms.
const MAX_ROUNDS: usize = 64;
/// Most scans at the start: as many as it takes for one to find nothing new.
const MAX_SCANS: usize = 8;

impl Task {
    /// Watches the directories and the counters of everything that a scan has found.
    pub(super) fn watch_counters(&mut self) {
        self.with_counters(|task, watch| {
            task.watch_all(watch);
            // A cgroup created between the scan and the watch of its parent is found by now.
            for _ in 0..MAX_SCANS {
                let known = task.engine.tree().live_count();
                task.rescan(watch, false);
                if task.engine.tree().live_count() == known {
                    return;
                }
            }
        });
        self.swept();
    }

    /// Reads a cgroup's counter before it is registered: what it counted so far is past.
    pub(super) fn read_before(&mut self, id: CgroupId) {
        self.with_counters(|task, watch| {
            task.open(watch, id);
            task.place_above(id);
            task.tell(watch, &[id]);
        });
    }

    /// Reads the families above a cgroup that is inside a container, whose kills were reported as the container's.
    fn place_above(&mut self, id: CgroupId) {
        let mut above: Vec<CgroupId> = self.engine.tree().lineage(id).skip(1).collect();
        if !above.iter().any(|&id| self.engine.registry().contains(id)) {
            return;
        }
        above.reverse();
        let readings = above.into_iter().filter_map(|parent| {
            let (family, _) = self.read_family(parent)?;
            let living = family.living.into_iter().collect();
            let of = Reading::of(parent, Css::default(), family.own, Some(family.total));
            Some(Reading {
                children: living,
                ..of
            })
        });
        let readings: Vec<_> = readings.collect();
        self.engine.place(&readings);
    }

    /// Watches the counter of a cgroup that was registered.
    pub(super) fn watch_counter(&mut self, id: CgroupId) {
        self.with_counters(|task, watch| {
            task.follow(watch, id);
            // Its group kills are counted from here.
            task.tell(watch, &[id]);
        });
    }

    /// Works through all counters that moved and all cgroups that came and went.
    pub(super) fn drain_counters(&mut self) {
        self.with_counters(|task, watch| {
            for _ in 0..MAX_ROUNDS {
                let moved = task.take_changes(watch);
                let ready = watch.ready().unwrap_or_else(|error| {
                    error!(%error, "cannot read notifications of counters");
                    Vec::new()
                });
                if ready.is_empty() && !moved {
                    return;
                }
                task.tell(watch, &ready);
            }
            // There is more, and nothing wakes for it.
            task.source.sweep_now();
        });
    }

    /// Reads every registered cgroup's counter, watched or not. If descriptors or watches ran out, scans the
    /// hierarchy first.
    pub(super) fn sweep(&mut self) {
        self.drain();
        self.with_counters(|task, watch| {
            if watch.is_limited() {
                task.rescan(watch, true);
            }
            let registered = task.registered();
            for &id in &registered {
                task.follow(watch, id);
            }
            task.tell(watch, &registered);
        });
        self.swept();
    }

    fn swept(&mut self) {
        let Some(watch) = &self.source.counters else {
            return;
        };
        let watched = if watch.is_limited() {
            Coverage::Limited
        } else if self.registered().into_iter().all(|id| watch.is_open(id)) {
            Coverage::All
        } else {
            Coverage::NotYet
        };
        self.source.swept(watched);
    }

    /// Cgroups that are alive and registered.
    fn registered(&self) -> Vec<CgroupId> {
        let registry = self.engine.registry();
        let live = self.engine.tree().live();
        live.filter(|&id| registry.contains(id)).collect()
    }

    /// What the source's timer is for: a sweep, or readings that waited long enough.
    pub(super) fn source_timer(&mut self) {
        let now_ns = clock::now().boottime_ns;
        if self.source.is_sweep_due(now_ns) {
            self.sweep();
        }
        self.settle(now_ns);
    }

    /// Reports the increments of readings up to `now_ns` that no victim's record showed.
    pub(super) fn settle(&mut self, now_ns: u64) {
        let settled = self.source.settled(now_ns);
        if settled.is_empty() {
            return;
        }
        self.drain_ring();
        for readings in settled {
            let events = self.engine.read(&readings, clock::now());
            self.admit(events);
        }
    }

    /// Lends out the watch, if this tier has one.
    pub(super) fn with_counters(&mut self, work: impl FnOnce(&mut Self, &mut CounterWatch)) {
        if let Some(mut watch) = self.source.counters.take() {
            work(self, &mut watch);
            self.source.counters = Some(watch);
        }
    }

    /// Brings the watch up to the tree: for the start, and after changes were lost.
    pub(super) fn watch_all(&mut self, watch: &mut CounterWatch) {
        let root = self.engine.tree().root();
        watch.directories.watch(root, self.hierarchy.mount());
        // Parents first, so that they can take note of their children.
        for id in self.engine.tree().live_parents_first() {
            self.watch_directory(watch, id);
            self.follow(watch, id);
        }
    }

    pub(super) fn watch_directory(&mut self, watch: &mut CounterWatch, id: CgroupId) {
        let tree = self.engine.tree();
        let (Some(path), Some(parent)) = (tree.path(id), tree.parent(id)) else {
            return;
        };
        watch
            .directories
            .watch(id, &self.hierarchy.directory(&path));
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        watch.directories.note_child(parent, name, id);
    }

    /// Opens the counters of a container. Keeps the state of its family, which will show its last counts when it is
    /// gone.
    pub(super) fn follow(&mut self, watch: &mut CounterWatch, id: CgroupId) {
        if !self.engine.registry().contains(id) {
            watch.close(id);
            return;
        }
        if !watch.is_open(id) {
            self.open(watch, id);
        }
        if !watch.is_open(id) {
            return;
        }
        let Some(parent) = self.engine.tree().parent(id) else {
            return;
        };
        if !watch.families.contains_key(&parent)
            && let Some((family, _)) = self.read_family(parent)
        {
            watch.families.insert(parent, family);
        }
    }

    fn open(&mut self, watch: &mut CounterWatch, id: CgroupId) {
        if let Some(path) = self.engine.tree().path(id) {
            watch.try_open(id, &self.hierarchy.directory(&path));
        }
    }

    /// Reads counters and reports what rose. A container's counter includes those below it, so those are read too,
    /// and later.
    pub(super) fn tell(&mut self, watch: &mut CounterWatch, ids: &[CgroupId]) {
        let wanted: HashSet<CgroupId> = ids.iter().copied().collect();
        let tree = self.engine.tree();
        let mut highest_first: Vec<(usize, CgroupId)> = if self.nests(&wanted) {
            let below = |id: &CgroupId| tree.lineage(*id).any(|above| wanted.contains(&above));
            let known = if watch.is_limited() {
                self.registered()
            } else {
                watch.open_ids()
            };
            let known = known
                .into_iter()
                .chain(wanted.iter().copied())
                .filter(below);
            let known: HashSet<CgroupId> = known.collect();
            known
                .into_iter()
                .map(|id| (tree.lineage(id).count(), id))
                .collect()
        } else {
            wanted.iter().map(|&id| (0, id)).collect()
        };
        highest_first.sort_unstable();
        let mut readings = Vec::with_capacity(highest_first.len());
        let mut gone = Vec::new();
        for (_, id) in highest_first {
            let is_open = watch.is_open(id);
            let read = if is_open {
                watch.read(id)
            } else {
                self.read_once(id)
            };
            match read {
                Ok(Some(read)) => readings.push(reading(id, read)),
                Ok(None) if is_open => gone.push(id),
                Ok(None) => {}
                Err(error) => warn!(%error, "cannot read a counter"),
            }
        }
        for id in gone {
            self.lost_counter(watch, id);
        }
        self.tell_readings(readings);
    }

    /// Reads a counter that is not watched.
    pub(super) fn read_once(&self, id: CgroupId) -> Result<Option<Read>, CgroupError> {
        let Some(path) = self.engine.tree().path(id) else {
            return Ok(None);
        };
        match CounterFile::open(&self.hierarchy.directory(&path))? {
            Some(mut file) => file.read(),
            None => Ok(None),
        }
    }

    /// Reports what readings show: at once, unless victims' own records are to come first.
    fn tell_readings(&mut self, mut readings: Vec<CounterReading>) {
        self.engine.note_causes(&readings, clock::now());
        if self.source.waits_for_victims() {
            let engine = &mut self.engine;
            let waiting: Vec<CounterReading> = readings
                .extract_if(.., |reading| engine.is_unexplained(reading))
                .collect();
            if !waiting.is_empty() {
                self.source.wait(waiting);
            }
        }
        let events = self.engine.read(&readings, clock::now());
        self.admit(events);
    }

    /// Whether any of these has a cgroup below it.
    fn nests(&self, ids: &HashSet<CgroupId>) -> bool {
        ids.iter().any(|&id| !self.engine.tree().is_leaf(id))
    }

    /// A counter is gone: with its cgroup, or with the memory controller, which may be back.
    fn lost_counter(&mut self, watch: &mut CounterWatch, id: CgroupId) {
        let Some(path) = self.engine.tree().path(id) else {
            return;
        };
        let directory = self.hierarchy.directory(&path);
        match self.hierarchy.id(&directory) {
            Ok(found) if found == id => {
                if self.engine.registry().contains(id) && watch.try_open(id, &directory) {
                    warn!(cgroup = id.0, "a container's counters began again at 0");
                    self.tell(watch, &[id]);
                }
            }
            Ok(_) | Err(CgroupError::NotFound { .. }) => {
                if let Some(parent) = self.engine.tree().parent(id) {
                    self.removed(watch, parent, vec![id], false);
                }
            }
            // It may be there: a sweep will show.
            Err(error) => warn!(%error, "a cgroup cannot be looked at"),
        }
    }
}

pub(super) fn reading(cgroup_id: CgroupId, read: Read) -> CounterReading {
    CounterReading {
        cgroup_id,
        serial: Some(read.serial),
        events: read.events,
    }
}
