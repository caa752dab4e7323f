//! A walk over the memory cgroups' counters, from the top down. It reads nothing below a cgroup whose hierarchical
//! counter is already known. The walk can go in steps. It judges nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    cgroup::hierarchy::{Hierarchy, is_gone},
    id::{CgroupId, Css},
    ledger::{Reading, Readings},
    memory_events::MemoryEvents,
};

const OWN: &str = "memory.events.local";
const SUM: &str = "memory.events";

/// A cgroup that is to be read.
#[derive(Debug)]
struct Next {
    path: PathBuf,
    id: CgroupId,
    parent: CgroupId,
    /// Its hierarchical counter, or where there are no sums, its own.
    sum: u64,
}

/// The walk.
#[derive(Debug)]
pub(crate) struct CounterWalk {
    has_sums: bool,
    next: Vec<Next>,
    readings: Vec<Reading>,
    /// Cgroups below which something was not read: a directory that cannot be listed, or is too deep.
    unread: Vec<CgroupId>,
}

impl CounterWalk {
    /// Begins a walk from `root` down. `known` returns the known count of a cgroup and of all below it.
    pub(crate) fn begin(
        hierarchy: &Hierarchy,
        root: CgroupId,
        known: &impl Fn(CgroupId) -> u64,
    ) -> Self {
        let mut walk = Self {
            has_sums: !hierarchy.counts_locally(),
            next: Vec::new(),
            readings: Vec::new(),
            unread: Vec::new(),
        };
        // The root has no counters. They begin at its children.
        let top = walk.children(hierarchy.mount(), root);
        walk.push(top, known);
        walk
    }

    /// Reads `limit` cgroups at most. Returns whether there are more.
    pub(crate) fn step(&mut self, limit: usize, known: &impl Fn(CgroupId) -> u64) -> bool {
        for _ in 0..limit {
            let Some(next) = self.next.pop() else {
                return false;
            };
            let (css, own) = match own(&next.path) {
                Ok(Some(read)) => read,
                // Its removal reports a cgroup that is gone.
                Ok(None) => continue,
                Err(_) => {
                    self.unread.push(next.id);
                    continue;
                }
            };
            let children = self.children(&next.path, next.id);
            self.readings.push(Reading {
                cgroup_id: next.id,
                parent: Some(next.parent),
                css,
                own,
                sum: self.has_sums.then_some(next.sum),
                children: children.iter().map(|child| (child.id, child.sum)).collect(),
            });
            self.push(children, known);
        }
        !self.next.is_empty()
    }

    /// All that was read.
    pub(crate) fn done(self) -> Readings {
        Readings {
            readings: self.readings,
            unread: self.unread,
        }
    }

    fn push(&mut self, children: Vec<Next>, known: &impl Fn(CgroupId) -> u64) {
        let has_sums = self.has_sums;
        let is_news = |child: &Next| !has_sums || child.sum != known(child.id);
        self.next.extend(children.into_iter().filter(is_news));
    }

    /// The children that have counters.
    fn children(&mut self, path: &Path, id: CgroupId) -> Vec<Next> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                if !is_gone(&error) {
                    self.unread.push(id);
                }
                return Vec::new();
            }
        };
        let mut children = Vec::new();
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            match sum(&path) {
                Ok(Some(sum)) => children.push(Next {
                    id: CgroupId(entry_id(&entry)),
                    parent: id,
                    path,
                    sum,
                }),
                Ok(None) => {}
                Err(_) => self.unread.push(id),
            }
        }
        children
    }
}

/// The inode number, which is the cgroup's id.
fn entry_id(entry: &fs::DirEntry) -> u64 {
    use std::os::unix::fs::DirEntryExt as _;
    entry.ino()
}

/// A cgroup's hierarchical `oom_kill`; `None` where the controller is off, or the cgroup gone.
fn sum(path: &Path) -> io::Result<Option<u64>> {
    match fs::read(path.join(SUM)) {
        Ok(text) => Ok(oom_kill(&text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A cgroup's own `oom_kill`, and which counters those are; `None` where the controller is off, or the cgroup gone.
pub(crate) fn own(path: &Path) -> io::Result<Option<(Css, u64)>> {
    use std::io::Read as _;
    let read = || {
        let mut file = fs::File::open(path.join(OWN))?;
        let inode = file.metadata()?.ino();
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok((inode, text))
    };
    let (inode, text) = match read() {
        Ok(read) => read,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let css = Css {
        inode: Some(inode),
        serial: None,
    };
    Ok(oom_kill(&text).map(|own| (css, own)))
}

fn oom_kill(text: &[u8]) -> Option<u64> {
    MemoryEvents::parse(text).ok()?.oom_kill
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_news_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let make = |path: &str, own: u64, sum: u64| {
            let path = directory.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(OWN), format!("oom 0\noom_kill {own}\n")).unwrap();
            fs::write(path.join(SUM), format!("oom 0\noom_kill {sum}\n")).unwrap();
            CgroupId(fs::metadata(&path).unwrap().ino())
        };
        let pod = make("pod", 0, 3);
        let app = make("pod/app", 2, 2);
        let side = make("pod/side", 0, 0);
        let idle = make("idle", 0, 0);
        fs::create_dir(directory.path().join("pod/off")).unwrap();
        let root = CgroupId(fs::metadata(directory.path()).unwrap().ino());
        let mut walk = CounterWalk {
            has_sums: true,
            next: Vec::new(),
            readings: Vec::new(),
            unread: Vec::new(),
        };
        let top = walk.children(directory.path(), root);
        walk.push(top, &|_| 0);
        while walk.step(1, &|_| 0) {}
        let Readings { readings, unread } = walk.done();
        assert_eq!(unread, []);
        let read: Vec<CgroupId> = readings.iter().map(|reading| reading.cgroup_id).collect();
        assert_eq!(read, [pod, app]);
        let first = readings.first().unwrap();
        assert_eq!(
            (first.parent, first.own, first.sum),
            (Some(root), 0, Some(3))
        );
        let mut children = first.children.clone();
        children.sort_unstable();
        let mut expected = vec![(app, 2), (side, 0)];
        expected.sort_unstable();
        assert_eq!(children, expected);
        assert!(!read.contains(&idle));
    }
}
