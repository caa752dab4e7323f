//! Containers by Podman's HTTP API. Its own endpoints know the pods.
//!
//! The service runs on demand: systemd starts it for a connection, and the stream of events keeps it running. Podman
//! 4 and 5 both serve version 4 of the interface.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    http::{self, Change, Client, Daemon, KnownContainer, Labels, State, Told},
    source::{Asked, ContainerPlace, Seen, SourceError},
};
use crate::containers::{
    names::is_runtimes_id,
    sighting::{Owner, Realm, RuntimeApi},
};

/// As it is in a cgroup's path.
const RUNTIME: &str = "podman";
/// Root of the endpoints.
const ROOT: &str = "/v4.0.0/libpod";

/// One runtime's socket.
#[derive(Clone, Debug)]
pub(crate) struct Podman {
    client: Client,
}

impl Podman {
    pub(crate) fn new(socket: PathBuf) -> Self {
        let client = Client::new(socket);
        Self { client }
    }

    async fn pod_name(&self, id: &str) -> Result<Option<String>, SourceError> {
        if !is_runtimes_id(id) {
            return Ok(None);
        }
        let path = format!("{ROOT}/pods/{id}/json");
        let found: Option<Pod> = self.client.find("a pod", &path).await?;
        Ok(found.and_then(|pod| pod.name))
    }
}

impl Daemon for Podman {
    type Listed = Listed;

    const API: RuntimeApi = RuntimeApi::Podman;
    /// Podman reads its journal from the beginning if a client asks for the past.
    const GAPLESS: bool = false;

    fn realm(owner: Owner) -> Realm {
        Realm::Podman(owner)
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn events(&self) -> String {
        let filters = http::filters(&[
            ("type", &["container"]),
            ("event", &["create", "init", "start", "rename", "remove"]),
        ]);
        format!("{ROOT}/events?stream=true&filters={filters}")
    }

    fn change(&self, action: &str) -> Option<Change> {
        match action {
            "create" | "init" | "start" | "rename" => Some(Change::New),
            "remove" => Some(Change::Gone),
            _ => None,
        }
    }

    async fn begin(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn listing(&self) -> String {
        format!("{ROOT}/containers/json?all=true")
    }

    fn listed(&self, listed: Listed) -> Option<http::Listed> {
        let pid = listed.pid.and_then(http::pid);
        Some(http::Listed {
            seen: listed.seen()?,
            pid,
            lacks_names: false,
        })
    }

    async fn look(&self, id: &str) -> Result<Option<Seen>, SourceError> {
        let path = format!("{ROOT}/containers/{id}/json");
        let asked = Asked::now();
        let found: Option<Inspected> = self.client.find("a container", &path).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let pod = match &found.pod {
            Some(pod) => self.pod_name(pod).await?,
            None => None,
        };
        Ok(found.seen(pod, asked))
    }

    fn told(&self, id: String, told: Told) -> Seen {
        KnownContainer::from(told).seen(RUNTIME, id)
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
    pid: Option<i64>,
    pod_name: Option<String>,
    is_infra: Option<bool>,
    state: Option<String>,
}

impl Listed {
    fn seen(self) -> Option<Seen> {
        let known = KnownContainer {
            name: self.names.and_then(|names| names.into_iter().next()),
            image: self.image,
            labels: self.labels,
            is_running: self.state.as_deref().is_some_and(http::is_running),
            pod: self.pod_name,
            is_sandbox: self.is_infra,
            ..KnownContainer::default()
        };
        Some(known.seen(RUNTIME, self.id?))
    }
}

/// A container that was asked for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: Option<String>,
    name: Option<String>,
    image_name: Option<String>,
    pod: Option<String>,
    is_infra: Option<bool>,
    config: Option<Config>,
    host_config: Option<HostConfig>,
    state: Option<State>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    cgroups: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<Labels>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pod {
    name: Option<String>,
}

impl Inspected {
    fn seen(self, pod: Option<String>, asked: Asked) -> Option<Seen> {
        let state = self.state.unwrap_or_default();
        let known = KnownContainer {
            name: self.name,
            image: self.image_name,
            labels: self.config.and_then(|config| config.labels),
            is_running: state.is_running(),
            place: place(&state, &self.host_config.unwrap_or_default(), asked),
            pod,
            is_sandbox: self.is_infra,
        };
        Some(known.seen(RUNTIME, self.id?))
    }
}

/// Where a container is, if it runs. Without cgroups of its own (`--cgroups=disabled`), it runs in the cgroup of
/// whoever started it.
fn place(state: &State, host_config: &HostConfig, asked: Asked) -> ContainerPlace {
    let is_disabled = host_config.cgroups.as_deref() == Some("disabled");
    let has_none = is_disabled || state.cgroup_path.as_deref() == Some("");
    if has_none || !state.is_running() {
        return ContainerPlace::default();
    }
    ContainerPlace {
        configured: state.cgroup_path.iter().cloned().collect(),
        process: state.process(asked),
    }
}

#[cfg(test)]
mod tests;
