//! The table of routes. It makes both routers, and a test holds it against the OpenAPI document.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, delete, get, put},
};

use super::{
    Shared, answer::raw_json, containers, events, history, host, observe, page, problem::Problem,
    stream,
};

/// Bytes of a request's body.
const MAX_BODY_BYTES: usize = 64 << 10;
/// Time from a request's headers to its answer's headers. Streams begin at once too.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

const OPENAPI: &str = include_str!("openapi.json");

/// Where something is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Control,
    ReadOnly,
    Both,
}

struct Route {
    on: On,
    /// Method and path.
    what: (&'static str, &'static str),
    handler: MethodRouter<Arc<Shared>>,
}

fn routes() -> Vec<Route> {
    let route = |on, what, handler| Route { on, what, handler };
    let container = "/v1/containers/{id}";
    vec![
        route(On::Both, ("get", "/v1/status"), get(observe::status)),
        route(On::Both, ("get", "/v1/containers"), get(containers::list)),
        route(On::Control, ("put", container), put(containers::add)),
        route(
            On::Control,
            ("delete", container),
            delete(containers::remove),
        ),
        route(On::Both, ("get", "/v1/events"), get(events::events)),
        route(On::Both, ("get", "/v1/events/stream"), get(stream::stream)),
        route(On::Control, ("get", "/v1/history"), get(history::history)),
        route(On::Both, ("get", "/openapi.json"), get(openapi)),
        route(On::ReadOnly, ("get", "/metrics"), get(observe::metrics)),
        route(On::ReadOnly, ("get", "/healthz"), get(observe::healthy)),
        route(On::ReadOnly, ("get", "/readyz"), get(observe::ready)),
        route(On::ReadOnly, ("get", "/"), get(page::page)),
    ]
}

/// All routes.
pub(super) fn control(shared: Arc<Shared>) -> Router {
    router(On::Control).with_state(shared)
}

/// The read-only routes. On a loopback address, only for requests that name it.
pub(super) fn read_only(shared: Arc<Shared>, loopback: bool) -> Router {
    let router = router(On::ReadOnly).with_state(shared);
    if loopback {
        router.layer(from_fn(host::only_loopback))
    } else {
        router
    }
}

fn router(on: On) -> Router<Arc<Shared>> {
    let served = routes()
        .into_iter()
        .filter(|route| route.on == on || route.on == On::Both);
    served
        .fold(Router::new(), |router, route| {
            let (_, path) = route.what;
            router.route(path, route.handler)
        })
        .fallback(nothing_there)
        .method_not_allowed_fallback(not_that_way)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(in_time))
        .layer(from_fn(for_one_reader))
}

async fn nothing_there(uri: Uri) -> Problem {
    Problem::not_found(uri.path())
}

async fn not_that_way() -> Problem {
    let detail = "not by this method; /openapi.json says what there is";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

async fn openapi() -> Response {
    raw_json(OPENAPI)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::took_too_long(REQUEST_LIMIT).into_response(),
    }
}

/// Keeps caches and browsers from storing or reinterpreting answers.
async fn for_one_reader(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 2] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (HEADERS, next.run(request).await).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_the_other_way_round() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                if method != "parameters" {
                    documented.insert(format!("{method} {path}"));
                }
            }
        }
        let served: BTreeSet<_> = routes()
            .iter()
            .map(
                |Route {
                     what: (method, path),
                     ..
                 }| format!("{method} {path}"),
            )
            .collect();
        assert_eq!(documented, served);
    }

    #[test]
    fn the_document_is_of_this_version_and_its_references_lead_somewhere() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut found = 0;
        let mut left = vec![&document];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(members) => {
                    left.extend(members.values());
                    let target = members.get("$ref").and_then(Value::as_str);
                    if let Some(target) = target {
                        found += 1;
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                }
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
        assert!(found > 0);
    }
}
