//! Programs that continue without a daemon: their ring and their links, pinned in a BPF file system.
//!
//! A pin directory has one directory for each generation of programs, `oomwatch-1` and so on. It has more than one
//! only where a start was interrupted. A generation holds the maps that a daemon opens, and the links that hold the
//! programs. Maps that only the programs use live as long as the programs. `about`, made last, is a symbolic link
//! whose text describes the programs. Without it a generation is not complete.
//!
//! Knows names, objects and their order; nothing of records. Removes nothing that it did not make.

mod about;

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuArray},
    programs::links::FdLink,
};
use rustix::{fs::statfs, process::geteuid};

pub(crate) use self::about::About;
use super::ring::Ring;
use crate::lock::Lock;

/// `BPF_FS_MAGIC`.
const BPFFS: u32 = 0xcafe_4a11;
const GENERATION: &str = "oomwatch-";
const ABOUT: &str = "about";
const RECORDS: &str = "records";
const DROPS: &str = "drops";
const LINK: &str = "link_";
/// Others than the owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Why nothing is pinned, or the pinned programs are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// Only a BPF file system can hold what is pinned.
    #[error(
        "{} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`, and give a directory below it, such as /sys/fs/bpf/oomwatch",
        path.display()
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else could put programs there.
    #[error(
        "the pin directory {} belongs to another user or can be written by others: give another one",
        path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// One daemon at a time reads a ring.
    #[error(
        "the pin directory {} is in use by another oomwatch: stop that one, or give another directory",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something there was not made by oomwatch.
    #[error(
        "{} was not made by this oomwatch: move it away, or give another directory",
        path.display()
    )]
    Foreign {
        /// The foreign path.
        path: PathBuf,
    },
    /// The directory, or a name in it.
    #[error("cannot use the pin directory {}", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not pin this.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// The name it was to have.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: BoxedError,
    },
    /// An object under a name of ours cannot be used.
    #[error("{} cannot be used: remove it with `oomwatch unpin`", path.display())]
    Object {
        /// Its name.
        path: PathBuf,
        /// The reason.
        #[source]
        source: BoxedError,
    },
}

