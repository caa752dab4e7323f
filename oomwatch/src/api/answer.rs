//! Answers: JSON, and large JSON that counts until most of it is sent.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{Shared, problem::Problem};

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
/// Bytes that are handed to a connection at a time. It asks for more once these are nearly sent.
const PIECE: usize = 32 << 10;

/// JSON as an answer. The types it is used for have nothing that can fail.
pub(super) fn json(value: &impl Serialize) -> Response {
    (JSON, serde_json::to_string(value).unwrap_or_default()).into_response()
}

/// The same for what was made by somebody else.
pub(super) fn raw_json(text: impl Into<Body>) -> Response {
    (JSON, text.into()).into_response()
}

/// Leave to make a large answer; waits its turn.
pub(super) async fn large(shared: &Shared) -> Result<OwnedSemaphorePermit, Problem> {
    let permit = Arc::clone(&shared.large_answers).acquire_owned().await;
    // The semaphore is never closed.
    permit.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping"))
}

/// A large answer, in pieces; its turn ends with the last of them.
pub(super) fn large_json(text: String, permit: OwnedSemaphorePermit) -> Response {
    let rest = (Bytes::from(text), permit);
    let pieces = futures_util::stream::unfold(rest, |(mut rest, permit)| async {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(PIECE));
        Some((Ok::<_, Infallible>(piece), (rest, permit)))
    });
    raw_json(Body::from_stream(pieces))
}
