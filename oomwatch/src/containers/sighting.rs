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

/// Whose a runtime is: root's of the host, or that of a user who runs one without root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// Its socket is root's. It speaks for the whole host.
    Host,
    /// Its socket is a user's. It speaks for the cgroups below the user's own.
    User(u32),
}

/// Within which an id is unique: a kind of runtime, and one of its namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Realm {
    /// A namespace of containerd; its CRI plugin's is `k8s.io`.
    Containerd(Box<str>),
    Docker(Owner),
    Podman(Owner),
    CriO,
}

/// The namespace in which containerd keeps what its CRI plugin makes.
pub(crate) const CRI_NAMESPACE: &str = "k8s.io";

impl Realm {
    /// Whether its runtime speaks for a part of the host only: a user's, or one inside a container. The source of such a
    /// containerd puts `uid:` or `in:` before its namespaces.
    pub(crate) fn is_part(&self) -> bool {
        match self {
            Self::Containerd(namespace) => {
                namespace.starts_with("uid:") || namespace.starts_with("in:")
            }
            Self::Docker(owner) | Self::Podman(owner) => *owner != Owner::Host,
            Self::CriO => false,
        }
    }

    /// Where an interface of root's keeps its containers, if it has no namespaces.
    pub(crate) fn of(api: RuntimeApi) -> Self {
        match api {
            RuntimeApi::Docker => Self::Docker(Owner::Host),
            RuntimeApi::Podman => Self::Podman(Owner::Host),
            RuntimeApi::Cri | RuntimeApi::Containerd => Self::Containerd(CRI_NAMESPACE.into()),
        }
    }
}

/// The part of a container's key between its runtime and its id.
impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containerd(namespace) => f.write_str(namespace),
            Self::Docker(Owner::User(uid)) | Self::Podman(Owner::User(uid)) => {
                write!(f, "uid:{uid}")
            }
            Self::Docker(Owner::Host) | Self::Podman(Owner::Host) | Self::CriO => {
                f.write_str("host")
            }
        }
    }
}

/// A container as its runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RuntimeKey {
    pub(crate) id: String,
    pub(crate) realm: Realm,
}

/// What a source reports, as it comes to the watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A container exists, or something about it is new.
    Seen {
        api: RuntimeApi,
        key: RuntimeKey,
        /// Its cgroup, where the source knows it on evidence.
        cgroup_id: Option<CgroupId>,
        /// Whether it has processes, as far as the runtime says. Only then is it worth asking where.
        is_running: bool,
        details: Box<ContainerDetails>,
    },
    /// An event's own details of a container. The source asks for the rest now.
    Details {
        api: RuntimeApi,
        key: RuntimeKey,
        details: Box<ContainerDetails>,
    },
    /// A container was removed.
    Gone { api: RuntimeApi, key: RuntimeKey },
    /// The listing is complete: the runtime has these containers and no others.
    Listed {
        api: RuntimeApi,
        keys: Vec<RuntimeKey>,
    },
    /// The connection ended.
    Lost { api: RuntimeApi },
}
