//! The control socket's file: making it, its access, and removing it.
//!
//! The file is made under another name and gets its own name once its mode is right. So nobody finds it open to more
//! users than intended. The file of a dead daemon is replaced. A file that is no socket, or that somebody answers on,
//! is left alone.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tracing::debug;

use crate::log::info;

/// How long the owner of the socket may take to accept a connection. An owner that does not is alive all the same.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Who may use the socket. These are the users who may write to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlAccess {
    /// The user that the daemon runs as (mode 0600).
    Owner,
    /// The group with this id too (mode 0660).
    Group(u32),
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Another daemon has it.
    #[error(
        "another oomwatch answers on {}: stop it, or give this one another --control PATH",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is there already and is no socket: give another --control PATH", path.display())]
    NoSocket {
        /// The path of that file.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot {operation} the control socket {}", path.display())]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A unix socket for [`crate::api::Api::control`]. Dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that is ours.
    file: (u64, u64),
}

impl ControlSocket {
    /// Makes the socket. Must be called in a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// When somebody answers on it, something else is there, or it cannot be made.
    pub async fn bind(
        path: impl Into<PathBuf>,
        access: ControlAccess,
    ) -> Result<Self, ControlError> {
        let path = path.into();
        is_free(&path).await?;
        let unnamed = beside(&path);
        let bound = Self::bind_as(&unnamed, path, access);
        if bound.is_err() {
            let _ = fs::remove_file(&unnamed);
        }
        bound
    }

    fn bind_as(unnamed: &Path, path: PathBuf, access: ControlAccess) -> Result<Self, ControlError> {
        let failed = |operation| {
            let path = path.clone();
            move |source| ControlError::Io {
                operation,
                path,
                source,
            }
        };
        let listener = UnixListener::bind(unnamed).map_err(failed("make"))?;
        let mode = match access {
            ControlAccess::Owner => 0o600,
            ControlAccess::Group(group) => {
                chown(unnamed, None, Some(group)).map_err(failed("change the group of"))?;
                0o660
            }
        };
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(unnamed, permissions).map_err(failed("change the mode of"))?;
        let file = identity(unnamed).map_err(failed("look at"))?;
        fs::rename(unnamed, &path).map_err(failed("name"))?;
        Ok(Self {
            listener,
            path,
            file,
        })
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Another daemon may have taken the place meanwhile.
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!(%error, path = %self.path.display(), "the control socket stays");
        }
    }
}

/// Succeeds if the name is free, or if its file may be replaced.
async fn is_free(path: &Path) -> Result<(), ControlError> {
    let failed = |operation| {
        move |source| ControlError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ControlError::NoSocket {
            path: path.to_owned(),
        });
    }
    match timeout(CONNECT_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            info!(path = %path.display(), "oomwatch replaced the control socket of a daemon that is gone");
            Ok(())
        }
        // The file went away at this moment.
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(failed("connect to")(error))
        }
        // Somebody answers, or is too busy to.
        _ => Err(ControlError::InUse {
            path: path.to_owned(),
        }),
    }
}

/// Another name in the same directory.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn it_is_for_those_it_is_meant_for_and_goes_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = ControlSocket::bind(&path, ControlAccess::Owner)
            .await
            .unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(socket);
        // The group of files that are made here. Everybody may give a file to that group.
        let group = fs::metadata(dir.path()).unwrap().gid();
        let access = ControlAccess::Group(group);
        let socket = ControlSocket::bind(&path, access).await.unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(fs::metadata(&path).unwrap().gid(), group);
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let living = ControlSocket::bind(&path, ControlAccess::Owner)
            .await
            .unwrap();
        let refused = ControlSocket::bind(&path, ControlAccess::Owner).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, ControlError::InUse { .. }), "{refused}");
        assert!(refused.to_string().contains(path.to_str().unwrap()));
        // The refused daemon has taken nothing away.
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(living);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "mine").unwrap();
        let refused = ControlSocket::bind(&path, ControlAccess::Owner).await;
        assert!(matches!(refused, Err(ControlError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn only_its_own_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = ControlSocket::bind(&path, ControlAccess::Owner)
            .await
            .unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
