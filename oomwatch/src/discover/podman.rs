//! Containers by Podman's own HTTP API, which knows of pods. From Podman 4.0 on.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    docker::Dialect,
    labels,
    source::{FollowFuture, Place, RuntimeApi, Seen, Sightings, Source},
};
use crate::ContainerDetails;

/// One Podman.
#[derive(Debug)]
pub(crate) struct Podman {
    socket: PathBuf,
}

impl Podman {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl Source for Podman {
    fn api(&self) -> RuntimeApi {
        RuntimeApi::Podman
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn follow<'a>(&'a mut self, sightings: &'a Sightings) -> FollowFuture<'a> {
        Box::pin(async {
            let dialect = Dialect {
                list: "/v4.0.0/libpod/containers/json?all=true",
                // {"type":["container"],"event":["create","init","start","rename","remove"]}
                events: "/v4.0.0/libpod/events?stream=true&filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22init%22%2C%22start%22%2C%22rename%22%2C%22remove%22%5D%7D".to_owned(),
                removed: "remove",
            };
            dialect.follow::<Listed>(&self.socket, sightings).await
        })
    }
}

/// A container of `GET /libpod/containers/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    pid: Option<u32>,
    pod_name: Option<String>,
    is_infra: Option<bool>,
}

impl From<Listed> for Seen {
    fn from(listed: Listed) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let details = labels::details(listed.labels.unwrap_or_default());
        let name = listed.names.unwrap_or_default().into_iter().next();
        Self {
            id: listed.id,
            place: Place {
                pid: listed.pid.filter(|&pid| pid > 0),
                ..Place::default()
            },
            details: ContainerDetails {
                name: given(name),
                runtime: Some("podman".to_owned()),
                image: given(listed.image),
                pod: given(listed.pod_name),
                is_sandbox: Some(listed.is_infra == Some(true)),
                ..details
            },
        }
    }
}

#[cfg(test)]
mod tests;
