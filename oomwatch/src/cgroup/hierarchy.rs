//! The cgroup v2 hierarchy as files: its mount, its cgroups, and the counters of one cgroup.
//!
//! A missing cgroup (`ENOENT`, `ENODEV`) is data here, not an error.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::scan::scan;
use crate::{
    id::CgroupId,
    memory_events::{MemoryEvents, MemoryEventsError},
    topology::skipped::Skipped,
};

/// `statfs` type of cgroup v2.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const MEMORY_EVENTS: &str = "memory.events";

/// Which hierarchy controls memory on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryMode {
    /// On the v2 hierarchy: counters and limits are there.
    Unified,
    /// A v2 hierarchy without the memory controller. Victims have a cgroup there, but there are no counters to
    /// reconcile with.
    Hybrid,
}

/// A mounted v2 hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    mode: MemoryMode,
    local_events: bool,
}

/// Why no hierarchy, or no cgroup in it, was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// Only v1 hierarchies, or none.
    #[error(
        "no cgroup v2 hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1, or `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NoHierarchy,
    /// A file of the system could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path that is not below the mount.
    #[error("{} is not below the cgroup v2 mount {}", path.display(), mount.display())]
    OutsideMount {
        /// The path as given.
        path: PathBuf,
        /// The mount.
        mount: PathBuf,
    },
    /// A path that is not a cgroup's directory.
    #[error("{} is not a cgroup: it must be a directory of the hierarchy, such as {}/system.slice", path.display(), mount.display())]
    NotACgroup {
        /// The path as given.
        path: PathBuf,
        /// The mount.
        mount: PathBuf,
    },
    /// The cgroup is not there.
    #[error("there is no cgroup {}", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// `memory.events` is malformed.
    #[error("{} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line.
        #[source]
        source: MemoryEventsError,
    },
}

impl Hierarchy {
    /// Finds where cgroup v2 is mounted.
    pub(crate) fn find() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = std::fs::read_to_string(path).map_err(|source| CgroupError::Read {
            path: path.into(),
            source,
        })?;
        let (mount, options) = parse_mountinfo(&mounts).ok_or(CgroupError::NoHierarchy)?;
        let controllers = mount.join("cgroup.controllers");
        let listed = std::fs::read_to_string(&controllers).map_err(|source| CgroupError::Read {
            path: controllers,
            source,
        })?;
        Ok(Self {
            mode: if listed.split_whitespace().any(|name| name == "memory") {
                MemoryMode::Unified
            } else {
                MemoryMode::Hybrid
            },
            local_events: options
                .split(',')
                .any(|option| option == "memory_localevents"),
            mount,
        })
    }

    /// The hierarchy that would be mounted there.
    #[cfg(test)]
    pub(crate) fn at(mount: impl Into<PathBuf>) -> Self {
        Self {
            mount: mount.into(),
            mode: MemoryMode::Unified,
            local_events: false,
        }
    }

    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    pub(crate) fn mode(&self) -> MemoryMode {
        self.mode
    }

    /// Whether `memory.events` counts only the cgroup itself (`memory_localevents`).
    pub(crate) fn counts_locally(&self) -> bool {
        self.local_events
    }

    /// Why counters alone cannot show kills here.
    pub(crate) fn lacks_counters(&self) -> Option<&'static str> {
        match (self.mode, self.local_events) {
            (MemoryMode::Hybrid, _) => Some(
                "the memory controller is on cgroup v1; boot with systemd.unified_cgroup_hierarchy=1",
            ),
            (MemoryMode::Unified, true) => Some(
                "memory.events counts each cgroup alone; mount cgroup2 without memory_localevents",
            ),
            (MemoryMode::Unified, false) => None,
        }
    }

    /// Id of the mounted cgroup: the root of the hierarchy. In a foreign cgroup namespace it is some cgroup further
    /// down, and no victim outside of it has a path.
    pub(crate) fn root(&self) -> Result<CgroupId, CgroupError> {
        self.id(&self.mount)
    }

    /// Id of the cgroup whose directory is `path`.
    pub(crate) fn id(&self, path: &Path) -> Result<CgroupId, CgroupError> {
        if !path.starts_with(&self.mount) || path.components().any(|part| part.as_os_str() == "..")
        {
            return Err(CgroupError::OutsideMount {
                path: path.into(),
                mount: self.mount.clone(),
            });
        }
        let not_a_cgroup = || CgroupError::NotACgroup {
            path: path.into(),
            mount: self.mount.clone(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Err(CgroupError::NotFound { path: path.into() }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(not_a_cgroup()),
            Err(error) => {
                return Err(CgroupError::Read {
                    path: path.into(),
                    source: error.into(),
                });
            }
        };
        let read = |error: Errno| CgroupError::Read {
            path: path.into(),
            source: error.into(),
        };
        let file_system = rustix::fs::fstatfs(&directory).map_err(read)?;
        if file_system.f_type as u64 != CGROUP2_SUPER_MAGIC {
            return Err(not_a_cgroup());
        }
        Ok(CgroupId(
            rustix::fs::fstat(&directory).map_err(read)?.st_ino,
        ))
    }

    /// Calls `found(id, parent, name)` for every cgroup below the root, parents first. Fails only where the
    /// root cannot be opened.
    pub(crate) fn scan(&self, found: impl FnMut(CgroupId, CgroupId, &[u8])) -> io::Result<Skipped> {
        let root = open_directory(rustix::fs::CWD, self.mount.as_os_str())?;
        Ok(scan(&root, |at, name| open_directory(at, name), found)?)
    }

    /// Whether this cgroup is the one at this path from the root.
    pub(crate) fn is_at(&self, id: CgroupId, path: &[u8]) -> bool {
        self.id(&self.directory(path))
            .is_ok_and(|found| found == id)
    }

    /// The directory of the cgroup with this path from the root.
    pub(crate) fn directory(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        self.mount.join(std::ffi::OsStr::from_bytes(relative))
    }

    /// The hierarchical counters of a cgroup. `None` if the cgroup is gone, has no memory controller, or is too deep
    /// for a path.
    pub(crate) fn memory_events(&self, path: &[u8]) -> Result<Option<MemoryEvents>, CgroupError> {
        let path = self.directory(path).join(MEMORY_EVENTS);
        match std::fs::read(&path) {
            Ok(text) => MemoryEvents::parse(&text)
                .map(Some)
                .map_err(|source| CgroupError::Malformed { path, source }),
            Err(error) if is_gone(&error) || is_too_deep(&error) => Ok(None),
            Err(source) => Err(CgroupError::Read { path, source }),
        }
    }
}

/// Whether an error under the mount means that the cgroup is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NODEV | Errno::NOTDIR)
    )
}

