//! Where things are: the source tree, the target directory and the cache outside of both.
//!
//! Nothing here creates a file, except [`fresh_dir`] and [`create_dir`], which say so.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use oomwatch_tests::host;

/// The directories every task works with. All paths are absolute.
pub(crate) struct Workspace {
    /// The source tree.
    pub(crate) root: PathBuf,
    /// Cargo's target directory for the host crates.
    pub(crate) target: PathBuf,
    /// Downloads and builds that outlive a clone (see [`host::cache_dir`]).
    pub(crate) cache: PathBuf,
}

impl Workspace {
    /// Finds the directories from the environment.
    pub(crate) fn locate() -> Result<Self> {
        // The run-time variable comes first: a target directory shared between two clones may
        // hand this clone a binary that was built in the other.
        let xtask = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask
            .parent()
            .with_context(|| format!("{} has no parent directory", xtask.display()))?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => absolute(Path::new(&dir))?,
            None => root.join("target"),
        };
        Ok(Self {
            root,
            target,
            // The tests look there too.
            cache: host::cache_dir()?,
        })
    }

    /// The eBPF build has a target directory of its own, so that it never waits for the lock of
    /// a host build that an editor keeps running.
    pub(crate) fn ebpf_target(&self) -> PathBuf {
        self.target.join("ebpf")
    }

    /// Tools installed for this clone only.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// A host binary that a release build has left.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("making {} absolute", path.display()))
}

/// Creates `path` and its parents where they are missing.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating the directory {}", path.display()))
}

/// Makes `path` an empty directory, dropping whatever was in it.
pub(crate) fn fresh_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("emptying {}", path.display()))
        }
        _ => create_dir(path),
    }
}

/// Reads a text file, with `None` for one that does not exist.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a text file, replacing what was there.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
