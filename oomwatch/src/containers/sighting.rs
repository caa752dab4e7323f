//! What a runtime reports of its containers, as it comes to the watcher.

use std::{fmt, path::PathBuf};

use crate::{containers::container::ContainerDetails, id::CgroupId};

/// The interface that a runtime is followed by.
///
/// In the order of how much each knows: where two report one container, the details of the later interface hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RuntimeApi {
    /// containerd's gRPC services.
    Containerd,
    /// Podman's HTTP API.
    Podman,
    /// Docker's HTTP API.
    Docker,
    /// The Kubernetes container runtime interface, of containerd or CRI-O.
    Cri,
}

impl RuntimeApi {
    /// The name on the command line and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Cri => "cri",
        }
    }
}

impl fmt::Display for RuntimeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeSocket {
    /// The interface that the runtime serves at this socket.
    pub api: RuntimeApi,
    /// The socket.
    pub path: PathBuf,
}

/// Sockets as the runtimes and distributions have them; containerd's serves CRI too.
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
}

/// What a source reports, as it comes to the watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A container exists, or something about it is new.
    Seen {
        api: RuntimeApi,
        id: String,
        cgroup_id: Option<CgroupId>,
        details: Box<ContainerDetails>,
    },
    /// An event's own details of a container. The source asks for the rest now.
    Details {
        api: RuntimeApi,
        id: String,
        details: Box<ContainerDetails>,
    },
    /// A container was removed.
    Gone { api: RuntimeApi, id: String },
    /// The listing is complete: the runtime has these containers and no others.
    Listed { api: RuntimeApi, ids: Vec<String> },
    /// The connection ended.
    Lost { api: RuntimeApi },
}
