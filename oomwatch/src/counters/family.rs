//! The last count of a removed cgroup, from its parent's counter.
//!
//! A parent's hierarchical `oom_kill` is the sum of three parts: its own, its living children's, and its dead
//! children's. An increase of the last part belongs to the dead child, if there is only one. If there are several,
//! nobody can know which one it was, and none gets the increase.

use std::{collections::HashMap, ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::{
    cgroup::hierarchy::{CgroupError, is_gone},
    counters::file::CounterFile,
    id::CgroupId,
};

const LOCAL_EVENTS: &str = "memory.events.local";
/// Tries to read parent and children without a kill in between.
const TRIES: usize = 8;

/// The counters of one parent at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    /// Hierarchical `oom_kill` of the parent.
    pub(crate) total: u64,
    /// Local `oom_kill` of the parent.
    pub(crate) own: u64,
    /// Hierarchical `oom_kill` of living children; 0 where there is none.
    pub(crate) living: HashMap<CgroupId, u64>,
}

impl Family {
    /// The count of the children that were gone at this moment.
    fn dead(&self) -> u64 {
        let living: u64 = self.living.values().sum();
        self.total.saturating_sub(self.own).saturating_sub(living)
    }

    /// A child is gone, and no counter moved since this moment.
    pub(crate) fn bury(&mut self, child: CgroupId) {
        self.living.remove(&child);
    }

    /// The last known count of a child. `told` is the count in the child's ledger.
    pub(crate) fn last_known(&self, child: CgroupId, told: u64) -> u64 {
        told.max(self.living.get(&child).copied().unwrap_or(0))
    }

    /// The kills of children that went between this moment and `after`, beyond the known ones. `gone` has each child
    /// and the count in its ledger.
    pub(crate) fn untold(&self, after: &Self, gone: impl Iterator<Item = (CgroupId, u64)>) -> u64 {
        let known: u64 = gone.map(|(child, told)| self.last_known(child, told)).sum();
        after
            .dead()
            .saturating_sub(self.dead())
            .saturating_sub(known)
    }

    /// Reads a parent and its children. `None` if the parent is gone, has no memory controller, or never comes to
    /// rest. Also returns the listed children, counting or not.
    pub(crate) fn read(parent: &Path) -> Result<Option<(Self, Vec<CgroupId>)>, CgroupError> {
        let Some(mut file) = CounterFile::open(parent)? else {
            return Ok(None);
        };
        for _ in 0..TRIES {
            let Some(before) = oom_kill(&mut file)? else {
                return Ok(None);
            };
            let own = local_oom_kill(parent)?;
            let (living, listed) = children(parent)?;
            let Some(after) = oom_kill(&mut file)? else {
                return Ok(None);
            };
            if before == after {
                let family = Self {
                    total: after,
                    own,
                    living,
                };
                return Ok(Some((family, listed)));
            }
        }
        Ok(None)
    }
}

fn oom_kill(file: &mut CounterFile) -> Result<Option<u64>, CgroupError> {
    Ok(file.read()?.and_then(|read| read.events.oom_kill))
}

fn local_oom_kill(parent: &Path) -> Result<u64, CgroupError> {
    let file = CounterFile::open_as(parent, LOCAL_EVENTS)?;
    Ok(match file {
        Some(mut file) => oom_kill(&mut file)?.unwrap_or(0),
        None => 0,
    })
}

type Children = (HashMap<CgroupId, u64>, Vec<CgroupId>);

/// The children that counted anything, and all of them.
fn children(parent: &Path) -> Result<Children, CgroupError> {
    let failed = |error: rustix::io::Errno| CgroupError::Read {
        path: parent.into(),
        source: error.into(),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(parent, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(error) if is_gone(&error.into()) => return Ok(Children::default()),
        Err(error) => return Err(failed(error)),
    };
    let (mut counts, mut all) = Children::default();
    for entry in Dir::read_from(&directory).map_err(failed)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if is_gone(&io::Error::from(error)) => break,
            Err(error) => return Err(failed(error)),
        };
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let child = parent.join(OsStr::from_bytes(name.to_bytes()));
        let count = match CounterFile::open(&child)? {
            Some(mut file) => oom_kill(&mut file)?,
            None => None,
        };
        // One without a counter has no memory controller, or went a moment ago.
        if count.is_none() && !child.is_dir() {
            continue;
        }
        all.push(CgroupId(stat.st_ino));
        if let Some(count) = count.filter(|&count| count > 0) {
            counts.insert(CgroupId(stat.st_ino), count);
        }
    }
    Ok((counts, all))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    const A: CgroupId = CgroupId(10);
    const B: CgroupId = CgroupId(11);

    fn family(total: u64, own: u64, living: &[(CgroupId, u64)]) -> Family {
        Family {
            total,
            own,
            living: living.iter().copied().collect(),
        }
    }

    #[test]
    fn the_parents_rise_is_the_dead_childs() {
        let before = family(5, 0, &[(A, 2), (B, 3)]);
        let after = family(6, 0, &[(B, 3)]);
        assert_eq!(before.untold(&after, [(A, 2)].into_iter()), 1);
    }

    #[test]
    fn a_living_siblings_rise_is_not() {
        let before = family(5, 0, &[(A, 2), (B, 3)]);
        let after = family(9, 0, &[(B, 7)]);
        assert_eq!(before.untold(&after, [(A, 2)].into_iter()), 0);
    }

    #[test]
    fn what_was_told_since_is_not_told_again() {
        let before = family(0, 0, &[]);
        let after = family(2, 0, &[]);
        assert_eq!(before.untold(&after, [(A, 1)].into_iter()), 1);
        assert_eq!(before.untold(&after, [(A, 2)].into_iter()), 0);
    }

    #[test]
    fn nor_are_the_parents_own_kills() {
        let before = family(1, 1, &[]);
        let after = family(3, 3, &[]);
        assert_eq!(before.untold(&after, [(A, 0)].into_iter()), 0);
    }

    #[test]
    fn the_dead_of_old_are_in_the_past() {
        // Seven were killed in children that went before the start.
        let mut before = family(8, 0, &[(A, 1)]);
        let after = family(9, 0, &[]);
        assert_eq!(before.untold(&after, [(A, 1)].into_iter()), 1);
        before.bury(A);
        assert_eq!(before.dead(), 8);
    }

    #[test]
    fn a_family_is_read_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let parent = directory.path();
        let write = |path: &Path, text: &str| fs::write(path.join("memory.events"), text).unwrap();
        write(parent, "oom_kill 5\n");
        fs::write(parent.join(LOCAL_EVENTS), "oom_kill 1\n").unwrap();
        for (name, count) in [("a", 3), ("b", 0)] {
            fs::create_dir(parent.join(name)).unwrap();
            write(&parent.join(name), &format!("oom_kill {count}\n"));
        }
        fs::create_dir(parent.join("no-controller")).unwrap();
        let (family, listed) = Family::read(parent).unwrap().unwrap();
        let inode = |name: &str| CgroupId(fs::metadata(parent.join(name)).unwrap().ino());
        assert_eq!((family.total, family.own, family.dead()), (5, 1, 1));
        assert_eq!(family.living.get(&inode("a")), Some(&3));
        assert_eq!(listed.len(), 3);
        assert!(listed.contains(&inode("b")));
        assert_eq!(Family::read(&parent.join("gone")).unwrap(), None);
    }
}
