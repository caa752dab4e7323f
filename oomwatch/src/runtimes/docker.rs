//! Containers by Docker's HTTP API.
//!
//! The paths have no version, so each daemon serves its own. All versions have the fields that we read. The listing
//! has every name, and the cgroup's path has the id.

use std::{path::PathBuf, time::SystemTime};

use serde::Deserialize;

use super::{
    http::{self, Change, Client, Daemon, Labels, ListedContainers, State, Told},
    labels,
    source::{Seen, SourceError},
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
#[derive(Debug)]
pub(crate) struct Docker {
    client: Client,
}

impl Docker {
    pub(crate) fn new(socket: PathBuf) -> Self {
        let client = Client::new(socket);
        Self { client }
    }
}

impl Daemon for Docker {
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

    async fn list(&self) -> Result<Vec<Seen>, SourceError> {
        let path = "/containers/json?all=true";
        let all: Option<Vec<Listed>> = self.client.get("the listing", path).await?;
        let all = all.unwrap_or_default().into_iter();
        Ok(all.filter_map(Listed::seen).collect())
    }

    async fn look(&self, id: &str) -> Result<Option<Seen>, SourceError> {
        let path = format!("/containers/{id}/json");
        let found: Option<Inspected> = self.client.find("a container", &path).await?;
        Ok(found.and_then(Inspected::seen))
    }

    fn told(&self, id: String, told: Told) -> Seen {
        seen(id, told.into())
    }
}

/// A container in the listing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: Option<String>,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<Labels>,
}

impl Listed {
    fn seen(self) -> Option<Seen> {
        let mut names = self.names.unwrap_or_default();
        // Links of other containers are among them, as `/other/alias`.
        let own = names
            .iter()
            .position(|name| name.rfind('/').unwrap_or_default() == 0);
        let name = own.map(|own| names.swap_remove(own));
        let known = ListedContainers {
            name,
            image: self.image,
            labels: self.labels,
            ..ListedContainers::default()
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
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
    labels: Option<Labels>,
}

impl Inspected {
    fn seen(self) -> Option<Seen> {
        let config = self.config.unwrap_or_default();
        let known = ListedContainers {
            name: self.name,
            image: config.image,
            labels: config.labels,
            pid: self.state.unwrap_or_default().pid,
            ..ListedContainers::default()
        };
        Some(seen(self.id?, known))
    }
}

/// Docker's answers have a slash before a name. Its events have none.
fn seen(id: String, mut known: ListedContainers) -> Seen {
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
