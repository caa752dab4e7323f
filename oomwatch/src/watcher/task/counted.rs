//! The task's side of watching counters: files to readings, directories to topology, removed
//! cgroups to what they counted last.

mod victim;

use std::collections::HashSet;

use tracing::{debug, error, warn};

use super::{super::source::Watched, Task};
use crate::{
    CgroupError, CgroupId, Scope, clock,
    counters::{CounterWatch, Read, directories::Change, family::Family, file::CounterFile},
    engine::reading::Reading,
    record::{CgroupChanged, Record},
};

/// Rounds of reading before others get their turn: each file wakes at most every 10 ms.
const MAX_ROUNDS: usize = 64;
/// Scans at the start: as many as it takes for one to find nothing new, but not for ever.
const MAX_SCANS: usize = 8;

impl Task {
    /// Watches the directories and the counters of everything that a scan has found.
    pub(super) fn watch_counters(&mut self) {
        self.with_counters(|task, watch| {
            task.watch_all(watch);
            // What was created between the scan and the watch of its parent is found by now.
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
            task.tell(watch, &[id]);
        });
    }

    /// Watches the counter of a cgroup that was registered.
    pub(super) fn watch_counter(&mut self, id: CgroupId) {
        self.with_counters(|task, watch| {
            task.follow(watch, id);
            // What its group kills are counted from.
            task.tell(watch, &[id]);
        });
    }

