//! The state directory: its lock, the names in it, and moving a damaged store aside. Never looks
//! into the store.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;
use crate::lock::Lock;

const DATABASE: &str = "oomwatch.db";
const LOCK: &str = "oomwatch.lock";
/// Suffixes of the store's files: the database itself, and SQLite's own files beside it.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// The state directory, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    _lock: Lock,
}

impl Files {
    /// Makes the directory if need be, for its owner only: events name processes and containers
    /// of all users.
    pub(super) fn lock(dir: &Path) -> Result<Self, StoreError> {
        let create = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        create.map_err(|source| StoreError::CreateDirectory {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join(LOCK);
        let failed = |source| StoreError::Lock {
            path: path.clone(),
            source,
        };
        let opened = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = opened.map_err(failed)?;
        match Lock::take(file) {
            Ok(lock) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: dir.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    pub(super) fn database(&self) -> PathBuf {
        database(&self.dir)
    }

    /// Renames a damaged store together with SQLite's own files. Returns its new name.
    pub(super) fn move_aside(&self, unix_seconds: u64) -> Result<PathBuf, StoreError> {
        let path = self.database();
        let aside = self.dir.join(format!("{DATABASE}.corrupt-{unix_seconds}"));
        for companion in COMPANIONS {
            let renamed = fs::rename(with(&path, companion), with(&aside, companion));
            match renamed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::MoveAside {
                        path,
                        source: error,
                    });
                }
                _ => {}
            }
        }
        Ok(aside)
    }
}

/// The database in a state directory.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// The write-ahead log beside a database.
pub(super) fn write_ahead_log(database: &Path) -> PathBuf {
    with(database, "-wal")
}

fn with(path: &Path, companion: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(companion);
    name.into()
}
