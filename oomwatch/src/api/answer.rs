//! Answers: JSON, and large JSON that holds its permit until most of it is sent.

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

/// A JSON answer. The types that it serves cannot fail to serialize.
pub(super) fn json(value: &impl Serialize) -> Response {
    (JSON, serde_json::to_string(value).unwrap_or_default()).into_response()
}

/// The same for finished JSON text.
pub(super) fn raw_json(text: impl Into<Body>) -> Response {
    (JSON, text.into()).into_response()
}

/// Waits for the permit of a large answer.
pub(super) async fn large(shared: &Shared) -> Result<OwnedSemaphorePermit, Problem> {
    let permit = Arc::clone(&shared.large_answers).acquire_owned().await;
    // The semaphore is never closed.
    permit.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping"))
}

/// A large answer, in pieces. It drops its permit with the last piece.
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