impl PinError {
    /// Whether more privilege would help.
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        matches!(self, Self::Directory { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The result of [`unpin`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpinned {
    /// Programs and maps that are not pinned any more.
    pub objects: usize,
    /// Entries that were left, because oomwatch did not make them.
    pub foreign: Vec<PathBuf>,
}

/// Removes the programs and maps that [`crate::watcher::Builder::pin`] left in a directory. Removes the directory too
/// if nothing else is in it. Kills that were not read yet lose their details.
///
/// # Errors
/// When the directory is missing, is not on a BPF file system, or is in use by a watcher.
pub fn unpin(dir: impl AsRef<Path>) -> Result<Unpinned, PinError> {
    let dir = PinDir::existing(dir.as_ref())?;
    let contents = dir.contents()?;
    let mut unpinned = Unpinned {
        objects: 0,
        foreign: contents.foreign,
    };
    for generation in &contents.generations {
        unpinned.objects += generation.remove()?;
        unpinned.foreign.extend(generation.foreign.iter().cloned());
    }
    if unpinned.foreign.is_empty() {
        fs::remove_dir(&dir.path).map_err(at(&dir.path))?;
    }
    Ok(unpinned)
}

/// A pin directory, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct PinDir {
    path: PathBuf,
    _lock: Lock,
}

/// The contents of a pin directory.
#[derive(Debug, Default)]
struct Contents {
    /// The oldest first.
    generations: Vec<Generation>,
    foreign: Vec<PathBuf>,
}

/// Programs that were loaded together.
#[derive(Debug)]
pub(crate) struct Generation {
    number: u64,
    path: PathBuf,
    /// `None` where it is not complete, or of another version.
    about: Option<About>,
    /// Names of all that is ours.
    names: Vec<String>,
    foreign: Vec<PathBuf>,
}

/// The generations that a start finds.
#[derive(Debug)]
pub(crate) struct PinnedGenerations {
    /// The generation to continue with.
    pub(crate) current: Option<Generation>,
    /// To be read to their end and removed.
    pub(crate) older: Vec<Generation>,
    /// Number of a new one.
    next: u64,
}

/// A generation's maps, open.
pub(crate) struct Opened {
    pub(crate) ring: Ring,
    pub(crate) drops: PerCpuArray<MapData, u64>,
}

impl PinDir {
    /// Makes the directory if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, PinError> {
        let ancestor = path.ancestors().find(|ancestor| ancestor.exists());
        let on_bpffs = ancestor.is_some_and(is_bpffs);
        if !on_bpffs {
            return Err(PinError::NotBpffs {
                path: path.to_owned(),
            });
        }
        let create = DirBuilder::new().recursive(true).mode(0o700).create(path);
        create.map_err(at(path))?;
        Self::existing(path)
    }

    fn existing(path: &Path) -> Result<Self, PinError> {
        let directory = File::open(path).map_err(at(path))?;
        if !is_bpffs(path) {
            return Err(PinError::NotBpffs {
                path: path.to_owned(),
            });
        }
        // The mount point itself belongs to everybody, and users other than the owner could make it ours.
        let metadata = directory.metadata().map_err(at(path))?;
        if metadata.uid() != geteuid().as_raw() || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(PinError::NotPrivate {
                path: path.to_owned(),
            });
        }
        let path = path.to_owned();
        match Lock::take(directory) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(PinError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(PinError::Directory { path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks for programs like `wanted`.
    pub(crate) fn find(&self, wanted: &About) -> Result<PinnedGenerations, PinError> {
        let contents = self.contents()?;
        let within = contents.generations.iter().map(|found| &found.foreign);
        if let Some(path) = contents.foreign.iter().chain(within.flatten()).next() {
            return Err(PinError::Foreign { path: path.clone() });
        }
        let mut older = contents.generations;
        let next = older.last().map_or(1, |last| last.number + 1);
        let current = older
            .iter()
            .rposition(|found| found.is_good_for(wanted))
            .map(|at| older.remove(at));
        Ok(PinnedGenerations {
            current,
            older,
            next,
        })
    }

    fn contents(&self) -> Result<Contents, PinError> {
        let mut contents = Contents::default();
        for (name, path) in entries(&self.path)? {
            let number = name.strip_prefix(GENERATION);
            match number.and_then(|number| number.parse().ok()) {
                Some(number) if path.is_dir() && !path.is_symlink() => {
                    contents.generations.push(Generation::read(number, path)?);
                }
                _ => contents.foreign.push(path),
            }
        }
        contents.generations.sort_by_key(|found| found.number);
        Ok(contents)
    }

    /// Pins programs as a new generation, all or nothing.
    pub(crate) fn keep(
        &self,
        found: &PinnedGenerations,
        mut about: About,
        programs: &Ebpf,
        links: Vec<(&'static str, FdLink)>,
    ) -> Result<Generation, PinError> {
        let path = self.path.join(format!("{GENERATION}{}", found.next));
        let make = DirBuilder::new().mode(0o700).create(&path);
        make.map_err(at(&path))?;
        about.links = links.len();
        let pinned = pin_all(&path, &about, programs, links);
        let generation = Generation::read(found.next, path)?;
        match pinned {
            Ok(()) => Ok(generation),
            Err(error) => {
                generation.remove()?;
                Err(error)
            }
        }
    }
}

fn pin_all(
    path: &Path,
    about: &About,
    programs: &Ebpf,
    links: Vec<(&'static str, FdLink)>,
) -> Result<(), PinError> {
    let failed = |path: &Path, source: BoxedError| PinError::Pin {
        path: path.to_owned(),
        source,
    };
    for (map, name) in [("RECORDS", RECORDS), ("DROPS", DROPS)] {
        let path = path.join(name);
        let map = programs.map(map);
        let map = map.ok_or_else(|| failed(&path, "the eBPF object has no such map".into()))?;
        map.pin(&path)
            .map_err(|error| failed(&path, error.into()))?;
    }
    for (name, link) in links {
        let path = path.join(format!("{LINK}{name}"));
        // Closing our descriptor leaves the file's.
        link.pin(&path)
            .map_err(|error| failed(&path, error.into()))?;
    }
    let path = path.join(ABOUT);
    symlink(about.to_string(), &path).map_err(at(&path))
}

impl Generation {
    fn read(number: u64, path: PathBuf) -> Result<Self, PinError> {
        let mut generation = Self {
            number,
            about: None,
            names: Vec::new(),
            foreign: Vec::new(),
            path,
        };
        for (name, path) in entries(&generation.path)? {
            let is_ours = match name.as_str() {
                ABOUT => path.is_symlink(),
                RECORDS | DROPS => path.is_file(),
                _ => name.starts_with(LINK) && path.is_file(),
            };
            if !is_ours {
                generation.foreign.push(path);
                continue;
            }
            if name == ABOUT {
                let about = fs::read_link(&path).map_err(at(&path))?;
                generation.about = about.to_str().and_then(|about| about.parse().ok());
            }
            generation.names.push(name);
        }
        Ok(generation)
    }

    fn is_good_for(&self, wanted: &About) -> bool {
        let links = self.names.iter().filter(|name| name.starts_with(LINK));
        let links = links.count();
        self.about
            .as_ref()
            .is_some_and(|about| about.is_good_for(wanted) && about.links == links)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Version of the records in its ring, if `about` has one.
    pub(crate) fn wire_version(&self) -> Option<u16> {
        self.about.as_ref().map(About::wire_version)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sees_oom_control(&self) -> bool {
        self.about
            .as_ref()
            .is_some_and(|about| about.sees_oom_control)
    }

    /// Opens its maps.
    pub(crate) fn open(&self) -> Result<Opened, PinError> {
        let (ring, drops) = (self.path.join(RECORDS), self.path.join(DROPS));
        Ok(Opened {
            ring: open_map(&ring, Ring::open).map_err(unusable(&ring))?,
            drops: open_map(&drops, PerCpuArray::try_from).map_err(unusable(&drops))?,
        })
    }

    /// Detaches and removes it, except for foreign entries. Returns their number. Removes `about` first, so that
    /// nobody continues with half of it.
    pub(crate) fn remove(&self) -> Result<usize, PinError> {
        let is_about = |name: &&String| name.as_str() == ABOUT;
        let (about, rest): (Vec<_>, Vec<_>) = self.names.iter().partition(is_about);
        for name in about.iter().chain(&rest) {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        if self.foreign.is_empty() {
            fs::remove_dir(&self.path).map_err(at(&self.path))?;
        }
        Ok(rest.len())
    }
}

fn open_map<T>(
    path: &Path,
    open: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, BoxedError> {
    let map = Map::from_map_data(MapData::from_pin(path)?)?;
    open(map).map_err(Into::into)
}

fn is_bpffs(path: &Path) -> bool {
    // The type of `f_type` differs between architectures.
    statfs(path).is_ok_and(|found| found.f_type as u32 == BPFFS)
}

/// Name and path of each entry of a directory.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, PinError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push((name, entry.path()));
    }
    Ok(entries)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    |source| PinError::Directory { path, source }
}

fn unusable(path: &Path) -> impl FnOnce(BoxedError) -> PinError {
    let path = path.to_owned();
    |source| PinError::Object { path, source }
}

#[cfg(test)]
mod tests;
