//! Where the cgroup of a container is. The runtime gives the path in its configuration, or the first process. This
//! module reads `/proc/<pid>/cgroup` and looks at directories.

use std::path::Path;

use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::path::{self, Kind},
    id::CgroupId,
};

/// A container's place as its runtime gives it. All of it is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerPlace {
    /// Path of its cgroup from the root of the hierarchy, such as `/default/web`. The systemd
    /// driver's `slice:prefix:name` is not one; such paths hold the id anyway.
    pub(crate) cgroups_path: Option<String>,
    /// Its first process, in the initial pid namespace.
    pub(crate) pid: Option<u32>,
}

impl ContainerPlace {
    /// The container's cgroup, if it exists on the v2 hierarchy.
    pub(crate) fn find(&self, hierarchy: &Hierarchy, id: &str) -> Option<CgroupId> {
        let exists = |path: &str| {
            let directory = hierarchy.directory(path.as_bytes());
            hierarchy.id(&directory).ok()
        };
        let configured = self.cgroups_path.as_deref().filter(|path| is_own(path));
        if let Some(found) = configured.and_then(exists) {
            return Some(found);
        }
        let path = of_process(self.pid?)?;
        exists(cut(&path, id))
    }
}

/// Neither the root, nor a path that leads out of itself.
fn is_own(path: &str) -> bool {
    path.starts_with('/')
        && path.len() > 1
        && !path.split('/').any(|name| name == "." || name == "..")
}

/// The path of a process's cgroup on the v2 hierarchy.
fn of_process(pid: u32) -> Option<String> {
    let file = Path::new("/proc").join(pid.to_string()).join("cgroup");
    let text = std::fs::read_to_string(file).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    is_own(path).then(|| path.to_owned())
}

/// The container's own part of the path of one of its processes, which may be further down: crun
/// and a systemd inside make cgroups of their own.
fn cut<'a>(path: &'a str, id: &str) -> &'a str {
    let by_form = path::innermost(path)
        .filter(|found| found.kind == Kind::Container && found.id == id)
        .map(|found| found.depth);
    let named = || {
        let mut names = path.split('/').skip(1);
        names.position(|name| name == id).map(|above| above + 1)
    };
    match by_form.or_else(named) {
        Some(depth) => {
            let ends = path.match_indices('/').nth(depth).map(|(end, _)| end);
            ends.and_then(|end| path.get(..end)).unwrap_or(path)
        }
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_makes_below_itself_is_cut_off() {
        assert_eq!(cut("/default/web/init.scope", "web"), "/default/web");
        assert_eq!(cut("/default/web", "web"), "/default/web");
        assert_eq!(cut("/elsewhere", "web"), "/elsewhere");
        let id = "0123456789abcdef".repeat(4);
        let path = format!("/machine.slice/libpod-{id}.scope/container");
        assert_eq!(cut(&path, &id), format!("/machine.slice/libpod-{id}.scope"));
    }

    #[test]
    fn only_paths_of_their_own_are_looked_for() {
        for bad in ["/", "", "a/b", "/..", "/a/../b", "system.slice:docker:x"] {
            assert!(!is_own(bad), "{bad}");
        }
        assert!(is_own("/default/web"));
    }
}