    /// Works through all that moved, came and went.
    pub(super) fn drain_counters(&mut self) {
        self.with_counters(|task, watch| {
            for _ in 0..MAX_ROUNDS {
                let moved = task.take_changes(watch);
                let ready = watch.ready().unwrap_or_else(|error| {
                    error!(%error, "the counters' notifications cannot be read");
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

    /// Looks at everything, watched or not.
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
            Watched::Limited
        } else if self.registered().into_iter().all(|id| watch.is_open(id)) {
            Watched::All
        } else {
            Watched::NotYet
        };
        self.source.swept(watched);
    }

    /// Cgroups that are alive and registered.
    fn registered(&self) -> Vec<CgroupId> {
        let registry = self.engine.registry();
        let live = self.engine.tree().live();
        live.filter(|&id| registry.get(id).is_some()).collect()
    }

    /// What the source's timer is for: a sweep, or readings that waited long enough.
    pub(super) fn source_timer(&mut self) {
        let now_ns = clock::now().boottime_ns;
        if self.source.is_sweep_due(now_ns) {
            self.sweep();
        }
        self.settle(now_ns);
    }

    /// Speaks of what readings up to `now_ns` tell and no victim told of.
    pub(super) fn settle(&mut self, now_ns: u64) {
        let settled = self.source.settled(now_ns);
        if settled.is_empty() {
            return;
        }
        self.drain_ring();
        for readings in settled {
            let events = self.engine.read(&readings, clock::now());
            self.publish(events);
        }
    }

    /// Lends out the watch, if this tier has one.
    fn with_counters(&mut self, work: impl FnOnce(&mut Self, &mut CounterWatch)) {
        if let Some(mut watch) = self.source.counters.take() {
            work(self, &mut watch);
            self.source.counters = Some(watch);
        }
    }

    /// Brings the watch up to the tree: for the start, and after changes were lost.
    fn watch_all(&mut self, watch: &mut CounterWatch) {
        let root = self.engine.tree().root();
        watch.directories.watch(root, self.hierarchy.mount());
        let mut new: Vec<(usize, CgroupId)> = self
            .engine
            .tree()
            .live()
            .map(|id| (self.engine.tree().lineage(id).count(), id))
            .collect();
        // Parents first, so that they can take note of their children.
        new.sort_unstable();
        for (_, id) in new {
            self.watch_directory(watch, id);
            self.follow(watch, id);
        }
    }

    fn watch_directory(&mut self, watch: &mut CounterWatch, id: CgroupId) {
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

    /// Opens the counters of a container; keeps the state of its family, which is what will tell
    /// of it when it is gone.
    fn follow(&mut self, watch: &mut CounterWatch, id: CgroupId) {
        if self.engine.registry().get(id).is_none() {
            watch.close(id);
            return;
        }
        if !watch.is_open(id) {
            self.open(watch, id);
            self.open_account(watch, id);
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

    /// A container whose memory controller was off when it was found has no book yet; its
    /// counters began at 0 when it was switched on.
    fn open_account(&mut self, watch: &CounterWatch, id: CgroupId) {
        if watch.is_open(id) && !self.engine.has_account(id) {
            let now_ns = clock::now().boottime_ns;
            self.engine.baseline(id, 0, now_ns);
        }
    }

    /// `None` for the root, which has no counters, and where counters are not hierarchical.
    fn read_family(&self, parent: CgroupId) -> Option<(Family, Vec<CgroupId>)> {
        if self.engine.tree().is_root(parent) || self.hierarchy.counts_locally() {
            return None;
        }
        let path = self.engine.tree().path(parent)?;
        match Family::read(&self.hierarchy.directory(&path)) {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the counters of a container's parent cannot be read");
                None
            }
        }
    }

    /// Hierarchical `oom_kill` of a parent.
    fn total(&self, parent: CgroupId) -> Option<u64> {
        let path = self.engine.tree().path(parent)?;
        self.hierarchy.memory_events(&path).ok()??.oom_kill
    }

    /// Reads counters and speaks of what rose. A container's counter includes those below it,
    /// which are therefore read too, and later.
    fn tell(&mut self, watch: &mut CounterWatch, ids: &[CgroupId]) {
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
                Err(error) => warn!(%error, "a counter cannot be read"),
            }
        }
        for id in gone {
            self.lost_counter(watch, id);
        }
        self.tell_readings(readings);
    }

    /// Reads a counter that is not watched.
    fn read_once(&self, id: CgroupId) -> Result<Option<Read>, CgroupError> {
        let Some(path) = self.engine.tree().path(id) else {
            return Ok(None);
        };
        match CounterFile::open(&self.hierarchy.directory(&path))? {
            Some(mut file) => file.read(),
            None => Ok(None),
        }
    }

    /// Speaks of what readings tell; at once, unless victims are to tell of themselves first.
    fn tell_readings(&mut self, mut readings: Vec<Reading>) {
        if self.source.waits_for_victims() {
            let engine = &mut self.engine;
            let waiting: Vec<Reading> = readings
                .extract_if(.., |reading| engine.is_unexplained(reading))
                .collect();
            if !waiting.is_empty() {
                self.source.wait(waiting);
            }
        }
        let events = self.engine.read(&readings, clock::now());
        self.publish(events);
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
        if !self.hierarchy.id(&directory).is_ok_and(|found| found == id) {
            if let Some(parent) = self.engine.tree().parent(id) {
                self.removed(watch, parent, vec![id], false);
            }
        } else if self.engine.registry().get(id).is_some() && watch.try_open(id, &directory) {
            warn!(
                cgroup = id.0,
                "the counters of a container started again at 0"
            );
            self.tell(watch, &[id]);
        }
    }

    /// Takes in which cgroups came and went; tells whether any did.
    fn take_changes(&mut self, watch: &mut CounterWatch) -> bool {
        let found = watch.directories.changes();
        if found.overflow {
            warn!("changes of cgroups were lost; scanning again");
            self.rescan(watch, true);
        }
        let any = !found.changes.is_empty();
        let mut removed: Vec<(CgroupId, Vec<CgroupId>, bool)> = Vec::new();
        for change in found.changes {
            match change {
                Change::Created { parent, name } => self.created(watch, parent, &name),
                Change::Removed { parent, id } => {
                    let known = removed.iter_mut().find(|(known, ..)| *known == parent);
                    match known {
                        Some((_, ids, nameless)) => {
                            ids.extend(id);
                            *nameless |= id.is_none();
                        }
                        None => {
                            removed.push((parent, id.into_iter().collect(), id.is_none()));
                        }
                    }
                }
            }
        }
        for (parent, ids, nameless) in removed {
            self.removed(watch, parent, ids, nameless);
        }
        any
    }

    /// A cgroup came; it may have children already, made before anybody watched it.
    fn created(&mut self, watch: &mut CounterWatch, parent: CgroupId, name: &[u8]) {
        let Some(mut path) = self.engine.tree().path(parent) else {
            return;
        };
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let directory = self.hierarchy.directory(&path);
        let Ok(id) = self.hierarchy.id(&directory) else {
            // Gone already; the removal tells.
            return;
        };
        let is_new = !self.engine.tree().contains(id);
        let now = clock::now();
        let record = Record::CgroupCreated(change(id, parent, Some(name), now.boottime_ns));
        let events = self.engine.apply(&[record], now);
        self.publish(events);
        self.watch_directory(watch, id);
        self.follow(watch, id);
        if self.engine.registry().get(id).is_some() && !watch.is_open(id) {
            self.source.sweep_soon();
        }
        // With `--all-cgroups` its parent is no leaf any more.
        self.follow(watch, parent);
        if is_new {
            self.tell(watch, &[id]);
            for name in children(&directory) {
                self.created(watch, id, &name);
            }
        }
    }

    /// Children of one parent are gone: what they counted last is told by the parent. `nameless`
    /// where one of them was never known.
    fn removed(
        &mut self,
        watch: &mut CounterWatch,
        parent: CgroupId,
        mut gone: Vec<CgroupId>,
        nameless: bool,
    ) {
        // A victim tells of itself before its cgroup can go.
        self.drain_ring();
        if let Some(mut before) = watch.families.remove(&parent) {
            if self.total(parent) == Some(before.total) {
                // Nothing was killed since.
                gone.iter().for_each(|&id| before.bury(id));
                watch.families.insert(parent, before);
            } else if let Some((after, listed)) = self.read_family(parent) {
                // More may have gone since, of which the queue tells later.
                let listed: HashSet<CgroupId> = listed.into_iter().collect();
                gone.extend(
                    watch
                        .directories
                        .take_missing(parent, |id| listed.contains(&id)),
                );
                gone.sort_unstable();
                gone.dedup();
                // One that was taken in before is in the counts of before.
                gone.retain(|&id| self.engine.tree().is_live(id));
                self.settle_family(parent, &before, &after, &gone, nameless);
                watch.families.insert(parent, after);
            } else {
                debug!(
                    parent = parent.0,
                    "cgroups went with their parent: their last count is unknown"
                );
            }
        }
        let now = clock::now();
        for id in gone {
            watch.close(id);
            watch.directories.forget(id);
            watch.families.remove(&id);
            let record = Record::CgroupRemoved(change(id, parent, None, now.boottime_ns));
            let events = self.engine.apply(&[record], now);
            self.publish(events);
        }
        self.follow(watch, parent);
    }

    /// Speaks of what the children that are gone counted last, if it is certain whose it was.
    fn settle_family(
        &mut self,
        parent: CgroupId,
        before: &Family,
        after: &Family,
        gone: &[CgroupId],
        nameless: bool,
    ) {
        let told = |id: CgroupId| self.engine.last_known(id).unwrap_or(0);
        let untold = before.untold(after, gone.iter().map(|&id| (id, told(id))));
        if untold == 0 {
            return;
        }
        let now = clock::now();
        let is_container = |id: &CgroupId| self.engine.owner(*id) == Some(*id);
        let event = if let [only] = gone
            && is_container(only)
            && !nameless
        {
            let last = before.last_known(*only, told(*only)) + untold;
            self.engine.read_last(*only, last, now)
        } else if self.engine.owner(parent).is_some() {
            // A container above tells of it by its own counter.
            None
        } else if nameless || gone.iter().any(is_container) {
            warn!(
                kills = untold,
                parent = parent.0,
                "several cgroups were removed at once, with kills that cannot be assigned"
            );
            Some(self.engine.residual(parent, untold, now))
        } else {
            None
        };
        self.publish(event.into_iter().collect());
    }

    /// Looks at the whole hierarchy, and takes in what came and went without a word. `is_new`
    /// where cgroups that were not known were created since the start, so that their counters
    /// began at 0.
    fn rescan(&mut self, watch: &mut CounterWatch, is_new: bool) {
        let mut live = HashSet::from([self.engine.tree().root()]);
        let mut created = Vec::new();
        let now = clock::now();
        let tree = self.engine.tree();
        let scanned = self.hierarchy.scan(|id, parent, name| {
            live.insert(id);
            if is_new && !tree.contains(id) {
                let change = change(id, parent, Some(name), now.boottime_ns);
                created.push(Record::CgroupCreated(change));
            }
        });
        if let Err(error) = scanned {
            error!(%error, "the cgroup hierarchy cannot be scanned");
            return;
        }
        let gone: Vec<CgroupId> = tree.live().filter(|id| !live.contains(id)).collect();
        for id in gone {
            if let Some(parent) = self.engine.tree().parent(id) {
                self.removed(watch, parent, vec![id], false);
            }
        }
        let events = self.engine.apply(&created, now);
        self.publish(events);
        if let Err(error) = self.scan() {
            error!(%error, "the cgroup hierarchy cannot be scanned");
        }
        self.watch_all(watch);
    }
}

fn reading(cgroup_id: CgroupId, read: Read) -> Reading {
    Reading {
        cgroup_id,
        serial: Some(read.serial),
        events: read.events,
        scope: Scope::Unknown,
    }
}

fn change(
    cgroup_id: CgroupId,
    parent: CgroupId,
    name: Option<&[u8]>,
    boottime_ns: u64,
) -> CgroupChanged {
    CgroupChanged {
        seq: 0,
        boottime_ns,
        cgroup_id,
        parent_id: Some(parent),
        name: name.map(Box::from),
        counters: None,
    }
}

/// Names of the directories in a directory; none where it is gone.
fn children(directory: &std::path::Path) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt as _;
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().into_vec())
        .collect()
}
