//! A cgroup of our own that is removed again, with every process in it.

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

mod chain;
mod counters;

pub use chain::Chain;
pub use counters::Counters;

/// Dying processes leave their cgroup some time after their exit status was collected.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// A cgroup directory, removed on drop.
///
/// Also used for directories of the v1 memory hierarchy, whose life cycle is the same.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the directory. Its parent must exist.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::create_dir(&path).with_context(|| format!("creating cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Makes a cgroup below this one.
    pub fn child(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        Self::create(self.path.join(name.as_ref()))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of this cgroup, which is the inode number of its directory.
    pub fn id(&self) -> Result<u64> {
        let metadata = fs::metadata(&self.path).with_context(|| self.describe("reading"))?;
        Ok(metadata.ino())
    }

    /// Writes a control file.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.path.join(file), value)
            .with_context(|| format!("writing `{value}` to {}/{file}", self.path.display()))
    }

    /// Lets child cgroups have memory limits and counters of their own.
    pub fn enable_memory(&self) -> Result<()> {
        self.write("cgroup.subtree_control", "+memory")
    }

    /// Sets `memory.max` and forbids swap, so that reaching the limit means a kill.
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        self.write("memory.max", &bytes.to_string())?;
        let swap = self.path.join("memory.swap.max");
        // The file is missing on a kernel without swap accounting, where nothing can be swapped.
        if swap.exists() {
            fs::write(&swap, "0").with_context(|| format!("writing {}", swap.display()))?;
        }
        Ok(())
    }

    /// Moves a process into this cgroup.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// `memory.events`: counts of this cgroup and of everything below it.
    pub fn events(&self) -> Result<Counters> {
        Counters::read(&self.path.join("memory.events"))
    }

    /// `memory.events.local`: counts of this cgroup alone.
    pub fn events_local(&self) -> Result<Counters> {
        Counters::read(&self.path.join("memory.events.local"))
    }

    /// A control file that holds one number.
    pub fn number(&self, file: &str) -> Result<u64> {
        let path = self.path.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim()
            .parse()
            .with_context(|| format!("no number in {}", path.display()))
    }

    /// Removes the directory as soon as the kernel allows, killing nothing.
    pub fn remove_emptied(self) -> Result<()> {
        let what = self.describe("removing");
        wait_until(REMOVAL_LIMIT, &what, || remove_unless_busy(&self.path))
    }

    fn describe(&self, doing: &str) -> String {
        format!("{doing} cgroup {}", self.path.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            eprintln!("leaving cgroup {} behind: {error:#}", self.path.display());
        }
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    for child in children(path)? {
        remove_tree(&child)?;
    }
    let what = format!("removal of cgroup {}", path.display());
    wait_until(REMOVAL_LIMIT, &what, || {
        kill_members(path)?;
        remove_unless_busy(path)
    })
}

fn children(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("listing {}", path.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Kills what is left in the cgroup. Only this fixture puts processes there.
fn kill_members(path: &Path) -> Result<()> {
    // Since 5.14. Quicker than any loop, and no fork escapes it.
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    let Ok(members) = fs::read_to_string(path.join("cgroup.procs")) else {
        return Ok(());
    };
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            // It may be gone already, which is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

fn remove_unless_busy(path: &Path) -> Result<Option<()>> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
        Err(error) if is_busy(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ResourceBusy
}