/// Whether an error means that a cgroup is so deep that no path leads to it.
pub(crate) fn is_too_deep(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NAMETOOLONG)
}

fn open_directory(
    at: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Mount point and super options of the cgroup v2 mount that shows most: the shallowest root.
fn parse_mountinfo(text: &str) -> Option<(PathBuf, &str)> {
    text.lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut file_system = file_system.split(' ');
            if file_system.next()? != "cgroup2" {
                return None;
            }
            let options = file_system.nth(1)?;
            let mut mount = mount.split(' ').skip(3);
            let root = mount.next()?;
            let point = mount.next()?;
            Some((root.len(), PathBuf::from(unescape_octal(point)), options))
        })
        .min_by_key(|(root_len, point, _)| (*root_len, point.as_os_str().len()))
        .map(|(_, point, options)| (point, options))
}

/// Undoes the kernel's `\040` for blanks in mount points.
fn unescape_octal(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, plain)| {
            text.replace(escape, plain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_cgroup2_mount_is_found() {
        let text = "\
30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
40 30 0:27 /sub /mnt/a rw - cgroup2 none rw
32 30 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
";
        assert_eq!(
            parse_mountinfo(text),
            Some(("/sys/fs/cgroup/unified".into(), "rw,nsdelegate"))
        );
        assert_eq!(parse_mountinfo("1 2 0:1 / / rw - ext4 /dev/vda rw\n"), None);
        assert_eq!(parse_mountinfo("garbage - cgroup2\n - cgroup2 a b\n"), None);
    }

    #[test]
    fn counters_that_tell_too_little_are_named() {
        let lacks = |mode, local_events| {
            let mount = "/sys/fs/cgroup".into();
            let hierarchy = Hierarchy {
                mount,
                mode,
                local_events,
            };
            hierarchy.lacks_counters().unwrap_or_default()
        };
        assert!(lacks(MemoryMode::Hybrid, false).contains("cgroup v1"));
        assert!(lacks(MemoryMode::Unified, true).contains("memory_localevents"));
        assert_eq!(lacks(MemoryMode::Unified, false), "");
    }

    #[test]
    fn blanks_in_mount_points_are_unescaped() {
        assert_eq!(unescape_octal("/a\\040b"), "/a b");
    }

    #[test]
    fn paths_outside_the_mount_are_refused() {
        let hierarchy = Hierarchy {
            mount: "/proc".into(),
            mode: MemoryMode::Unified,
            local_events: false,
        };
        let error = |path: &str| hierarchy.id(Path::new(path)).err();
        assert!(matches!(
            error("/tmp"),
            Some(CgroupError::OutsideMount { .. })
        ));
        assert!(matches!(
            error("/proc/../tmp"),
            Some(CgroupError::OutsideMount { .. })
        ));
        assert!(matches!(
            error("/proc/self/status"),
            Some(CgroupError::NotACgroup { .. })
        ));
        assert!(matches!(
            error("/proc/sys"),
            Some(CgroupError::NotACgroup { .. })
        ));
        assert!(matches!(
            error("/proc/nothing"),
            Some(CgroupError::NotFound { .. })
        ));
    }
}
