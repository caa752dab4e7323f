//! `--discover` and `--socket`: which sources of containers this host has, and which are wanted.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use oomwatch::{RuntimeApi, RuntimeSocket};
use tracing::info;

/// systemd's own mark of being the init of this host (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";

/// A source of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Discover {
    /// Paths of cgroups, and all of the following that this host has.
    Auto,
    /// Paths of cgroups.
    Cgroup,
    /// Paths of cgroups, and names by containerd's gRPC services.
    Containerd,
    /// Paths of cgroups, and names by the Kubernetes container runtime interface.
    Cri,
    /// Paths of cgroups, and names by Docker's HTTP API.
    Docker,
    /// Paths of cgroups, and names by Podman's HTTP API.
    Podman,
    /// systemd's services and scopes.
    Systemd,
    /// No source.
    None,
}

/// `API=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketArg(RuntimeSocket);

/// Reads `API=PATH`.
pub(crate) fn parse_socket(text: &str) -> Result<SocketArg, String> {
    let expected = "expected API=PATH, such as containerd=/run/containerd/containerd.sock; APIs are containerd, cri, docker and podman";
    let (api, path) = text.split_once('=').ok_or(expected)?;
    let api = APIS
        .iter()
        .find(|(_, known)| known.as_str() == api)
        .map(|(_, api)| *api)
        .ok_or(expected)?;
    if !path.starts_with('/') {
        return Err(format!("the path {path:?} must be absolute"));
    }
    Ok(SocketArg(RuntimeSocket::new(api, path)))
}

const APIS: [(Discover, RuntimeApi); 4] = [
    (Discover::Containerd, RuntimeApi::Containerd),
    (Discover::Cri, RuntimeApi::Cri),
    (Discover::Docker, RuntimeApi::Docker),
    (Discover::Podman, RuntimeApi::Podman),
];

/// The chosen sources of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Whether paths of cgroups are a source.
    pub(crate) by_path: bool,
    /// Whether systemd's units are registered.
    pub(crate) units: bool,
    /// Runtimes.
    pub(crate) sockets: Vec<RuntimeSocket>,
    /// Runtimes that are absent now and may come later.
    pub(crate) possible: Vec<RuntimeSocket>,
}

impl Sources {
    /// The chosen sources on this host. A runtime chosen by name is followed even while its socket is missing.
    pub(crate) fn choose(wanted: &[Discover], given: &[SocketArg]) -> Self {
        let auto = wanted.contains(&Discover::Auto);
        let mut sources = Self {
            // Runtimes name their containers. The paths of cgroups show where most of them are.
            by_path: auto
                || wanted.contains(&Discover::Cgroup)
                || APIS.iter().any(|(name, _)| wanted.contains(name)),
            units: wanted.contains(&Discover::Systemd) || auto && Path::new(SYSTEMD).is_dir(),
            sockets: given.iter().map(|given| given.0.clone()).collect(),
            possible: Vec::new(),
        };
        for (name, api) in APIS {
            let is_given = sources.sockets.iter().any(|socket| socket.api == api);
            let named = wanted.contains(&name);
            if !is_given && (named || auto) {
                sources.add_known(api, named);
            }
        }
        if auto {
            let found: Vec<_> = sources.sockets.iter().map(describe).collect();
            let systemd = if sources.units { "yes" } else { "no" };
            info!(
                runtimes = found.join(", "),
                systemd, "sources of containers"
            );
        }
        sources
    }

    /// Adds the existing sockets of one interface, each once. If none exists, adds the usual one for a `named`
    /// interface.
    fn add_known(&mut self, api: RuntimeApi, named: bool) {
        let mut places: Vec<PathBuf> = Vec::new();
        let mut absent = Vec::new();
        for socket in RuntimeSocket::known(api) {
            if !socket.exists() {
                absent.push(socket);
                continue;
            }
            let place = socket.path.canonicalize();
            let place = place.unwrap_or_else(|_| socket.path.clone());
            if !places.contains(&place) {
                places.push(place);
                self.sockets.push(socket);
            }
        }
        if named && places.is_empty() && !absent.is_empty() {
            self.sockets.push(absent.remove(0));
        }
        self.possible.extend(absent);
    }
}

fn describe(socket: &RuntimeSocket) -> String {
    format!("{} at {}", socket.api, socket.path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_nothing() {
        assert_eq!(Sources::choose(&[Discover::None], &[]), Sources::default());
    }

    #[test]
    fn a_runtime_by_name_is_waited_for() {
        let sources = Sources::choose(&[Discover::Podman], &[]);
        assert_eq!(sources.sockets.len(), 1);
        assert!(sources.by_path && !sources.units);
    }

    #[test]
    fn a_socket_that_is_given_stands_for_its_interface() {
        let given = parse_socket("docker=/tmp/d.sock").unwrap();
        let sources = Sources::choose(&[Discover::Docker, Discover::Cgroup], &[given]);
        let expected = RuntimeSocket::new(RuntimeApi::Docker, "/tmp/d.sock");
        assert_eq!(sources.sockets, [expected]);
        assert!(sources.by_path);
    }

    #[test]
    fn bad_sockets_are_told_with_what_is_expected() {
        for bad in ["", "docker", "lxc=/run/x", "docker=relative"] {
            assert!(parse_socket(bad).is_err(), "{bad}");
        }
        assert!(parse_socket("x=/y").unwrap_err().contains("containerd"));
    }
}
