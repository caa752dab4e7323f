//! `GET /`: the status page, one file that uses only this API.

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};

/// Everything in one: a page that fetches its parts shows half of itself when one is missing.
const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/page.css"),
    "</style>",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/page.js"),
    "</script></html>\n"
);

/// Runs the page's own script and style, by their hashes, and nothing that a name could smuggle in.
const POLICY: &str = concat!(
    "default-src 'none'; connect-src 'self'; img-src data:; ",
    "style-src 'sha256-PSPsdoeFAZMpoHYA7fymiMgxpH49lg8ctL8JSAwtRtY='; ",
    "script-src 'sha256-imtKzCB+vzE/17WP+yjevPMdYGIMwIFgF2QMZJ/m+O0='; ",
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

pub(super) async fn page() -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (HEADERS, PAGE).into_response()
}

#[cfg(test)]
mod tests;
