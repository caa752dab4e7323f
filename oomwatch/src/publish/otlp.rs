//! OpenTelemetry as a publisher: a log record for each kill, and the counts as metrics, over OTLP.
//!
//! [`export`] makes the exporters from the standard environment variables. [`record`] maps an event to
//! OpenTelemetry's names, [`resource`] describes the sender, [`totals`] sends the counts. The publisher drives the
//! exporters directly and not through the SDK's batches. So `publish` returns the outcome of its event.

mod export;
mod record;
mod resource;
mod totals;

use std::{fmt, sync::Arc, time::SystemTime};

use opentelemetry::{
    InstrumentationScope,
    logs::{LogRecord as _, Logger as _, LoggerProvider as _},
};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::{
    error::OTelSdkError,
    logs::{LogBatch, LogExporter as _, SdkLogger, SdkLoggerProvider},
};

use self::totals::{ExportedTotals, Setup};
use super::{Delivery, PublishError, PublishFuture, Publisher};
use crate::{
    counts::Counts,
    event::{Kind, OomEvent},
};

/// Name of the instrumentation scope.
const SCOPE: &str = "oomwatch";

/// Why the publisher cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// A setting asks for a value that is not supported.
    #[error("{variable} is {value:?}: {expected}")]
    ExporterConfig {
        /// The environment variable.
        variable: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The system's root certificates, for an endpoint with https.
    #[error("the system's root certificates cannot be read; SSL_CERT_FILE names another file")]
    Roots(#[source] std::io::Error),
    /// The rest of the settings.
    #[error("the OTLP exporter cannot be set up")]
    Exporter(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends kills to an OpenTelemetry collector, by gRPC or HTTP.
///
/// Each kill becomes one log record, `oomwatch.oom.kill`, with the kernel's time. It has the attributes of the
/// semantic conventions 1.42 for the container, the pod and the process. A kill that a container claims late is sent
/// again, with `oomwatch.oom.supersedes`. With [`Self::counts`], the publisher also sends
/// `oomwatch.container.oom.kills` and `oomwatch.container.oom.group_kills` after they have changed. Both counters are
/// cumulative.
///
/// The standard variables configure the endpoint: `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_PROTOCOL` (`http/protobuf`, the
/// default, or `grpc`), `…_HEADERS`, `…_TIMEOUT`, `…_INSECURE`, and the same for `LOGS` and `METRICS`. The publisher
/// also follows `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
pub struct OtlpPublisher {
    exporter: LogExporter,
    logger: SdkLogger,
    scope: InstrumentationScope,
    resource: resource::Attributes,
    /// Until it is opened.
    setup: Option<Setup>,
    counts: Option<Counts>,
    totals: Option<ExportedTotals>,
}

impl fmt::Debug for OtlpPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpPublisher").finish_non_exhaustive()
    }
}

impl OtlpPublisher {
    /// Publishes to the endpoint in the environment. Must be called in a tokio runtime. Connects with the first
    /// event.
    ///
    /// # Errors
    /// When a variable cannot be followed, or there are no root certificates for an endpoint with https.
    pub fn from_env() -> Result<Self, OtlpError> {
        let scope = InstrumentationScope::builder(SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        // Only makes records: it has nowhere to send them.
        let records = SdkLoggerProvider::builder().build();
        Ok(Self {
            exporter: export::logs(&export::env)?,
            logger: records.logger(SCOPE),
            scope,
            resource: resource::Attributes::of_this_host(),
            setup: Some(Setup {
                exporter: export::metrics(&export::env)?,
                interval: export::interval(&export::env)?,
            }),
            counts: None,
            totals: None,
        })
    }

    /// The node's name in Kubernetes, `k8s.node.name`.
    #[must_use]
    pub fn node(mut self, node: &str) -> Self {
        self.resource.set_node(node);
        self
    }

    /// Sends these numbers too.
    #[must_use]
    pub fn counts(mut self, counts: &Counts) -> Self {
        self.counts = Some(counts.clone());
        self
    }

    async fn send(&self, event: &OomEvent) -> Result<(), PublishError> {
        let mut record = self.logger.create_log_record();
        record::fill(&mut record, event);
        record.set_observed_timestamp(SystemTime::now());
        let batch = [(&record, &self.scope)];
        let sent = self.exporter.export(LogBatch::new(&batch)).await;
        sent.map_err(|error| match export::is_final(&error) {
            true => PublishError::Refused(Box::new(error)),
            false => PublishError::Failed(Box::new(error)),
        })
    }
}

impl Publisher for OtlpPublisher {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn open(&mut self) -> PublishFuture<'_> {
        let resource = self.resource.build();
        self.exporter.set_resource(&resource);
        let setup = self.setup.take().zip(self.counts.take());
        self.totals = setup.map(|(setup, counts)| ExportedTotals::start(setup, resource, counts));
        Box::pin(async { Ok(()) })
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        Box::pin(async move {
            match event.kind {
                Kind::AlreadyExiting => return Ok(()),
                Kind::Kill | Kind::CounterOnly => {}
            }
            if let Some(totals) = &self.totals {
                totals.changed();
            }
            self.send(&event).await
        })
    }

    fn flush(&mut self) -> PublishFuture<'_> {
        Box::pin(async move {
            match self.totals.take() {
                Some(totals) => totals.finish().await,
                None => Ok(()),
            }
        })
    }
}

/// An exporter's failure as a publisher's.
fn failed(error: OTelSdkError) -> PublishError {
    PublishError::Failed(Box::new(error))
}

#[cfg(test)]
mod tests;
