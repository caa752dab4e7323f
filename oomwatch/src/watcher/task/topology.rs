//! Cgroups that come and go, as their parents' directories and a scan show; and the last counters of those that went.

use std::{collections::HashSet, io};

use tracing::{debug, error};

use super::Task;
use crate::{
    cgroup::{hierarchy::CgroupError, walk},
    clock,
    counters::{CounterWatch, directories::Change, family::Family},
    id::CgroupId,
    log::warn,
    record::{CgroupChanged, Record},
};

impl Task {
    /// Takes in which cgroups came and went; tells whether any did.
    pub(super) fn take_changes(&mut self, watch: &mut CounterWatch) -> bool {
        let found = watch.directories.changes();
        if found.overflow {
            warn!("changes of cgroups were lost: oomwatch scans again");
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

    /// Takes in a new cgroup; it may have children already, made before anybody watched it.
    pub(super) fn created(&mut self, watch: &mut CounterWatch, parent: CgroupId, name: &[u8]) {
        let Some(mut path) = self.engine.tree().path(parent) else {
            return;
        };
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let directory = self.hierarchy.directory(&path);
        let id = match self.hierarchy.id(&directory) {
            Ok(id) => id,
            // Gone already; the removal reports it.
            Err(CgroupError::NotFound { .. }) => return,
            Err(error) => return warn!(%error, "cannot look at a new cgroup"),
        };
        let is_new = !self.engine.tree().contains(id);
        let now = clock::now();
        let record = Record::CgroupCreated(change(id, parent, Some(name), now.boottime_ns));
        self.engine.work_through(&[record], now);
        self.watch_directory(watch, id);
        self.follow(watch, id);
        if self.engine.registry().contains(id) && !watch.is_open(id) {
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

    /// Takes in that children of one parent are gone: the parent's counter shows what they counted last. `nameless`
    /// where one of them was never known.
    pub(super) fn removed(
        &mut self,
        watch: &mut CounterWatch,
        parent: CgroupId,
        mut gone: Vec<CgroupId>,
        nameless: bool,
    ) {
        // A victim's own record comes before its cgroup can go.
        self.drain_ring();
        if let Some(mut before) = watch.families.remove(&parent) {
            if self.total(parent) == Some(before.total) {
                // Nothing was killed since.
                gone.iter().for_each(|&id| before.bury(id));
                watch.families.insert(parent, before);
            } else if let Some((after, listed)) = self.read_family(parent) {
                // More children may have gone since; the queue reports them later.
                let listed: HashSet<CgroupId> = listed.into_iter().collect();
                gone.extend(
                    watch
                        .directories
                        .take_missing(parent, |id| listed.contains(&id)),
                );
                gone.sort_unstable();
                gone.dedup();
                // A child that was taken in before is in the counts of before.
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
            self.engine.work_through(&[record], now);
        }
        self.follow(watch, parent);
    }

    /// Reports what the children that are gone counted last, if it is certain whose it was.
    fn settle_family(
        &mut self,
        parent: CgroupId,
        before: &Family,
        after: &Family,
        gone: &[CgroupId],
        nameless: bool,
    ) {
        let told = |id: CgroupId| self.engine.last_known(id);
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
            // A container above reports it by its own counter.
            None
        } else if nameless || gone.iter().any(is_container) {
            warn!(
                kills = untold,
                parent = parent.0,
                "several cgroups were removed at once: their kills belong to none in particular"
            );
            Some(self.engine.residual(parent, untold, now))
        } else {
            None
        };
        self.admit(event);
    }

    /// Scans the whole hierarchy once more, because an earlier scan failed or skipped something.
    pub(in super::super::task) fn rescan_counted(&mut self) {
        self.with_counters(|task, watch| task.rescan(watch, true));
    }

    /// Scans the whole hierarchy, and takes in cgroups that came and went without a notification. `is_new` where
    /// unknown cgroups were created since the start, so that their counters began at 0.
    pub(super) fn rescan(&mut self, watch: &mut CounterWatch, is_new: bool) {
        let now = clock::now();
        let known = self.engine.tree().live().collect();
        let walk = match walk::once(&self.hierarchy, known, now.boottime_ns) {
            Ok(walk) => walk,
            Err(error) => return self.cannot_scan(&error),
        };
        let mut created = Vec::new();
        if is_new {
            let young = self.engine.young_ones(&walk).into_iter();
            created.extend(young.map(|found| {
                let change = change(found.id, found.parent, Some(&found.name), now.boottime_ns);
                Record::CgroupCreated(change)
            }));
        }
        for id in self.engine.gone(&walk) {
            if let Some(parent) = self.engine.tree().parent(id) {
                self.removed(watch, parent, vec![id], false);
            }
        }
        self.engine.work_through(&created, now);
        if let Err(error) = self.scan_tree() {
            self.cannot_scan(&error);
        }
        self.watch_all(watch);
    }

    fn cannot_scan(&mut self, error: &io::Error) {
        error!(%error, "cannot scan the cgroup hierarchy: oomwatch tries again");
        self.scans.retry_later();
    }

    /// `None` for the root, which has no counters, and where counters are not hierarchical.
    pub(super) fn read_family(&self, parent: CgroupId) -> Option<(Family, Vec<CgroupId>)> {
        if self.engine.tree().is_root(parent) || self.hierarchy.counts_locally() {
            return None;
        }
        let path = self.engine.tree().path(parent)?;
        match Family::read(&self.hierarchy.directory(&path)) {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "cannot read the counters of a container's parent");
                None
            }
        }
    }

    /// Hierarchical `oom_kill` of a parent.
    fn total(&self, parent: CgroupId) -> Option<u64> {
        let path = self.engine.tree().path(parent)?;
        self.hierarchy.memory_events(&path).ok()??.oom_kill
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
        charged: None,
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
