//! A scan: every cgroup below the mounted one, parents first.
//!
//! The owner of a delegated cgroup decides how deep and how wide it is. So the scan does not recurse. It holds three
//! descriptors at any depth, and only the names of directories that it has yet to enter. A directory that cannot be
//! read costs its own subtree, and [`Skipped`] notes it. The scan knows neither the tree nor the cgroups of earlier
//! scans.

use std::{
    ffi::{CStr, CString},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dev, FileType, RawDir, RawDirEntry},
    io::Errno,
};

use super::hierarchy::is_gone;
use crate::id::CgroupId;
pub(crate) use crate::topology::skipped::Skipped;

/// Levels that a scan enters below the mounted cgroup. A cgroup keeps 8 bytes for each of its ancestors, so the
/// kernel spends 1 GiB on a chain of this length.
pub(crate) const MAX_DEPTH: usize = 16_384;
/// Room for some 500 directory entries at a time.
const BUFFER_BYTES: usize = 32 * 1024;

/// A directory that the scan is in.
struct Level {
    id: CgroupId,
    name: CString,
    /// Children with children of their own, yet to be entered.
    pending: Vec<Child>,
}

struct Child {
    id: CgroupId,
    name: CString,
}

/// A scan under way.
struct Scan<'a, Found, Open> {
    found: Found,
    /// Opens a directory in a directory.
    open: Open,
    max_depth: usize,
    root: &'a OwnedFd,
    device: Dev,
    /// The directory of the last level; `None` for the root.
    at: Option<OwnedFd>,
    /// From the root to where the scan is.
    levels: Vec<Level>,
    buffer: Vec<MaybeUninit<u8>>,
    skipped: Skipped,
}

