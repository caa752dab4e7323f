//! `GET /v1/events`: the latest events.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;

use super::{
    Shared,
    answer::{large, large_json},
    problem::Problem,
};

const DEFAULT_LIMIT: u32 = 100;

#[derive(Deserialize)]
pub(super) struct Wanted {
    limit: Option<u32>,
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let limit = wanted?.limit.unwrap_or(DEFAULT_LIMIT);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let permit = large(&shared).await?;
    let events: Vec<_> = shared.recent.borrow().latest(limit).collect();
    let mut text = String::from(r#"{"events":["#);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        // Made from text, in `recent`.
        text.push_str(std::str::from_utf8(event).unwrap_or("null"));
    }
    text.push_str("]}");
    Ok(large_json(text, permit))
}
