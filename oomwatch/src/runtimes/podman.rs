//! Containers by Podman's HTTP API. Its own endpoints know the pods.
//!
//! The service runs on demand: systemd starts it for a connection, and the stream of events keeps it running. Podman
//! 4 and 5 both serve version 4 of the interface.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    http::{self, Change, Client, Daemon, Labels, ListedContainers, State, Told},
    source::{Seen, SourceError},
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
#[derive(Debug)]
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

    async fn list(&self) -> Result<Vec<Seen>, SourceError> {
        let path = format!("{ROOT}/containers/json?all=true");
        let all: Option<Vec<Listed>> = self.client.get("the listing", &path).await?;
        let all = all.unwrap_or_default().into_iter();
        Ok(all.filter_map(Listed::seen).collect())
    }

    async fn look(&self, id: &str) -> Result<Option<Seen>, SourceError> {
        let path = format!("{ROOT}/containers/{id}/json");
        let found: Option<Inspected> = self.client.find("a container", &path).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let pod = match &found.pod {
            Some(pod) => self.pod_name(pod).await?,
            None => None,
        };
        Ok(found.seen(pod))
    }

    fn told(&self, id: String, told: Told) -> Seen {
        ListedContainers::from(told).seen(RUNTIME, id)
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
    pid: Option<i64>,
    pod_name: Option<String>,
    is_infra: Option<bool>,
}

impl Listed {
    fn seen(self) -> Option<Seen> {
        let known = ListedContainers {
            name: self.names.and_then(|names| names.into_iter().next()),
            image: self.image,
            labels: self.labels,
            pid: self.pid,
            pod: self.pod_name,
            is_sandbox: self.is_infra,
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
    state: Option<State>,
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
    fn seen(self, pod: Option<String>) -> Option<Seen> {
        let known = ListedContainers {
            name: self.name,
            image: self.image_name,
            labels: self.config.and_then(|config| config.labels),
            pid: self.state.and_then(|state| state.pid),
            pod,
            is_sandbox: self.is_infra,
        };
        Some(known.seen(RUNTIME, self.id?))
    }
}

#[cfg(test)]
mod tests;
