//! Discovery from cgroup paths alone. It needs no runtime and no socket, and works for containers that live shorter
//! than any request would take. Pure.

use super::{
    path::{self, Kind, PathIdentity, Runtime},
    sighting::CRI_NAMESPACE,
};
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    id::{CgroupId, ContainerId},
    topology::tree::Tree,
};

/// Which cgroups the watcher registers as containers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CgroupDiscovery {
    /// None.
    Off,
    /// Cgroups whose path has the form that a container runtime gives it.
    Containers,
    /// As [`Self::Containers`], and every other cgroup without a child, under its path.
    Leaves,
}

/// The container that lives in exactly this cgroup, by its path (printable text).
pub(crate) fn container_at(cgroup_id: CgroupId, path: &str) -> Option<Container> {
    let identity = path::identify(path)?;
    match identity.kind {
        Kind::Container | Kind::Sandbox | Kind::Machine => {}
        Kind::Pod | Kind::Build | Kind::Monitor | Kind::Overhead | Kind::SystemdUnit => {
            return None;
        }
    }
    Some(Container {
        id: ContainerId::new(&identity.id).ok()?,
        cgroup_id,
        identity: Identity::Path,
        inside: None,
        details: details(identity),
    })
}

/// The place that this cgroup is, if it is a pod's or an engine's. A sandbox is a container too, and a place where nobody
/// looks for containers.
pub(crate) fn place_at(path: &str) -> Option<PathPlace> {
    let identity = path::identify(path)?;
    matches!(
        identity.kind,
        Kind::Pod | Kind::Sandbox | Kind::Build | Kind::Monitor | Kind::Overhead
    )
    .then(|| PathPlace {
        kind: identity.kind,
        id: (identity.kind != Kind::Pod).then(|| identity.id.clone()),
        details: details(identity),
    })
}

/// A cgroup that is no container, by its path.
pub(crate) struct PathPlace {
    pub(crate) kind: Kind,
    pub(crate) id: Option<String>,
    pub(crate) details: ContainerDetails,
}

/// A leaf registered under its own path.
pub(crate) fn leaf_at(cgroup_id: CgroupId, path: &str) -> Option<Container> {
    Some(Container {
        id: ContainerId::new(path).ok()?,
        cgroup_id,
        identity: Identity::Path,
        inside: None,
        details: ContainerDetails::default(),
    })
}

/// The systemd service or scope whose cgroup this is, by its path. Not the units that a container makes of itself. A
/// unit of a user's or capsule's manager is registered under its path, because the name may not be unique.
pub(crate) fn unit_at(cgroup_id: CgroupId, path: &str) -> Option<Container> {
    let unit = path::identify(path).filter(|found| found.kind == Kind::SystemdUnit)?;
    let innermost = path::innermost(path)?;
    if innermost.kind != Kind::SystemdUnit {
        return None;
    }
    // The managers themselves, such as `user@1000.service`, are the system's.
    let of_manager = ["/user@", "/capsule@"].iter().any(|manager| {
        path.contains(manager) && !unit.id.starts_with(manager.trim_start_matches('/'))
    });
    let id = if of_manager { path } else { &unit.id };
    Some(Container {
        id: ContainerId::new(id).ok()?,
        cgroup_id,
        identity: Identity::Unit,
        inside: None,
        details: details(unit),
    })
}

/// The container that a cgroup's path makes of it; a leaf if the path says nothing else.
pub(crate) fn by_path(tree: &Tree, cgroup_id: CgroupId, units: bool) -> Option<Container> {
    let path = tree.printable_path(cgroup_id)?;
    let unit = || unit_at(cgroup_id, &path).filter(|_| units);
    let found = container_at(cgroup_id, &path).or_else(unit);
    found.or_else(|| leaf_at(cgroup_id, &path))
}

fn details(identity: PathIdentity) -> ContainerDetails {
    let realm = match (identity.kind, identity.runtime) {
        (Kind::SystemdUnit, _) => Some("system"),
        // Its CRI plugin, or nerdctl's default.
        (_, Some(Runtime::Containerd)) => Some(CRI_NAMESPACE),
        (_, Some(Runtime::Nerdctl) | None) => None,
        (_, Some(_)) => Some("host"),
    };
    ContainerDetails {
        name: identity.name,
        realm: realm.map(str::to_owned),
        runtime: identity.runtime.map(|runtime| runtime.as_str().to_owned()),
        pod_uid: identity.pod_uid,
        is_sandbox: (identity.kind == Kind::Sandbox).then_some(true),
        ..ContainerDetails::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e8a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";

    #[test]
    fn builds_monitors_and_overhead_are_no_containers() {
        for path in [
            "/docker/buildkit/tz1q5vkxw0b7c3r2m9n8p6y4d".to_owned(),
            "/system.slice/crun-buildah-buildah7.scope".to_owned(),
            format!("/crio/crio-conmon-{ID}"),
            format!("/kata_overhead/{ID}"),
        ] {
            assert!(container_at(CgroupId(1), &path).is_none(), "{path}");
            assert!(unit_at(CgroupId(1), &path).is_none(), "{path}");
        }
        let sandbox = container_at(CgroupId(1), &format!("/kata_sandboxed_pod/{ID}"));
        let sandbox = sandbox.unwrap();
        assert_eq!(sandbox.id.as_str(), ID);
        assert_eq!(sandbox.details.is_sandbox, Some(true));
    }

    #[test]
    fn units_of_a_manager_below_systemd_go_by_their_path() {
        let unit = |path: &str| unit_at(CgroupId(1), path).unwrap().id.to_string();
        for (manager, own) in [
            ("/user.slice/user-7.slice/user@7.service", "user@7.service"),
            ("/capsule.slice/capsule@web.service", "capsule@web.service"),
        ] {
            assert_eq!(unit(manager), own);
            let below = format!("{manager}/app.slice/db.service");
            assert_eq!(unit(&below), below);
        }
    }
}
