//! Containers: all of them, one more, one less.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use axum::{
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    answer::{json, large, large_json},
    problem::Problem,
};
use crate::{engine::naming::Registered, id::printable};

#[derive(Serialize)]
struct Containers {
    containers: Vec<Container>,
}

/// A container, on the wire. Names of fields are those of events.
#[derive(Serialize)]
struct Container {
    id: String,
    /// `runtime/realm/id`, where all three are known.
    key: Option<String>,
    cgroup_id: u64,
    cgroup_path: Option<String>,
    name: Option<String>,
    runtime: Option<String>,
    realm: Option<String>,
    identity: &'static str,
    /// The container that a claimed one is in.
    inside: Option<String>,
    image: Option<String>,
    pod: Option<String>,
    pod_uid: Option<String>,
    namespace: Option<String>,
    is_sandbox: Option<bool>,
    labels: BTreeMap<String, String>,
    kills: Option<u64>,
    counter_only: Option<u64>,
    double_counts: Option<u64>,
}

impl Container {
    /// `counted` is whether ledgers are kept. Without them the numbers are unknown.
    fn new(registered: Registered, counted: bool) -> Self {
        let number = |number| counted.then_some(number);
        let container = registered.container;
        let details = &container.details;
        let text = |value: &Option<String>| value.as_ref().map(|value| printable(value.as_bytes()));
        let label = |(key, value): (&String, &String)| {
            (printable(key.as_bytes()), printable(value.as_bytes()))
        };
        Self {
            id: container.id.as_str().to_owned(),
            key: container.key().map(|key| printable(key.as_bytes())),
            cgroup_id: container.cgroup_id.0,
            cgroup_path: registered.cgroup_path,
            name: text(&details.name),
            runtime: text(&details.runtime),
            realm: text(&details.realm),
            identity: container.identity.as_str(),
            inside: container
                .inside
                .as_ref()
                .map(|outer| printable(outer.id.as_str().as_bytes())),
            image: text(&details.image),
            pod: text(&details.pod),
            pod_uid: text(&details.pod_uid),
            namespace: text(&details.namespace),
            is_sandbox: details.is_sandbox,
            labels: details.labels.iter().map(label).collect(),
            kills: number(registered.kills),
            counter_only: number(registered.counter_only),
            double_counts: number(registered.double_counts),
        }
    }
}

/// `GET /v1/containers`, by id.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let permit = large(&shared).await?;
    let counted = shared.watched.status().await?.has_counters;
    let registered = shared.watched.containers().await?.into_iter();
    let mut containers: Vec<_> = registered.map(|one| Container::new(one, counted)).collect();
    containers.sort_unstable_by(|a, b| (&a.id, a.cgroup_id).cmp(&(&b.id, b.cgroup_id)));
    // Nothing in it can fail.
    let text = serde_json::to_string(&Containers { containers }).unwrap_or_default();
    Ok(large_json(text, permit))
}

#[derive(Deserialize, Serialize)]
struct Place {
    cgroup: PathBuf,
}

/// `PUT /v1/containers/{id}`.
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let place = place(&body?)?;
    shared.watched.add(&id, &place.cgroup).await?;
    Ok((StatusCode::CREATED, json(&place)).into_response())
}

/// `DELETE /v1/containers/{id}`.
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    shared.watched.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The parser's words repeat what was sent, so only the place is passed on.
fn place(body: &[u8]) -> Result<Place, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let example = r#"{"cgroup":"/sys/fs/cgroup/web-1"}"#;
        if error.is_data() {
            let detail = format!("the body is not {example}: line {line}, column {column}");
            return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        }
        let detail =
            format!("the body is not JSON: line {line}, column {column}; expected {example}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}
