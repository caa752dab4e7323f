//! Who answers at a runtime's socket: whose word it is, and for which part of the host.
//!
//! A user's runtime speaks for the user's cgroups. A runtime in a container counts processes by other numbers, and its
//! hierarchy begins at its container.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use tokio::net::UnixStream;

use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::{by_path::container_at, sighting::Owner},
    id::CgroupId,
};

/// Where a runtime usually has its hierarchy.
const USUAL_MOUNTS: &[&str] = &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Who answers at a socket, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) owner: Owner,
    /// Its process. `None` where that is in no pid namespace of ours.
    pid: Option<u32>,
}

impl Peer {
    /// The weaker of the process that listens and the socket file's owner.
    pub(crate) fn of(stream: &UnixStream, socket: &Path) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        Ok(Self {
            owner: weaker(peer.uid(), fs::metadata(socket)?.uid()),
            pid: pid.filter(|pid| *pid != 0),
        })
    }
}

fn weaker(peer: u32, file: u32) -> Owner {
    match (peer, file) {
        (0, 0) => Owner::Host,
        (0, uid) | (uid, _) => Owner::User(uid),
    }
}

/// Whose word a runtime's answers are, and where they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    owner: Owner,
    /// Whether it is in the pid namespace that `/proc` shows.
    is_here: bool,
    /// Where its hierarchy begins, from the root of ours; empty for the same. `None`: not known.
    root: Option<String>,
}

impl Speaker {
    /// Reads what `/proc` has of the process that listens.
    pub(crate) fn new(peer: Peer, hierarchy: &Hierarchy) -> Self {
        let owner = peer.owner;
        let Some(pid) = peer.pid else {
            // We are in a pid namespace below its own: it is on the host.
            let root = Some(String::new());
            return Self {
                owner,
                is_here: false,
                root,
            };
        };
        let read = |of: &str, name: &str| fs::read_to_string(format!("/proc/{of}/{name}"));
        let its = |name| read(&pid.to_string(), name);
        let container = its("cgroup").ok().and_then(|text| container(&text));
        // Nothing in a container speaks for the outside, whatever it sees of it.
        let is_here = container.is_none() && its("status").is_ok_and(|status| is_here(&status));
        let root = match (its("mountinfo"), read("self", "mountinfo")) {
            (Ok(its), Ok(own)) => root(&its, &own, hierarchy.mount()),
            // Without the right to read it, only a neighbour is taken to see what we see.
            _ => is_here.then(String::new),
        };
        let root = match container {
            Some(container) => root
                .filter(|root| is_at_or_below(root, &container))
                .or(Some(container)),
            None => root,
        };
        Self {
            owner,
            is_here,
            root,
        }
    }

    /// Root's runtime on this host, with the hierarchy that we have.
    #[cfg(test)]
    pub(crate) fn host() -> Self {
        Self {
            owner: Owner::Host,
            is_here: true,
            root: Some(String::new()),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether its process numbers mean the same processes to us.
    pub(super) fn counts_processes_as_we_do(&self) -> bool {
        self.is_here
    }

    pub(super) fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// The prefix that keeps its containers apart from the host's, where it speaks for a part of the host only. Its
    /// names hold only for a cgroup that is proven.
    pub(crate) fn part(&self) -> Option<String> {
        match (self.owner, self.root()) {
            (Owner::User(uid), _) => Some(format!("uid:{uid}")),
            (Owner::Host, Some("")) => None,
            (Owner::Host, root) => Some(format!("in:{}", root.unwrap_or("?"))),
        }
    }
}

/// The outermost container that a process is in, by the path of its cgroup.
fn container(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let ends = path.match_indices('/').map(|(end, _)| end).skip(1);
    let mut above = ends.chain([path.len()]).filter_map(|end| path.get(..end));
    let is_container = |path: &&str| container_at(CgroupId(0), path).is_some();
    above.find(is_container).map(str::to_owned)
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    let below = path.strip_prefix(above);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Whether a process has one number only: the one in the pid namespace that `/proc` shows.
fn is_here(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_ascii_whitespace().count() == 1)
}

/// The root of a process's hierarchy, from the root of the hierarchy at `mount`.
fn root(its: &str, own: &str, mount: &Path) -> Option<String> {
    let at_mount = mounts(own).find(|(_, point)| Path::new(point) == mount);
    let own = at_mount.map_or_else(|| usual_root(own), |(root, _)| Some(root))?;
    let below = usual_root(its)?.strip_prefix(own.trim_end_matches('/'))?;
    match below {
        "" | "/" => Some(String::new()),
        path => super::place::is_plain(path).then(|| path.to_owned()),
    }
}

/// The root of the hierarchy that is mounted where programs look for it.
fn usual_root(mountinfo: &str) -> Option<&str> {
    let usual = mounts(mountinfo).find(|(_, point)| USUAL_MOUNTS.contains(point));
    usual
        .or_else(|| mounts(mountinfo).next())
        .map(|(root, _)| root)
}

/// The mounts of cgroup v2: their roots, and where they are mounted.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let found = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then_some(found)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Speaker {
        /// One of a user.
        pub(crate) fn user(uid: u32) -> Self {
            let owner = Owner::User(uid);
            Self {
                owner,
                ..Self::host()
            }
        }

        /// One in a container of the host.
        pub(crate) fn inside(root: &str) -> Self {
            Self {
                is_here: false,
                root: Some(root.to_owned()),
                ..Self::host()
            }
        }
    }