/// Calls `found(id, parent, name)` for every cgroup below `root`, parents first. `open` opens a directory in
/// a directory.
pub(crate) fn scan(
    root: &OwnedFd,
    open: impl Fn(BorrowedFd<'_>, &CStr) -> Result<OwnedFd, Errno>,
    found: impl FnMut(CgroupId, CgroupId, &[u8]),
) -> Result<Skipped, Errno> {
    scan_to(MAX_DEPTH, root, open, found)
}

fn scan_to(
    max_depth: usize,
    root: &OwnedFd,
    open: impl Fn(BorrowedFd<'_>, &CStr) -> Result<OwnedFd, Errno>,
    found: impl FnMut(CgroupId, CgroupId, &[u8]),
) -> Result<Skipped, Errno> {
    let stat = rustix::fs::fstat(root)?;
    let scan = Scan {
        found,
        open,
        max_depth,
        root,
        device: stat.st_dev,
        at: None,
        levels: vec![Level {
            id: CgroupId(stat.st_ino),
            name: CString::default(),
            pending: Vec::new(),
        }],
        buffer: vec![MaybeUninit::uninit(); BUFFER_BYTES],
        skipped: Skipped::default(),
    };
    Ok(scan.run())
}

impl<Found, Open> Scan<'_, Found, Open>
where
    Found: FnMut(CgroupId, CgroupId, &[u8]),
    Open: Fn(BorrowedFd<'_>, &CStr) -> Result<OwnedFd, Errno>,
{
    fn run(mut self) -> Skipped {
        self.list();
        while let Some(level) = self.levels.last_mut() {
            match level.pending.pop() {
                Some(child) => self.descend(child),
                None => self.ascend(),
            }
        }
        self.skipped
    }

    /// Passes on all children of the last level.
    fn list(&mut self) {
        let at = self.at.take();
        let mut buffer = std::mem::take(&mut self.buffer);
        let directory = at.as_ref().unwrap_or(self.root).as_fd();
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => self.see(directory, &entry),
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.skip_level(self.levels.len(), error);
                    break;
                }
            }
        }
        self.buffer = buffer;
        self.at = at;
    }

    /// Sees one entry. A directory's link count is 2 plus one for each child. So a leaf costs one `stat`, and no
    /// listing of its 60 files. Most cgroups are leaves.
    fn see(&mut self, directory: BorrowedFd<'_>, entry: &RawDirEntry<'_>) {
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            return;
        }
        let (id, links) = match self.stat(directory, entry) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error.into()) => return,
            Err(error) => {
                let id = CgroupId(entry.ino());
                self.tell(id, name);
                return self.skip(id, name, error);
            }
        };
        self.tell(id, name);
        if links <= 2 {
            return;
        }
        if self.levels.len() >= self.max_depth {
            let path = || path(&self.levels, name);
            return self.skipped.too_deep(id, path);
        }
        if let Some(level) = self.levels.last_mut() {
            let name = name.to_owned();
            level.pending.push(Child { id, name });
        }
    }

    /// Id and link count; an error too where another file system is mounted over the cgroup.
    fn stat(
        &self,
        directory: BorrowedFd<'_>,
        entry: &RawDirEntry<'_>,
    ) -> Result<(CgroupId, u64), Errno> {
        let name = entry.file_name();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        #[allow(clippy::useless_conversion, reason = "it is shorter on arm64")]
        Ok((CgroupId(stat.st_ino), stat.st_nlink.into()))
    }

    fn tell(&mut self, id: CgroupId, name: &CStr) {
        if let Some(level) = self.levels.last() {
            (self.found)(id, level.id, name.to_bytes());
        }
    }

    /// Enters a child, and leaves it at once if none of its children is to be entered.
    fn descend(&mut self, child: Child) {
        let at = self.at.as_ref().unwrap_or(self.root);
        let opened = (self.open)(at.as_fd(), &child.name)
            .and_then(|below| Ok((CgroupId(rustix::fs::fstat(&below)?.st_ino), below)));
        let (id, below) = match opened {
            Ok(opened) => opened,
            Err(error) if is_gone(&error.into()) => return,
            Err(error) => return self.skip(child.id, &child.name, error),
        };
        if id != child.id {
            // Another cgroup has taken its name meanwhile.
            self.tell(id, &child.name);
        }
        self.levels.push(Level {
            id,
            name: child.name,
            pending: Vec::new(),
        });
        let above = self.at.replace(below);
        self.list();
        if self
            .levels
            .pop_if(|level| level.pending.is_empty())
            .is_some()
        {
            self.at = above;
        }
    }

    /// Goes up to the next level with something left to enter.
    fn ascend(&mut self) {
        let mut steps = 0;
        while self
            .levels
            .pop_if(|level| level.pending.is_empty())
            .is_some()
        {
            steps += 1;
        }
        if self.levels.len() <= 1 {
            self.at = None;
        } else if self.climb(steps).is_err() {
            self.enter_again();
        }
    }

    /// Goes up. A cgroup never moves, and a removed one still knows its parent. So this fails only without
    /// descriptors or memory.
    fn climb(&mut self, steps: usize) -> Result<(), Errno> {
        for _ in 0..steps {
            let at = self.at.as_ref().unwrap_or(self.root);
            self.at = Some((self.open)(at.as_fd(), c"..")?);
        }
        self.check_last(self.levels.len())
    }

    /// Goes down from the root by names, as far as possible. A removed cgroup has nothing left to enter. One that
    /// cannot be opened is skipped with the rest of its subtree.
    fn enter_again(&mut self) {
        self.at = None;
        for depth in 1..self.levels.len() {
            if let Err(error) = self.enter(depth) {
                self.skip_level(depth + 1, error);
                self.levels.truncate(depth);
                return;
            }
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), Errno> {
        let at = self.at.as_ref().unwrap_or(self.root);
        let level = self.levels.get(depth).ok_or(Errno::NOENT)?;
        let below = (self.open)(at.as_fd(), &level.name)?;
        let above = self.at.replace(below);
        self.check_last(depth + 1).inspect_err(|_| self.at = above)
    }

    /// Whether the scan is in the last one of this many levels.
    fn check_last(&self, levels: usize) -> Result<(), Errno> {
        let at = self.at.as_ref().unwrap_or(self.root);
        let id = CgroupId(rustix::fs::fstat(at)?.st_ino);
        let last = levels.checked_sub(1).and_then(|last| self.levels.get(last));
        match last {
            Some(level) if level.id == id => Ok(()),
            _ => Err(Errno::NOENT),
        }
    }

    /// Notes that the last one of this many levels may have more below it.
    fn skip_level(&mut self, levels: usize, error: Errno) {
        if is_gone(&error.into()) {
            return;
        }
        if let Some((level, above)) = self.levels.get(..levels).and_then(<[_]>::split_last) {
            let path = || path(above, &level.name);
            self.skipped.failed(level.id, failure(error), path);
        }
    }

    /// Notes that a child of the last level may have more below it.
    fn skip(&mut self, id: CgroupId, name: &CStr, error: Errno) {
        let path = || path(&self.levels, name);
        self.skipped.failed(id, failure(error), path);
    }
}

/// The path from the root of a directory in the last one of these levels.
fn path(levels: &[Level], name: &CStr) -> Vec<u8> {
    let names = levels.iter().map(|level| level.name.as_c_str());
    let mut path = Vec::new();
    for name in names.chain([name]).filter(|name| !name.is_empty()) {
        path.push(b'/');
        path.extend_from_slice(name.to_bytes());
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// An error, and whether the next scan may not meet it.
fn failure(error: Errno) -> (std::io::Error, bool) {
    let lasts = matches!(error, Errno::ACCESS | Errno::PERM | Errno::XDEV);
    (error.into(), !lasts)
}

#[cfg(test)]
mod tests;
