//! What a cgroup's path alone says about the container in it.
//!
//! Pure text: no file is read and no daemon is asked, so the answer exists even when the cgroup is already gone. The
//! price is that only layouts which name themselves are known. A plain containerd path such as `/default/web` looks
//! like any other directory and stays `None`.
//!
//! ```text
//! identify("/system.slice/docker-<id>.scope")            container, docker, <id>, depth 2
//! identify("/system.slice/docker-<id>.scope/init.scope") systemd unit init.scope, depth 3
//! innermost("/system.slice/docker-<id>.scope/init.scope") container, docker, <id>, depth 2
//! ```
//!
//! The path is untrusted in one more way than its characters. Whoever controls a delegated cgroup names the
//! directories below it, so an inner match is what the *container* claims. A caller to whom that matters compares it
//! with the match on the path cut above `depth`.
//!
//! Invariant: nothing is allocated before a match is found; these functions run for every cgroup
//! that systemd creates.

mod component;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;

use component::{PathMatch, Place};

/// What kind of thing owns a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The outermost cgroup of one container. A Kubernetes pause container looks the same.
    Container,
    /// A pod sandbox without a pause container: CRI-O's own cgroup for it, or Kata's for the virtual machine.
    Sandbox,
    /// A Kubernetes or podman pod, the parent of its containers.
    Pod,
    /// A machine known to systemd-machined: an nspawn container or a libvirt guest.
    Machine,
    /// A step of an image build. Its engine lists it nowhere as a container.
    Build,
    /// conmon, which watches over one container from outside.
    Monitor,
    /// The part of a sandbox's virtual machine that no limit of the pod holds.
    Overhead,
    /// A systemd service or scope that is none of the above. A fallback, not a container.
    SystemdUnit,
}

/// The software whose naming scheme a path follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Runtime {
    /// dockerd, also through cri-dockerd.
    Docker,
    /// containerd's CRI plugin.
    Containerd,
    /// nerdctl on containerd.
    Nerdctl,
    /// CRI-O.
    CriO,
    /// podman, including Quadlet units.
    Podman,
    /// buildah, also through `podman build`.
    Buildah,
    /// Kata Containers' runtime itself.
    Kata,
    /// youki used directly, not through an engine.
    Youki,
    /// LXC, LXD, Incus and Proxmox containers.
    Lxc,
    /// systemd-nspawn, or another program that registers its machines with systemd-machined.
    Nspawn,
    /// libvirt guests: QEMU, LXC, Cloud Hypervisor.
    Libvirt,
    /// systemd itself: a service or scope.
    Systemd,
}

impl Runtime {
    /// The name used in events.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Nerdctl => "nerdctl",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
            Self::Kata => "kata",
            Self::Youki => "youki",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
            Self::Libvirt => "libvirt",
            Self::Systemd => "systemd",
        }
    }
}

/// The quality-of-service class the kubelet sorted a pod into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Qos {
    /// Limits equal requests; such a pod has no class level in its path.
    Guaranteed,
    /// Some requests are set.
    Burstable,
    /// No requests at all.
    BestEffort,
}

/// What a cgroup's own path says about the container in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathIdentity {
    /// What owns the cgroup.
    pub(crate) kind: Kind,
    /// The owner's own id: 64 hex digits for most runtimes, or the pod's UID. Or a name where the path holds one
    /// (LXC, youki, machines, systemd units). A monitor has the id of its container, an overhead that of its sandbox.
    pub(crate) id: String,
    /// Who named the cgroup. `None` where several runtimes use the same form, as below a pod
    /// directory of the cgroupfs driver.
    pub(crate) runtime: Option<Runtime>,
    /// A name chosen by a person, where the path holds one. LXC appends `-1`, `-2`, … to the directory when the old
    /// one is still there. A container called `web-1` looks the same, so the suffix stays.
    pub(crate) name: Option<String>,
    /// UID of the nearest Kubernetes pod at or above the cgroup, with dashes in either driver.
    /// For static pods the 32 hex digits of the kubelet's config hash.
    pub(crate) pod_uid: Option<String>,
    /// Class of that pod.
    pub(crate) qos: Option<Qos>,
    /// How many components of the given path lead to the owner's cgroup, itself included. For a
    /// path from the hierarchy root this is the level the kernel counts, with the root as 0.
    pub(crate) depth: usize,
}

/// Identifies exactly this cgroup from its last component and the ones above it.
///
/// `path` is relative to the hierarchy root, as in the `0::` line of `/proc/<pid>/cgroup`; the
/// kernel's ` (deleted)` mark is ignored. Directories below a container's own cgroup, `lxc.monitor`,
/// nspawn's `supervisor` and mount units are `None`.
pub(crate) fn identify(path: &str) -> Option<PathIdentity> {
    let place = Place::of(hierarchy_path(path)?)?;
    Some(component::classify(place)?.into_identity(place))
}

/// Finds the innermost owner at or above this cgroup.
///
/// Needed because crun adds `/container`, a systemd inside a container adds its own units, and
/// containers nest. A systemd unit is the answer only when nothing above it is a container, pod
/// or machine, since units exist inside containers as well.
pub(crate) fn innermost(path: &str) -> Option<PathIdentity> {
    let mut unit = None;
    let mut below = "";
    let mut next = Place::of(hierarchy_path(path)?);
    while let Some(place) = next {
        match component::classify(place) {
            Some(found) if found.kind == Kind::SystemdUnit => {
                unit.get_or_insert((found, place));
            }
            Some(found) if !is_supervisor(&found, below) => {
                return Some(found.into_identity(place));
            }
            _ => {}
        }
        below = place.name;
        next = place.parent();
    }
    unit.map(|(found, place)| found.into_identity(place))
}

/// nspawn runs itself in `supervisor` beside the machine's `payload`; what happens there did not
/// happen to the machine.
fn is_supervisor(machine: &PathMatch<'_>, below: &str) -> bool {
    machine.runtime == Some(Runtime::Nspawn) && below == "supervisor"
}

/// The path without its leading slash and the kernel's mark for a removed cgroup.
///
/// A leading `..` is what a process sees of cgroups outside its cgroup namespace. Anywhere else
/// dots would make "ancestor" mean something different than the text, and the kernel never
/// writes them.
fn hierarchy_path(path: &str) -> Option<&str> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let path = path.trim_start_matches('/');
    let dotted = path
        .split('/')
        .skip_while(|name| *name == "..")
        .any(|name| name == "." || name == "..");
    (!dotted).then_some(path)
}
