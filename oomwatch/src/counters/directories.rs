//! Cgroups that come and go, by inotify on their parents' directories.
//!
//! Up to 6.18 the kernel is silent on a watch whose own cgroup is removed, and the watch stays. This module takes it
//! away.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tracing::debug;

use crate::{
    cgroup::hierarchy::{is_gone, is_too_deep},
    id::CgroupId,
    log::warn,
};

/// Room for a few dozen changes at a time.
const BUFFER_BYTES: usize = 16 * 1024;

/// A cgroup that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created {
        parent: CgroupId,
        name: Box<[u8]>,
    },
    Removed {
        parent: CgroupId,
        /// The removed cgroup; `None` where it was gone before its id could be read.
        id: Option<CgroupId>,
    },
}

/// The changes that were in the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) changes: Vec<Change>,
    /// Some were lost: look at everything.
    pub(crate) overflow: bool,
}

#[derive(Debug)]
struct Directory {
    watch: i32,
    children: HashMap<Box<[u8]>, CgroupId>,
}

/// All watched directories.
#[derive(Debug)]
pub(crate) struct Directories {
    inotify: OwnedFd,
    by_watch: HashMap<i32, CgroupId>,
    by_id: HashMap<CgroupId, Directory>,
    limited: bool,
}

impl Directories {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            by_watch: HashMap::new(),
            by_id: HashMap::new(),
            limited: false,
        })
    }

    /// Watches a cgroup's directory. A missing one is no error: its parent reports the removal.
    pub(crate) fn watch(&mut self, id: CgroupId, path: &Path) {
        if self.by_id.contains_key(&id) {
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(watch) => {
                self.by_watch.insert(watch, id);
                self.by_id.insert(
                    id,
                    Directory {
                        watch,
                        children: HashMap::new(),
                    },
                );
            }
            Err(error) if is_gone(&error.into()) => {}
            // No cgroup this deep can be recognised, and a sweep would not find it either.
            Err(error) if is_too_deep(&error.into()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.limited, true) {
                    warn!(
                        %error,
                        path = %path.display(),
                        "a cgroup's directory cannot be watched: changes there are looked for only now and then (raise fs.inotify.max_user_watches)"
                    );
                }
            }
        }
    }

    /// Takes in that a cgroup has a child.
    pub(crate) fn note_child(&mut self, parent: CgroupId, name: &[u8], id: CgroupId) {
        if let Some(directory) = self.by_id.get_mut(&parent) {
            directory.children.insert(name.into(), id);
        }
    }

    /// Stops watching a cgroup that is gone.
    pub(crate) fn forget(&mut self, id: CgroupId) {
        let Some(directory) = self.by_id.remove(&id) else {
            return;
        };
        self.by_watch.remove(&directory.watch);
        // Since 7.0 or 7.1 the kernel takes it away itself.
        if let Err(error) = inotify::remove_watch(&self.inotify, directory.watch) {
            debug!(%error, cgroup = id.0, "a watch was gone already");
        }
    }

    /// Known children of a cgroup that are not among `listed`; they are forgotten here.
    pub(crate) fn take_missing(
        &mut self,
        parent: CgroupId,
        listed: impl Fn(CgroupId) -> bool,
    ) -> Vec<CgroupId> {
        let Some(directory) = self.by_id.get_mut(&parent) else {
            return Vec::new();
        };
        let mut missing = Vec::new();
        directory.children.retain(|_, &mut id| {
            let stays = listed(id);
            if !stays {
                missing.push(id);
            }
            stays
        });
        missing
    }

    /// Whether some directories are not watched.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    /// Takes all changes in the queue.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut found = Changes::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return found,
                Err(error) => {
                    warn!(%error, "cannot read changes of cgroups");
                    return found;
                }
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                found.overflow = true;
                continue;
            }
            let (Some(&parent), Some(name)) = (self.by_watch.get(&event.wd()), event.file_name())
            else {
                continue;
            };
            if !flags.contains(ReadFlags::ISDIR) {
                continue;
            }
            let name = name.to_bytes();
            if flags.contains(ReadFlags::CREATE) {
                found.changes.push(Change::Created {
                    parent,
                    name: name.into(),
                });
            } else if flags.contains(ReadFlags::DELETE) {
                let directory = self.by_id.get_mut(&parent);
                found.changes.push(Change::Removed {
                    parent,
                    id: directory.and_then(|directory| directory.children.remove(name)),
                });
            }
        }
    }
}

impl AsFd for Directories {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ROOT: CgroupId = CgroupId::ROOT;

    #[test]
    fn directories_that_come_and_go_are_told_and_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut directories = Directories::new().unwrap();
        directories.watch(ROOT, directory.path());
        fs::write(directory.path().join("file"), "").unwrap();
        let child = directory.path().join("a");
        fs::create_dir(&child).unwrap();
        let created = Change::Created {
            parent: ROOT,
            name: b"a".as_slice().into(),
        };
        assert_eq!(directories.changes().changes, [created]);
        directories.note_child(ROOT, b"a", CgroupId(7));
        fs::remove_dir(&child).unwrap();
        let removed = |id| Change::Removed { parent: ROOT, id };
        assert_eq!(directories.changes().changes, [removed(Some(CgroupId(7)))]);
        fs::create_dir(&child).unwrap();
        fs::remove_dir(&child).unwrap();
        assert_eq!(directories.changes().changes.get(1), Some(&removed(None)));
    }

    #[test]
    fn a_directory_that_is_gone_is_no_limit() {
        let mut directories = Directories::new().unwrap();
        directories.watch(ROOT, Path::new("/proc/self/no-such-directory"));
        assert!(!directories.is_limited());
        assert_eq!(directories.changes(), Changes::default());
    }

    #[test]
    fn what_is_forgotten_is_not_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let mut directories = Directories::new().unwrap();
        directories.watch(ROOT, directory.path());
        directories.forget(ROOT);
        fs::create_dir(directory.path().join("a")).unwrap();
        assert_eq!(directories.changes(), Changes::default());
    }
}
