//! Containers by Docker's HTTP API.
//!
//! The paths have no version, so each daemon serves its own. All versions have the fields that we read. The listing has
//! every name. Only the answer about one container has its place, and the tag of an image that has another tag by now.

use std::{path::PathBuf, time::SystemTime};

use serde::Deserialize;

use super::{
    http::{self, Change, Client, Daemon, KnownContainer, Labels, State, Told},
    labels,
    source::{Asked, ContainerPlace, Seen, SourceError},
};
use crate::containers::{
    container::ContainerDetails,
    sighting::{Owner, Realm, RuntimeApi},
};

/// A label that cri-dockerd gives the containers of Kubernetes.
const KUBERNETES_TYPE: &str = "io.kubernetes.docker.type";
/// The beginning of the names that cri-dockerd gives.
const KUBERNETES_NAME: &str = "k8s_";

/// One runtime's socket.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    client: Client,
    driver: Driver,
}

/// What makes the daemon's cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Driver {
    #[default]
    Unknown,
    Systemd,
    Cgroupfs,
    /// The daemon makes none.
    None,
}

/// What the daemon says of itself.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    cgroup_driver: Option<String>,
}

impl Driver {
    fn of(info: &Info) -> Self {
        match info.cgroup_driver.as_deref() {
            Some("systemd") => Self::Systemd,
            Some("cgroupfs") => Self::Cgroupfs,
            Some("none") => Self::None,
            _ => Self::Unknown,
        }
    }

    /// The paths that the daemon configures for a container. Both forms where the driver is not known.
    fn configured(self, parent: &str, id: &str) -> Vec<String> {
        let parent_path = match parent {
            "" => "/docker".to_owned(),
            parent => format!("/{}", parent.trim_matches('/')),
        };
        let (unit, path) = (
            format!("{parent}:docker:{id}"),
            format!("{parent_path}/{id}"),
        );
        match self {
            Self::Unknown => vec![unit, path],
            Self::Systemd => vec![unit],
            Self::Cgroupfs => vec![path],
            Self::None => Vec::new(),
        }
    }
}

impl Docker {
    pub(crate) fn new(socket: PathBuf) -> Self {
        let client = Client::new(socket);
        let driver = Driver::default();
        Self { client, driver }
    }
}

impl Daemon for Docker {
    type Listed = Listed;

    const API: RuntimeApi = RuntimeApi::Docker;
    const GAPLESS: bool = true;

    fn realm(owner: Owner) -> Realm {
        Realm::Docker(owner)
    }

    fn client(&self) -> &Client {
        &self.client
    }

    /// The events from now on, by the daemon's clock, which is ours. The daemon answers first and subscribes then.
    fn events(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let filters = http::filters(&[
            ("type", &["container"]),
            ("event", &["create", "start", "rename", "destroy"]),
        ]);
        let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
        format!("/events?since={seconds}.{nanoseconds:09}&filters={filters}")
    }

    fn change(&self, action: &str) -> Option<Change> {
        match action {
            "create" | "start" | "rename" => Some(Change::New),
            "destroy" => Some(Change::Gone),
            _ => None,
        }
    }

    async fn begin(&mut self) -> Result<(), SourceError> {
        let info: Option<Info> = self.client.find("the daemon's driver", "/info").await?;
        self.driver = Driver::of(&info.unwrap_or_default());
        Ok(())
    }

    fn listing(&self) -> String {
        "/containers/json?all=true".to_owned()
    }

    fn listed(&self, listed: Listed) -> Option<http::Listed> {
        let lacks_names = listed.image.as_deref().is_some_and(is_id);
        Some(http::Listed {
            seen: listed.seen()?,
            pid: None,
            lacks_names,
        })
    }

    async fn look(&self, id: &str) -> Result<Option<Seen>, SourceError> {
        let path = format!("/containers/{id}/json");
        let asked = Asked::now();
        let found: Option<Inspected> = self.client.find("a container", &path).await?;
        Ok(found.and_then(|found| found.seen(self.driver, asked)))
    }

    fn told(&self, id: String, told: Told) -> Seen {
        seen(id, told.into())
    }
}

/// A container in the listing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    id: Option<String>,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<Labels>,
    state: Option<String>,
}

impl Listed {
    fn seen(self) -> Option<Seen> {
        let mut names = self.names.unwrap_or_default();
        // Links of other containers are among them, as `/other/alias`.
        let own = names
            .iter()
            .position(|name| name.rfind('/').unwrap_or_default() == 0);
        let name = own.map(|own| names.swap_remove(own));
        let known = KnownContainer {
            name,
            image: self.image.filter(|image| !is_id(image)),
            labels: self.labels,
            is_running: self.state.as_deref().is_some_and(http::is_running),
            ..KnownContainer::default()
        };
        Some(seen(self.id?, known))
    }
}

/// A container that was asked for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: Option<String>,
    name: Option<String>,
    config: Option<Config>,
    state: Option<State>,
    host_config: Option<HostConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    cgroup_parent: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
    labels: Option<Labels>,
}

impl Inspected {
    fn seen(self, driver: Driver, asked: Asked) -> Option<Seen> {
        let id = self.id?;
        let config = self.config.unwrap_or_default();
        let state = self.state.unwrap_or_default();
        let parent = self.host_config.unwrap_or_default().cgroup_parent;
        let is_running = state.is_running();
        let place = ContainerPlace {
            configured: driver.configured(&parent.unwrap_or_default(), &id),
            process: state.process(asked),
        };
        let known = KnownContainer {
            name: self.name,
            image: config.image,
            labels: config.labels,
            is_running,
            // A container that does not run has no cgroup. Another may have been made at its path.
            place: if is_running {
                place
            } else {
                ContainerPlace::default()
            },
            ..KnownContainer::default()
        };
        Some(seen(id, known))
    }
}

/// Whether an image has no name in the listing: another image has its tag by now.
fn is_id(image: &str) -> bool {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex && matches!(digits.len(), 12 | 64)
}

/// Docker's answers have a slash before a name. Its events have none.
fn seen(id: String, mut known: KnownContainer) -> Seen {
    let bare = |name: String| name.strip_prefix('/').map(str::to_owned).unwrap_or(name);
    known.name = known.name.map(bare);
    let mut seen = known.seen("docker", id);
    seen.details = of_kubernetes(seen.details);
    seen
}

/// The details in cri-dockerd's labels. The name must be of its form too: an image can bring labels, but names no
/// container.
fn of_kubernetes(details: ContainerDetails) -> ContainerDetails {
    let given = details.name.as_deref().unwrap_or_default();
    let Some(kind) = details.labels.get(KUBERNETES_TYPE) else {
        return details;
    };
    if !given.starts_with(KUBERNETES_NAME) {
        return details;
    }
    let is_sandbox = kind == "podsandbox";
    let attempt = given.rsplit('_').next().and_then(|last| last.parse().ok());
    let said = labels::details(details.labels);
    ContainerDetails {
        name: said.name.clone().or(details.name),
        runtime: details.runtime,
        image: details.image,
        attempt: attempt.filter(|_| !is_sandbox),
        is_sandbox: Some(is_sandbox),
        ..said
    }
}

#[cfg(test)]
mod tests;
