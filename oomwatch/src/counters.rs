//! Watching without eBPF. One epoll set holds the `memory.events` of every container (`EPOLLPRI`). One inotify
//! instance holds the directories, for cgroups that come and go.
//!
//! Reads files and returns their contents. Others know which container that is, and what it means. Facts (5.8 to
//! 7.3): reading the file arms its notification again. When a cgroup is removed, epoll stays silent and drops a
//! notification under way. So removals come from the parent's directory, and the last count comes from the parent's
//! counter ([`family`]).

pub(crate) mod directories;
pub(crate) mod family;
pub(crate) mod file;
pub(crate) mod walk;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    process::{Resource, getrlimit},
};
use tokio::io::{Interest, unix::AsyncFd};

use self::{directories::Directories, family::Family, file::CounterFile};
use crate::{cgroup::hierarchy::CgroupError, id::CgroupId, log::warn, memory_events::MemoryEvents};

/// Notifications taken at a time.
const READY_AT_ONCE: usize = 256;
/// Descriptors left to all else: publishers, files that are read once, the runtime.
const SPARE_DESCRIPTORS: u64 = 64;
/// The directories' token in the epoll set. No cgroup has this id.
const DIRECTORIES: u64 = u64::MAX;

/// One cgroup's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// Changes when the memory controller was switched off and on, which zeroes the counters.
    pub(crate) serial: u32,
    pub(crate) events: MemoryEvents,
}

/// All descriptors of this tier.
pub(crate) struct CounterWatch {
    epoll: AsyncFd<OwnedFd>,
    pub(crate) directories: Directories,
    files: HashMap<CgroupId, CounterFile>,
    /// Files that may be open at a time.
    most: u64,
    /// The last known counters of the parents of containers, and of their children.
    pub(crate) families: HashMap<CgroupId, Family>,
    /// Whether the log has a warning that descriptors ran out.
    refused: bool,
}

impl CounterWatch {
    /// An empty watch. Needs a tokio runtime with I/O enabled.
    pub(crate) fn start() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let directories = Directories::new()?;
        epoll::add(
            &epoll,
            directories.as_fd(),
            epoll::EventData::new_u64(DIRECTORIES),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            epoll: register(epoll)?,
            directories,
            files: HashMap::new(),
            most: most_files(),
            families: HashMap::new(),
            refused: false,
        })
    }

    /// Waits until a counter may have moved or a cgroup came or went.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        // Cleared before the files are read: a change during that wakes again.
        self.epoll.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// The cgroups whose counters moved since they were last read; some of them at a time.
    pub(crate) fn ready(&mut self) -> io::Result<Vec<CgroupId>> {
        let mut events = Vec::with_capacity(READY_AT_ONCE);
        let now = Timespec::default();
        match epoll::wait(
            self.epoll.get_ref(),
            spare_capacity(&mut events),
            Some(&now),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events
            .iter()
            .map(|event| event.data.u64())
            .filter(|&token| token != DIRECTORIES)
            .map(CgroupId)
            .collect())
    }

    /// Opens and watches the counters of the cgroup at `directory`. Returns whether they are there. Does nothing if
    /// they are open.
    pub(crate) fn open(&mut self, id: CgroupId, directory: &Path) -> Result<bool, CgroupError> {
        if self.files.contains_key(&id) {
            return Ok(true);
        }
        let Some(file) = CounterFile::open(directory)? else {
            return Ok(false);
        };
        if self.files.len() as u64 >= self.most {
            return Err(CgroupError::Read {
                path: directory.into(),
                source: Errno::MFILE.into(),
            });
        }
        let added = epoll::add(
            self.epoll.get_ref(),
            file.as_fd(),
            epoll::EventData::new_u64(id.0),
            epoll::EventFlags::PRI,
        );
        if let Err(error) = added {
            return Err(CgroupError::Read {
                path: directory.into(),
                source: error.into(),
            });
        }
        self.files.insert(id, file);
        Ok(true)
    }

    /// As [`Self::open`]. Warns once of a failure; sweeps make up for it.
    pub(crate) fn try_open(&mut self, id: CgroupId, directory: &Path) -> bool {
        match self.open(id, directory) {
            Ok(open) => open,
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    warn!(
                        %error,
                        cause = std::error::Error::source(&error).map(ToString::to_string),
                        "a counter cannot be watched: more are looked at only now and then (raise the limit of open files)"
                    );
                }
                false
            }
        }
    }

    /// Stops watching a cgroup's counters.
    pub(crate) fn close(&mut self, id: CgroupId) {
        self.files.remove(&id);
    }

    /// Whether a cgroup's counters are open.
    pub(crate) fn is_open(&self, id: CgroupId) -> bool {
        self.files.contains_key(&id)
    }

    /// All cgroups whose counters are open.
    pub(crate) fn open_ids(&self) -> Vec<CgroupId> {
        self.files.keys().copied().collect()
    }

    /// Reads a cgroup's counters, which arms their notification. `None` if they are gone; from then on they are not
    /// watched.
    pub(crate) fn read(&mut self, id: CgroupId) -> Result<Option<Read>, CgroupError> {
        let Some(file) = self.files.get_mut(&id) else {
            return Ok(None);
        };
        let read = file.read()?;
        if read.is_none() {
            self.files.remove(&id);
        }
        Ok(read)
    }

    /// Whether something could not be watched. A sweep must look for it.
    pub(crate) fn is_limited(&self) -> bool {
        self.refused || self.directories.is_limited()
    }
}

/// How many files may be open at a time: this process's limit, less [`SPARE_DESCRIPTORS`].
fn most_files() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.saturating_sub(SPARE_DESCRIPTORS)
}

/// Has the runtime wake this task when the epoll set is ready.
fn register(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns its descriptor, and it stays the same until it is dropped.
    unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }.map_err(io::Error::from)
}
