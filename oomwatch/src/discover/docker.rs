//! Containers by Docker's HTTP API, and what Podman's has in common with it: a listing, and a
//! stream of events that each make for a look at one container.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use tracing::debug;

use super::{
    http::Daemon,
    labels::{self, label},
    names::is_runtimes_id,
    source::{FollowFuture, Place, RuntimeApi, Seen, Sightings, Source, SourceError},
};
use crate::{ContainerDetails, clock};

/// By cri-dockerd, for the container that only holds a pod's namespaces.
const DOCKER_TYPE: &str = "io.kubernetes.docker.type";
const SANDBOX: &str = "podsandbox";

/// One Docker.
#[derive(Debug)]
pub(crate) struct Docker {
    socket: PathBuf,
}

impl Docker {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Source for Docker {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Docker
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn follow<'a>(&'a mut self, sightings: &'a Sightings) -> FollowFuture<'a> {
        Box::pin(async {
            // Docker agrees a moment before it listens, and remembers its last events.
            let since = clock::now().unix_time_ns / 1_000_000_000;
            let dialect = Dialect {
                list: "/containers/json?all=true",
                // {"type":["container"],"event":["create","start","rename","update","destroy"]}
                events: format!(
                    "/events?since={since}&filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22rename%22%2C%22update%22%2C%22destroy%22%5D%7D"
                ),
                removed: "destroy",
            };
            dialect.follow::<Listed>(&self.socket, sightings).await
        })
    }
}

/// A container of `GET /containers/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl From<Listed> for Seen {
    fn from(listed: Listed) -> Self {
        let names = listed.names.unwrap_or_default();
        let own = names.iter().filter_map(|name| name.strip_prefix('/'));
        // The others are names that links gave it: `/other/alias`.
        let name = own.clone().find(|name| !name.contains('/'));
        let details = labels::details(listed.labels.unwrap_or_default());
        let kind = label(&details.labels, DOCKER_TYPE);
        Self {
            // Its cgroup has its id in its name, whatever the parent.
            place: Place::default(),
            details: ContainerDetails {
                name: details.name.clone().or(name.map(str::to_owned)),
                runtime: Some("docker".to_owned()),
                image: listed.image.filter(|image| !image.is_empty()),
                is_sandbox: Some(kind.as_deref() == Some(SANDBOX)),
                ..details
            },
            id: listed.id,
        }
    }
}

/// Where Docker and Podman differ.
pub(super) struct Dialect {
    /// Path of the listing, with a query.
    pub(super) list: &'static str,
    /// Path of the events.
    pub(super) events: String,
    /// The event of a container that is no more.
    pub(super) removed: &'static str,
}

/// An event. All but the removal mean that something about the container is new.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
}

impl Dialect {
    /// Subscribes, lists, and follows until the connection ends.
    pub(super) async fn follow<L: DeserializeOwned + Into<Seen>>(
        &self,
        socket: &Path,
        sightings: &Sightings,
    ) -> Result<(), SourceError> {
        let daemon = Daemon::at(socket);
        let mut events = daemon.lines("the events", &self.events).await?;
        let mut ids = Vec::new();
        for listed in daemon.get::<Vec<L>>("the listing", self.list).await? {
            let seen = listed.into();
            ids.push(seen.id.clone());
            sightings.seen(seen).await?;
        }
        sightings.listed(ids).await?;
        while let Some(line) = events.next().await? {
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) => self.changed::<L>(&daemon, event, sightings).await?,
                Err(error) => debug!(%error, "an event of a daemon cannot be read"),
            }
        }
        Err(SourceError::Closed)
    }

    async fn changed<L: DeserializeOwned + Into<Seen>>(
        &self,
        daemon: &Daemon,
        event: Event,
        sightings: &Sightings,
    ) -> Result<(), SourceError> {
        let id = event.actor.id;
        if event.action == self.removed {
            return sightings.gone(id).await;
        }
        if !is_runtimes_id(&id) {
            debug!(id, "an event of a daemon is about no container");
            return Ok(());
        }
        // {"id":["…"]}: the listing has all that is wanted, and Podman's inspection no pod's name.
        let path = format!("{}&filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D", self.list);
        for listed in daemon.get::<Vec<L>>("a look at a container", &path).await? {
            sightings.seen(listed.into()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
