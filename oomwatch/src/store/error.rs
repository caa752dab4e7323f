//! Why the store, or the history in it, cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Why the store, or the history in it, cannot be used. Watching continues without it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The state directory cannot be made.
    #[error("cannot create the state directory {}", path.display())]
    CreateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its disk does not answer.
    #[error(
        "the store in {} was not opened within {} s: see to its disk, and start oomwatch again",
        path.display(), limit.as_secs()
    )]
    Hangs {
        /// The state directory.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// Another daemon works with it.
    #[error("another oomwatch uses the state directory {}: give this one another --state-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer oomwatch made it.
    #[error(
        "the store {} has version {found}, and this oomwatch knows {known} at most: upgrade oomwatch, or give another --state-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that is known here.
        known: u32,
    },
    /// An older oomwatch made it, and nothing may be written here.
    #[error("the store {} has the old version {found}: run `oomwatch run` on it once", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There is none.
    #[error(
        "there is no store at {}: give the --state-dir that `oomwatch run` was given",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or a damaged one.
    #[error("the store {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's message.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A damaged one cannot be moved aside.
    #[error("cannot move the damaged store {} aside", path.display())]
    MoveAside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else about the file or its disk.
    #[error("cannot {operation} the store {}", path.display())]
    Database {
        /// The operation that failed.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// SQLite's message.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its thread cannot be made.
    #[error("cannot start the store's thread")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Sorts SQLite's errors.
    pub(super) fn new(operation: &'static str, path: &Path, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let code = error.sqlite_error_code();
        if matches!(code, Some(DatabaseCorrupt | NotADatabase)) {
            Self::damaged(path, error)
        } else {
            Self::Database {
                operation,
                path: path.to_owned(),
                source: Box::new(error),
            }
        }
    }

    /// The same while a store of a known version is opened. There, a missing table or column, or one of another type,
    /// is damage too.
    pub(super) fn opening(path: &Path, error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(failure, _)
                if failure.extended_code == rusqlite::ffi::SQLITE_ERROR =>
            {
                Self::damaged(path, error)
            }
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..) => Self::damaged(path, error),
            _ => Self::new("open", path, error),
        }
    }

    fn damaged(path: &Path, error: rusqlite::Error) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            source: Box::new(error),
        }
    }
}
