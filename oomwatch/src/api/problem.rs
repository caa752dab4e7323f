//! Errors as answers: `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::{
    extract::rejection::{BytesRejection, PathRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    containers::registry::RegistryError,
    id::printable,
    watcher::{AddError, Stopped},
};

/// Characters of a detail, which may repeat a client's text.
const MAX_DETAIL_CHARS: usize = 1024;

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// `detail` may have untrusted text in it.
    pub(super) fn new(status: StatusCode, detail: impl AsRef<str>) -> Self {
        let detail = printable(detail.as_ref().as_bytes());
        let detail = match detail.char_indices().nth(MAX_DETAIL_CHARS) {
            Some((end, _)) => detail.get(..end).unwrap_or_default().to_owned() + "…",
            None => detail,
        };
        Self { status, detail }
    }

    pub(super) fn not_found(path: &str) -> Self {
        let detail = format!("there is nothing at {path}; /openapi.json says what there is");
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn took_too_long(limit: Duration) -> Self {
        let detail = format!("the request was not read and answered within {limit:?}");
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Self {
        let status = match &error {
            AddError::Registry(RegistryError::Unknown(_)) => StatusCode::NOT_FOUND,
            AddError::Registry(_) => StatusCode::CONFLICT,
            AddError::Id(_) | AddError::Path(_) => StatusCode::UNPROCESSABLE_ENTITY,
            AddError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, with_cause(&error))
    }
}

impl From<Stopped> for Problem {
    fn from(error: Stopped) -> Self {
        AddError::from(error).into()
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        // Text and a number only: nothing that can fail.
        let json = serde_json::to_string(&body).unwrap_or_default();
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, headers, json).into_response()
    }
}

/// An error and why: "cannot read X: permission denied".
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let words = found.to_string();
        // Transparent errors repeat their cause's text.
        if !text.contains(&words) {
            text = text + ": " + &words;
        }
        cause = found.source();
    }
    text
}
