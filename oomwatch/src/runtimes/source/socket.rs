//! Where runtimes listen, and which source follows which.

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use super::Source;
use crate::{
    containers::sighting::RuntimeApi,
    runtimes::{containerd::Containerd, cri::Cri, docker::Docker, podman::Podman},
};

/// The socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeSocket {
    /// The interface that is spoken there.
    pub api: RuntimeApi,
    /// The socket.
    pub path: PathBuf,
}

/// Sockets as the runtimes and distributions have them; containerd's speaks CRI too.
const KNOWN: &[(RuntimeApi, &str)] = &[
    (RuntimeApi::Containerd, "/run/containerd/containerd.sock"),
    (
        RuntimeApi::Containerd,
        "/run/k3s/containerd/containerd.sock",
    ),
    (
        RuntimeApi::Containerd,
        "/run/docker/containerd/containerd.sock",
    ),
    (
        RuntimeApi::Containerd,
        "/var/snap/microk8s/common/run/containerd.sock",
    ),
    (RuntimeApi::Containerd, "/run/k0s/containerd.sock"),
    (RuntimeApi::Podman, "/run/podman/podman.sock"),
    (RuntimeApi::Docker, "/run/docker.sock"),
    (RuntimeApi::Cri, "/run/containerd/containerd.sock"),
    (RuntimeApi::Cri, "/run/k3s/containerd/containerd.sock"),
    (
        RuntimeApi::Cri,
        "/var/snap/microk8s/common/run/containerd.sock",
    ),
    (RuntimeApi::Cri, "/run/k0s/containerd.sock"),
    (RuntimeApi::Cri, "/run/crio/crio.sock"),
];

impl RuntimeSocket {
    /// A runtime's socket at a place of its own.
    #[must_use]
    pub fn new(api: RuntimeApi, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { api, path }
    }

    /// The sockets where runtimes and distributions have them (k3s, RKE2, microk8s, k0s and
    /// dockerd's own containerd included), whether they exist or not.
    #[must_use]
    pub fn known(api: RuntimeApi) -> Vec<Self> {
        let known = KNOWN.iter().filter(|(known, _)| *known == api);
        known.map(|(api, path)| Self::new(*api, *path)).collect()
    }

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

/// The source that follows what listens at a socket.
pub(crate) fn source(socket: &RuntimeSocket) -> Box<dyn Source> {
    let path = socket.path.clone();
    match socket.api {
        RuntimeApi::Containerd => Box::new(Containerd::new(path)),
        RuntimeApi::Podman => Box::new(Podman::new(path)),
        RuntimeApi::Docker => Box::new(Docker::new(path)),
        RuntimeApi::Cri => Box::new(Cri::new(path)),
    }
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
