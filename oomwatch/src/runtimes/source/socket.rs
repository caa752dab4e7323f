//! Which source follows the runtime at a socket.

use std::{os::unix::fs::FileTypeExt as _, path::Path};

use super::RuntimeSource;
use crate::{
    containers::sighting::{RuntimeApi, RuntimeSocket},
    runtimes::{containerd::Containerd, cri::Cri, docker::Docker, podman::Podman},
};

/// The source that follows the runtime at a socket.
pub(crate) fn source(socket: &RuntimeSocket) -> Box<dyn RuntimeSource> {
    let path = socket.path.clone();
    match socket.api {
        RuntimeApi::Containerd => Box::new(Containerd::new(path)),
        RuntimeApi::Podman => Box::new(Podman::new(path)),
        RuntimeApi::Docker => Box::new(Docker::new(path)),
        RuntimeApi::Cri => Box::new(Cri::new(path)),
    }
}

#[cfg(feature = "runtimes")]
impl RuntimeSocket {
    /// Whether a socket is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        is_socket(&self.path)
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_place() {
        for api in [
            RuntimeApi::Containerd,
            RuntimeApi::Podman,
            RuntimeApi::Docker,
            RuntimeApi::Cri,
        ] {
            let known = RuntimeSocket::known(api);
            assert!(known.iter().all(|socket| socket.api == api));
            assert!(!known.is_empty(), "{api}");
        }
    }

    #[test]
    fn a_file_is_no_socket() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!RuntimeSocket::new(RuntimeApi::Docker, file.path()).exists());
    }
}
