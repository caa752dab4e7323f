//! One open `memory.events`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::Read;
use crate::{
    cgroup::hierarchy::{CgroupError, is_gone},
    memory_events::MemoryEvents,
};

const MEMORY_EVENTS: &str = "memory.events";
/// The file has seven short lines; more than this is no `memory.events`.
const MAX_BYTES: usize = 4096;

/// An open `memory.events`, read again and again from its beginning.
#[derive(Debug)]
pub(crate) struct CounterFile {
    file: OwnedFd,
    path: PathBuf,
    serial: u32,
}

impl CounterFile {
    /// Opens the file in a cgroup's directory; `None` where it is not there, because the cgroup
    /// is gone or has no memory controller.
    pub(crate) fn open(directory: &Path) -> Result<Option<Self>, CgroupError> {
        Self::open_as(directory, MEMORY_EVENTS)
    }

    /// The same with another file of that form.
    pub(crate) fn open_as(directory: &Path, name: &str) -> Result<Option<Self>, CgroupError> {
        let path = directory.join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(&path, flags, Mode::empty())
            .and_then(|file| Ok((rustix::fs::fstat(&file)?.st_ino, file)));
        match opened {
            // The kernel makes a new inode where it makes new counters; the lower half differs.
            Ok((inode, file)) => Ok(Some(Self {
                file,
                path,
                serial: inode as u32,
            })),
            Err(error) if is_gone(&error.into()) => Ok(None),
            Err(error) => Err(CgroupError::Read {
                path,
                source: error.into(),
            }),
        }
    }

    /// Reads the counters; `None` once they are gone.
    pub(crate) fn read(&mut self) -> Result<Option<Read>, CgroupError> {
        let mut text = [0; MAX_BYTES];
        let mut length = 0;
        loop {
            let rest = text.get_mut(length..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match rustix::io::pread(&self.file, rest, length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(error) if is_gone(&error.into()) => return Ok(None),
                Err(error) => {
                    return Err(CgroupError::Read {
                        path: self.path.clone(),
                        source: error.into(),
                    });
                }
            }
        }
        let events =
            MemoryEvents::parse(text.get(..length).unwrap_or_default()).map_err(|source| {
                CgroupError::Malformed {
                    path: self.path.clone(),
                    source,
                }
            })?;
        Ok(Some(Read {
            serial: self.serial,
            events,
        }))
    }
}

impl AsFd for CounterFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with(text: &[u8]) -> (tempfile::TempDir, CounterFile) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(MEMORY_EVENTS), text).unwrap();
        let file = CounterFile::open(directory.path()).unwrap().unwrap();
        (directory, file)
    }

    #[test]
    fn each_reading_starts_at_the_beginning() {
        let (directory, mut file) = with(b"oom 1\noom_kill 1\nnew_key 7\n");
        assert_eq!(file.read().unwrap().unwrap().events.oom_kill, Some(1));
        fs::write(directory.path().join(MEMORY_EVENTS), "oom_kill 12").unwrap();
        let events = file.read().unwrap().unwrap().events;
        assert_eq!((events.oom_kill, events.oom), (Some(12), None));
    }

    #[test]
    fn no_file_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(CounterFile::open(directory.path()).unwrap().is_none());
        assert!(
            CounterFile::open(&directory.path().join("gone"))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_is_malformed_is_named_and_may_be_read_again() {
        let (directory, mut file) = with(b"oom_kill many\n");
        let error = file.read().unwrap_err();
        assert!(matches!(error, CgroupError::Malformed { .. }), "{error}");
        fs::write(directory.path().join(MEMORY_EVENTS), "oom_kill 1\n").unwrap();
        assert!(file.read().unwrap().is_some());
    }

    #[test]
    fn a_file_without_end_is_not_read_for_ever() {
        let (_directory, mut file) = with(&b"x 1\n".repeat(10_000));
        assert!(file.read().is_ok());
    }

    #[test]
    fn other_counters_have_another_serial() {
        let (directory, mut old) = with(b"oom_kill 5\n");
        // Kept open, so that the inode cannot be used again.
        let path = directory.path().join(MEMORY_EVENTS);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "oom_kill 0\n").unwrap();
        let mut new = CounterFile::open(directory.path()).unwrap().unwrap();
        assert_ne!(
            old.read().unwrap().unwrap().serial,
            new.read().unwrap().unwrap().serial
        );
    }
}
