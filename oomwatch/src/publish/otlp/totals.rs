//! The counts as metrics. They are sent after a change, at most once in an interval, and at the end.
//!
//! A task of its own sends them and sleeps while nothing is killed. The numbers are those of [`Counts`], whatever
//! became of the log records.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, MeterProvider as _},
};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
        data::ResourceMetrics, exporter::PushMetricExporter as _, reader::MetricReader,
    },
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{SCOPE, failed};
use crate::{
    clock,
    counts::{Counts, Losses},
    id::printable,
    log::warn,
    publish::PublishError,
};

/// How long after its last kill, in nanoseconds, a container is exported. All containers of the past would be more
/// than collectors take in one request.
const TOLD_FOR_NS: u64 = 3_600_000_000_000;

/// How they are sent.
pub(super) struct Setup {
    pub(super) exporter: MetricExporter,
    pub(super) interval: Duration,
}

/// Sends the counts.
#[derive(Debug)]
pub(super) struct ExportedTotals {
    changed: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<OTelSdkResult>,
}

impl ExportedTotals {
    pub(super) fn start(setup: Setup, resource: Resource, counts: Counts) -> Self {
        let changed = Arc::<Notify>::default();
        let stop = CancellationToken::new();
        let worker = Worker {
            meter: Meter::new(resource, &counts),
            exporter: setup.exporter,
            counts,
            sent: 0,
            interval: setup.interval,
            changed: Arc::clone(&changed),
        };
        Self {
            changed,
            task: tokio::spawn(worker.run(stop.clone())),
            stop,
        }
    }

    /// There is something new.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Sends the rest.
    pub(super) async fn finish(self) -> Result<(), PublishError> {
        self.stop.cancel();
        // A task that panicked has logged so.
        self.task.await.unwrap_or(Ok(())).map_err(failed)
    }
}

struct Worker {
    meter: Meter,
    exporter: MetricExporter,
    counts: Counts,
    /// The version of the counts that arrived.
    sent: u64,
    interval: Duration,
    changed: Arc<Notify>,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) -> OTelSdkResult {
        let mut next = Instant::now();
        loop {
            // Counts that did not arrive are sent again without a new change.
            let is_new = async {
                if self.sent == self.counts.version() {
                    self.changed.notified().await;
                }
                sleep_until(next).await;
            };
            tokio::select! {
                () = stop.cancelled() => return self.send().await,
                () = is_new => {}
            }
            if let Err(error) = self.send().await {
                warn!(publisher = "otlp", %error, "metrics not sent; tried again");
            }
            next = Instant::now() + self.interval;
        }
    }

    async fn send(&mut self) -> OTelSdkResult {
        let version = self.counts.version();
        if version == self.sent {
            return Ok(());
        }
        let metrics = self.meter.collect()?;
        self.exporter.export(&metrics).await?;
        self.sent = version;
        Ok(())
    }
}

/// The counts as the SDK's instruments. The SDK reads them on demand.
struct Meter {
    reader: Reader,
    /// The reader knows it weakly.
    _provider: SdkMeterProvider,
}

impl Meter {
    fn new(resource: Resource, counts: &Counts) -> Self {
        let reader = Reader(Arc::new(
            ManualReader::builder()
                .with_temporality(Temporality::Cumulative)
                .build(),
        ));
        // Beyond its own limit the SDK would add all series up to one.
        let limit = counts.limit().saturating_mul(2);
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader.clone())
            .with_view(move |_: &Instrument| {
                Stream::builder().with_cardinality_limit(limit).build().ok()
            })
            .build();
        let meter = provider.meter(SCOPE);
        let of_kills = counts.clone();
        meter
            .u64_observable_counter("oomwatch.container.oom.kills")
            .with_description("OOM kills in the container")
            .with_unit("{process}")
            .with_callback(move |observer| observe_kills(&of_kills, observer))
            .build();
        let of_groups = counts.clone();
        meter
            .u64_observable_counter("oomwatch.container.oom.group_kills")
            .with_description("Group kills that the container lost processes in")
            .with_unit("{kill}")
            .with_callback(move |observer| observe_groups(&of_groups, observer))
            .build();
        Self {
            reader,
            _provider: provider,
        }
    }

    fn collect(&self) -> Result<ResourceMetrics, opentelemetry_sdk::error::OTelSdkError> {
        let mut metrics = ResourceMetrics::default();
        self.reader.collect(&mut metrics)?;
        Ok(metrics)
    }
}

fn recent(counts: &Counts) -> Vec<Arc<Losses>> {
    counts.losses_since(clock::now().boottime_ns.saturating_sub(TOLD_FOR_NS))
}

fn observe_kills(counts: &Counts, observer: &dyn AsyncInstrument<u64>) {
    for losses in recent(counts) {
        for kills in &losses.kills {
            let mut attributes = attributes(&losses);
            attributes.push(KeyValue::new("oomwatch.oom.scope", kills.scope.as_str()));
            attributes.push(KeyValue::new(
                "oomwatch.oom.constraint",
                kills.constraint.as_str(),
            ));
            observer.observe(kills.count, &attributes);
        }
    }
}

fn observe_groups(counts: &Counts, observer: &dyn AsyncInstrument<u64>) {
    for losses in recent(counts) {
        observer.observe(losses.group_kills, &attributes(&losses));
    }
}

fn attributes(losses: &Losses) -> Vec<KeyValue> {
    let (id, details) = (&losses.container.id, &losses.container.details);
    let pod = details.pod.as_deref();
    let of_pod = |value: &Option<String>| value.clone().filter(|_| pod.is_some());
    let known = [
        ("container.id", Some(id.as_str().to_owned())),
        ("container.name", details.name.clone()),
        ("k8s.pod.name", details.pod.clone()),
        ("k8s.namespace.name", of_pod(&details.namespace)),
        ("k8s.container.name", of_pod(&details.name)),
    ];
    let known = known.into_iter();
    known
        .filter_map(|(name, value)| Some(KeyValue::new(name, printable(value?.as_bytes()))))
        .collect()
}

/// A reader that both the provider and we have.
#[derive(Clone, Debug)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