    const HOST: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                        30 22 0:27 / /sys/fs/pstore rw - pstore pstore rw\n";

    #[test]
    fn the_weaker_owner_counts() {
        assert_eq!(weaker(0, 0), Owner::Host);
        assert_eq!(weaker(0, 1000), Owner::User(1000));
        assert_eq!(weaker(1000, 0), Owner::User(1000));
        assert_eq!(weaker(1000, 1001), Owner::User(1000));
    }

    #[tokio::test]
    async fn the_kernel_tells_who_listens() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let stream = UnixStream::connect(&socket).await.unwrap();
        let peer = Peer::of(&stream, &socket).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(peer.owner, weaker(uid, uid));
        assert_eq!(peer.pid, Some(std::process::id()));
        let speaker = Speaker::new(peer, &Hierarchy::at("/nowhere"));
        assert!(speaker.counts_processes_as_we_do());
    }

    #[test]
    fn one_number_is_our_namespace() {
        assert!(is_here("Name:\tcontainerd\nNSpid:\t812\n"));
        assert!(!is_here("Name:\tcontainerd\nNSpid:\t812\t104\n"));
        assert!(!is_here("Name:\tcontainerd\n"));
    }

    #[test]
    fn a_kind_nodes_hierarchy_begins_at_its_container() {
        let mount = Path::new("/sys/fs/cgroup");
        let inside =
            |root: &str| format!("900 800 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let seen = |its: &str, own: &str| root(its, own, mount);
        assert_eq!(seen(HOST, HOST).as_deref(), Some(""));
        let node = inside("/system.slice/docker-1.scope");
        assert_eq!(
            seen(&node, HOST).as_deref(),
            Some("/system.slice/docker-1.scope")
        );
        // As seen from a container that has the host's hierarchy.
        let own = inside("/../..");
        assert_eq!(seen(&inside("/../../node"), &own).as_deref(), Some("/node"));
        assert_eq!(seen(&inside("/../.."), &own).as_deref(), Some(""));
        for unknown in [inside("/.."), String::new(), inside("/a/../b")] {
            assert_eq!(seen(&unknown, HOST), None, "{unknown}");
        }
    }

    #[test]
    fn a_runtime_in_a_container_begins_there() {
        let id = "5".repeat(64);
        let node = format!("/system.slice/docker-{id}.scope");
        let of = |path: &str| container(&format!("1:name=x:/y\n0::{path}\n"));
        assert_eq!(
            of(&format!("{node}/system.slice/containerd.service")),
            Some(node.clone())
        );
        assert_eq!(of(&node), Some(node.clone()));
        for host in [
            "/system.slice/containerd.service",
            "/",
            "/podruntime.slice/a.service",
        ] {
            assert_eq!(of(host), None, "{host}");
        }
        assert!(is_at_or_below("/a/b", "/a") && is_at_or_below("/a", "/a"));
        assert!(!is_at_or_below("/ab", "/a") && !is_at_or_below("", "/a"));
    }

    #[test]
    fn a_part_of_the_host_is_kept_apart() {
        assert_eq!(Speaker::host().part(), None);
        assert_eq!(Speaker::user(7).part().as_deref(), Some("uid:7"));
        assert_eq!(Speaker::inside("/node").part().as_deref(), Some("in:/node"));
    }
}
