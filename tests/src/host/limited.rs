//! Making a kill on a host whose memory controller may be on either cgroup version.
//!
//! On a hybrid host a victim is put into a v1 memory cgroup, for the limit, and into a v2 cgroup,
//! for its identity. On a unified host one v2 cgroup does both.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cgroup::Cgroup,
    hog::{Hog, HogSpec, MIB},
};

/// What the processes of a [`Limited`] may use together.
pub const LIMIT_BYTES: u64 = 16 * MIB;
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Where this host keeps identity and limits.
#[derive(Debug)]
pub struct Layout {
    /// The mount point of cgroup2.
    unified: PathBuf,
    /// The mount point of the v1 memory controller, where that is in use.
    memory_v1: Option<PathBuf>,
}

/// A cgroup with a limit, whichever hierarchy has the limits.
#[derive(Debug)]
pub struct Limited {
    /// The v2 cgroup: who the victim is.
    identity: Cgroup,
    /// The v1 cgroup: what the victim may use.
    memory_v1: Option<Cgroup>,
}

impl Layout {
    /// Reads it from the mounts.
    pub fn read() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading mounts")?;
        let mut found = Self {
            unified: PathBuf::new(),
            memory_v1: None,
        };
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields.as_slice() {
                [_, path, "cgroup2", ..] => found.unified = PathBuf::from(path),
                [_, path, "cgroup", options, ..]
                    if options.split(',').any(|option| option == "memory") =>
                {
                    found.memory_v1 = Some(PathBuf::from(path));
                }
                _ => {}
            }
        }
        ensure!(found.unified.is_absolute(), "no cgroup2 is mounted");
        Ok(found)
    }

    /// The mount point of cgroup2.
    #[must_use]
    pub fn unified(&self) -> &Path {
        &self.unified
    }

    /// Makes a cgroup whose processes may use [`LIMIT_BYTES`].
    pub fn limited(&self, name: &str) -> Result<Limited> {
        let name = format!("oomwatch-tests-{}-{name}", std::process::id());
        let identity = Cgroup::create(self.unified.join(&name))?;
        let memory_v1 = match &self.memory_v1 {
            None => {
                identity.limit_memory(LIMIT_BYTES)?;
                None
            }
            Some(root) => {
                let cgroup = Cgroup::create(root.join(&name))?;
                cgroup.write("memory.limit_in_bytes", &LIMIT_BYTES.to_string())?;
                Some(cgroup)
            }
        };
        Ok(Limited {
            identity,
            memory_v1,
        })
    }
}

impl Limited {
    /// The v2 cgroup that is the victim's, by which oomwatch knows the container.
    #[must_use]
    pub fn identity(&self) -> &Cgroup {
        &self.identity
    }

    /// Moves the identity into a child cgroup, under the same limit.
    pub fn below(&self, name: &str) -> Result<Cgroup> {
        if self.memory_v1.is_none() {
            self.identity.enable_memory()?;
        }
        self.identity.child(name)
    }

    /// Runs `program hog` in here, or in a cgroup made by [`Self::below`], until the kernel kills
    /// it, and returns its process id.
    pub fn kill_a_hog(&self, program: &Path, comm: &str, identity: &Cgroup) -> Result<u32> {
        self.kill_a_hog_that(program, comm, |pid| identity.add(pid))
    }

    /// The same in any cgroup below this one, which `join` moves a process into.
    pub fn kill_a_hog_that(
        &self,
        program: &Path,
        comm: &str,
        join: impl FnOnce(u32) -> Result<()>,
    ) -> Result<u32> {
        let mut hog = Hog::spawn(&HogSpec::new(program, comm))?;
        join(hog.pid())?;
        if let Some(memory) = &self.memory_v1 {
            memory.add(hog.pid())?;
        }
        hog.start_allocating(4 * LIMIT_BYTES)?;
        hog.wait_killed(KILL_LIMIT)?;
        Ok(hog.pid())
    }
}
