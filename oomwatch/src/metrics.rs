//! Metrics for Prometheus, as OpenMetrics text.
//!
//! [`crate::counts`] has the numbers of kills. [`scrape`] adds the watcher's status and containers, and writes them
//! all. Only the counts are kept between two scrapes. This module serves nothing: whoever has a server calls
//! [`Metrics::render`].

mod labels;
mod scrape;

use std::sync::Arc;

use hashbrown::HashSet;
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

use self::scrape::Scrape;
use crate::{
    clock,
    counts::{Counts, Series},
    log::warn,
    watcher::{Handle, requests::Requests},
};

/// How the metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// OpenMetrics 1.0, with exemplars.
    #[default]
    OpenMetrics,
    /// Prometheus' own older text format, for those that do not ask for OpenMetrics. No exemplars.
    Prometheus,
}

impl MetricsFormat {
    /// The media type of such text.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The metrics of a running watcher; cheap to clone.
///
/// Each container that exists has a `container_oom_kills_total` of 0 from its registration on. It has
/// `scope="container"` and `constraint="memcg"`, as most kills do, and `increase()` needs a first value. Where limits
/// are not seen ([`crate::watcher::Status::sees_limits`]), both labels are `unknown`. The tier `counters` also has 0
/// for `scope="container"` with an unknown constraint. Kills at other limits have series of their own, from the first
/// kill on. A removed container's series stay for 10 min after a scrape has found it gone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use oomwatch::{Counts, Metrics, Watcher};
///
/// let counts = Counts::default();
/// let watcher = Watcher::builder().counts(&counts).start().await?;
/// let metrics = Metrics::new(watcher.handle(), counts);
/// println!("{}", metrics.render().await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics {
    watched: Arc<dyn Requests>,
    counts: Counts,
    cadvisor: bool,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics")
            .field("cadvisor", &self.cadvisor)
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics of a watcher, with the counts that it was given ([`crate::watcher::Builder::counts`]).
    #[must_use]
    pub fn new(watcher: Handle, counts: Counts) -> Self {
        Self {
            watched: Arc::new(watcher),
            counts,
            cadvisor: false,
        }
    }

    /// Adds `container_oom_events_total` as cadvisor has it: one series for each container that exists, labels
    /// `id` (path of the cgroup), `name`, `image`, `container`, `pod` and `namespace`.
    #[must_use]
    pub fn cadvisor(mut self, cadvisor: bool) -> Self {
        self.cadvisor = cadvisor;
        self
    }

    /// All metrics, as OpenMetrics text.
    pub async fn render(&self) -> String {
        self.render_as(MetricsFormat::OpenMetrics).await
    }

    /// All metrics. A watcher that has stopped still has its counts.
    pub async fn render_as(&self, format: MetricsFormat) -> String {
        let status = self.watched.status().await.ok();
        let containers = self.watched.containers().await.ok();
        if let Some(containers) = &containers {
            let live = containers.iter().map(|live| Series::of(&live.container));
            let live: HashSet<Series> = live.collect();
            self.counts.retain_live(&live, clock::now().boottime_ns);
        }
        let scrape = Scrape {
            snapshot: self.counts.snapshot(),
            status,
            containers: containers.unwrap_or_default(),
            max_containers: self.counts.limit(),
            cadvisor: self.cadvisor,
        };
        // Writing 5,000 containers takes 8 ms. The watcher's task would see no kill meanwhile.
        let written = tokio::task::spawn_blocking(move || write(scrape, format));
        written.await.unwrap_or_default()
    }
}

fn write(scrape: Scrape, format: MetricsFormat) -> String {
    let mut registry = Registry::default();
    let mut text = String::new();
    registry.register_collector(Box::new(scrape));
    let written = match format {
        MetricsFormat::OpenMetrics => text::encode(&mut text, &registry),
        MetricsFormat::Prometheus => prometheus_text::encode(&mut text, &registry),
    };
    if let Err(error) = written {
        warn!(%error, "cannot write the metrics");
    }
    text
}

#[cfg(test)]
mod tests;
