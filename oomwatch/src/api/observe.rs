//! The state of the watcher: its status, its health, its metrics.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::timeout;

use super::{Shared, answer::json, problem::Problem};
use crate::{
    publish::PublisherReport,
    watcher::{Lost, Report, SourceReport, Status},
};

/// A watcher that answers within this is alive.
const ALIVE: Duration = Duration::from_secs(1);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Serialize)]
struct Wire<'a> {
    version: &'static str,
    uptime_seconds: u64,
    node: Option<&'a str>,
    tier: &'static str,
    sees_limits: bool,
    has_counters: bool,
    cgroups: usize,
    containers: usize,
    kills: u64,
    unregistered: u64,
    late: u64,
    counter_only: u64,
    double_counts: u64,
    already_exiting: u64,
    residual: u64,
    lost: LostWire,
    sources: Vec<SourceWire<'a>>,
    publishers: Vec<PublisherWire<'a>>,
}

/// By stage, as the metric `oomwatch_lost_total` has it.
#[derive(Serialize)]
struct LostWire {
    ring: u64,
    ring_cgroups: u64,
    decode: u64,
    queue: u64,
    publisher: u64,
    store: u64,
}

impl From<Lost> for LostWire {
    fn from(lost: Lost) -> Self {
        Self {
            ring: lost.ring,
            ring_cgroups: lost.ring_cgroups,
            decode: lost.decode,
            queue: lost.queue,
            publisher: lost.publisher,
            store: lost.store,
        }
    }
}

#[derive(Serialize)]
struct SourceWire<'a> {
    api: &'static str,
    socket: Cow<'a, str>,
    connected: bool,
}

impl<'a> From<&'a SourceReport> for SourceWire<'a> {
    fn from(report: &'a SourceReport) -> Self {
        Self {
            api: report.socket.api.as_str(),
            socket: report.socket.path.to_string_lossy(),
            connected: report.connected,
        }
    }
}

#[derive(Serialize)]
struct PublisherWire<'a> {
    name: &'a str,
    delivery: &'static str,
    published: u64,
    retries: u64,
    waiting: u64,
    lost_in_queue: u64,
    lost_by_publisher: u64,
}

impl<'a> From<&'a PublisherReport> for PublisherWire<'a> {
    fn from(report: &'a PublisherReport) -> Self {
        Self {
            name: &report.name,
            delivery: report.delivery.as_str(),
            published: report.published,
            retries: report.retries,
            waiting: report.waiting,
            lost_in_queue: report.lost_in_queue,
            lost_by_publisher: report.lost_by_publisher,
        }
    }
}

/// `GET /v1/status`.
pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let status = shared.watched.status().await?;
    Ok(json(&wire(&status, shared.started.elapsed())))
}

fn wire(status: &Status, uptime: Duration) -> Wire<'_> {
    let Report {
        totals,
        residual,
        lost,
        ref publishers,
        // 0 for as long as anybody can ask.
        lost_while_stopping: _,
    } = status.report;
    Wire {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: uptime.as_secs(),
        node: status.node.as_deref(),
        tier: status.tier.as_str(),
        sees_limits: status.sees_limits,
        has_counters: status.has_counters,
        cgroups: status.cgroups,
        containers: status.containers,
        kills: totals.kills,
        unregistered: totals.unregistered,
        late: totals.late,
        counter_only: totals.counter_only,
        double_counts: totals.double_counts,
        already_exiting: totals.already_exiting,
        residual,
        lost: lost.into(),
        sources: status.sources.iter().map(SourceWire::from).collect(),
        publishers: publishers.iter().map(PublisherWire::from).collect(),
    }
}

/// `GET /healthz`: whether the watcher's task answers.
pub(super) async fn healthy(State(shared): State<Arc<Shared>>) -> Result<&'static str, Problem> {
    match timeout(ALIVE, shared.watched.status()).await {
        Ok(Ok(_)) => Ok("ok\n"),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            let detail = format!("the watcher's task does not answer within {ALIVE:?}");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// `GET /readyz`: as [`healthy`], until the daemon must stop. Nobody answers before the watcher runs.
pub(super) async fn ready(state: State<Arc<Shared>>) -> Result<&'static str, Problem> {
    if state.stop.is_cancelled() {
        let detail = "oomwatch is stopping";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    healthy(state).await
}

/// `GET /metrics`.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let Some(metrics) = &shared.metrics else {
        let detail = "this oomwatch makes no metrics";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let headers = [(header::CONTENT_TYPE, OPEN_METRICS)];
    Ok((headers, metrics().await).into_response())
}
