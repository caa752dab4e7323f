//! A BPF file system of a test's own, to pin programs in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Mounted as long as this lives.
#[derive(Debug)]
pub struct BpfFs {
    dir: tempfile::TempDir,
}

impl BpfFs {
    /// Mounts one.
    pub fn mount() -> Result<Self> {
        let dir = tempfile::tempdir().context("a directory for bpffs")?;
        mount("bpf", dir.path(), "bpf", MountFlags::empty(), None).context("mounting bpffs")?;
        Ok(Self { dir })
    }

    /// A directory for `--pin`, which is not there yet.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.dir.path().join("oomwatch")
    }

    /// Generations of programs that are pinned there.
    pub fn generations(&self) -> Result<usize> {
        let entries = std::fs::read_dir(self.pins()).context("reading the pin directory")?;
        Ok(entries.count())
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
