//! Cgroups nested deeper than any path reaches, made and removed step by step.

use std::{
    fs::File,
    io::{Error, Write},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, unlinkat},
    io::Errno,
};

use super::{REMOVAL_LIMIT, kill_members};
use crate::wait::wait_until;

const NAME: &str = "d";
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A chain of cgroups, each in the one before; removed on drop.
#[derive(Debug)]
pub struct Chain {
    top: std::path::PathBuf,
    deepest: OwnedFd,
    levels: usize,
}

impl Chain {
    /// Makes `levels` cgroups below one that is there.
    pub fn create(top: &Path, levels: usize) -> Result<Self> {
        let deepest = open(top, DIRECTORY, Mode::empty());
        let mut chain = Self {
            top: top.to_owned(),
            deepest: deepest.with_context(|| format!("opening {}", top.display()))?,
            levels: 0,
        };
        for level in 0..levels {
            mkdirat(&chain.deepest, NAME, Mode::from(0o755))
                .with_context(|| format!("making cgroup {level} of a chain"))?;
            chain.levels += 1;
            chain.deepest = openat(&chain.deepest, NAME, DIRECTORY, Mode::empty())?;
        }
        Ok(chain)
    }

    /// The kernel's id of the deepest cgroup.
    pub fn id(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.deepest)?.st_ino)
    }

    /// Moves a process into the deepest cgroup.
    pub fn add(&self, pid: u32) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = openat(&self.deepest, "cgroup.procs", flags, Mode::empty())?;
        let mut procs = File::from(procs);
        write!(procs, "{pid}").context("moving a process into the deepest cgroup")
    }

    fn remove(&mut self) -> Result<()> {
        while self.levels > 0 {
            let above = openat(&self.deepest, "..", DIRECTORY, Mode::empty())?;
            wait_until(
                REMOVAL_LIMIT,
                "removal of a chain of cgroups",
                || match unlinkat(&above, NAME, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => Ok(Some(())),
                    Err(Errno::BUSY) => {
                        kill_members(&self.top)?;
                        Ok(None)
                    }
                    Err(error) => Err(Error::from(error).into()),
                },
            )?;
            self.deepest = above;
            self.levels -= 1;
        }
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("leaving a chain of cgroups behind: {error:#}");
        }
    }
}
