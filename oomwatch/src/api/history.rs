//! `GET /v1/history`: events of the past, from the state directory. On a thread that may block.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Shared,
    answer::{large, large_json},
    problem::{Problem, with_cause},
};
use crate::store::{
    StoreError,
    history::{History, HistoryEntry, HistoryFilter},
};

const DEFAULT_LIMIT: u32 = 100;
/// Most events in one answer. `since` asks for more in parts.
const MAX_LIMIT: u32 = 1000;
/// Bytes of JSON in one answer. 1,000 events have 2 MB.
const MAX_BYTES: usize = 8 << 20;

#[derive(Deserialize)]
pub(super) struct Wanted {
    since: Option<String>,
    container: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct HistoryPage {
    /// Whether the answer grew too large, and the latest events are missing in it.
    truncated: bool,
    events: Vec<Map<String, Value>>,
}

pub(super) async fn history(
    State(shared): State<Arc<Shared>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let filter = filter(wanted?.0)?;
    let Some(dir) = shared.state_dir.clone() else {
        let detail = "no history is kept: run oomwatch with --state-dir DIR";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let permit = large(&shared).await?;
    // The permit goes along: a disk that hangs keeps four threads at most.
    let (found, permit) = tokio::task::spawn_blocking(move || (read(&dir, &filter), permit))
        .await
        .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping"))?;
    // These values were parsed a moment ago.
    let text = serde_json::to_string(&found.map_err(refused)?).unwrap_or_default();
    Ok(large_json(text, permit))
}

fn filter(wanted: Wanted) -> Result<HistoryFilter, Problem> {
    let since = wanted.since.as_deref().map(|since| {
        let moment = since.parse::<jiff::Timestamp>();
        moment.map(jiff::Timestamp::as_nanosecond).map_err(|_| {
            let detail = format!("since={since} is no time, such as 2026-08-22T10:00:00Z");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    });
    Ok(HistoryFilter {
        since_unix_time_ns: since.transpose()?,
        container: wanted.container,
        pod: wanted.pod,
        namespace: wanted.namespace,
        limit: Some(wanted.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT).into()),
    })
}

fn read(dir: &Path, filter: &HistoryFilter) -> Result<HistoryPage, StoreError> {
    let (mut events, mut bytes, mut truncated) = (Vec::new(), 0, false);
    History::open(dir)?.each(filter, |entry| {
        bytes += entry.json.len() + entry.text.len();
        if bytes > MAX_BYTES {
            truncated = true;
            return ControlFlow::Break(());
        }
        events.extend(with_text(entry));
        ControlFlow::Continue(())
    })?;
    Ok(HistoryPage { truncated, events })
}

/// An entry in the form of the other routes. This store has written nothing but JSON.
fn with_text(entry: HistoryEntry) -> Option<Map<String, Value>> {
    let mut event: Map<String, Value> = serde_json::from_str(&entry.json).ok()?;
    event.insert("text".to_owned(), Value::String(entry.text));
    Some(event)
}

fn refused(error: StoreError) -> Problem {
    let status = match error {
        StoreError::Missing { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, with_cause(&error))
}
