//! Exporters, from the standard environment variables.
//!
//! The exporters themselves read endpoint, headers, time limit and compression. This module reads the variables that
//! choose the exporter and decide whether it needs certificates.

mod http;

use std::time::Duration;

use opentelemetry_otlp::{
    LogExporter, MetricExporter, Protocol, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{error::OTelSdkError, metrics::Temporality};

use self::http::Client;
use super::OtlpError;
use crate::log::warn;

const PROTOCOL: &str = "PROTOCOL";
const ENDPOINT: &str = "ENDPOINT";
const INSECURE: &str = "INSECURE";
const TIMEOUT: &str = "TIMEOUT";
/// Variables that other exporters follow and this one does not.
const UNKNOWN: [&str; 4] = [
    "COMPRESSION",
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
];
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

/// Where settings come from.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment. The empty value is none, as OpenTelemetry has it.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The exported signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Logs,
    Metrics,
}

/// A variable that is set, and its value.
#[derive(Debug, PartialEq, Eq)]
struct ExporterConfig {
    variable: String,
    value: String,
}

impl ExporterConfig {
    fn refused(self, expected: &'static str) -> OtlpError {
        OtlpError::ExporterConfig {
            variable: self.variable,
            value: self.value,
            expected,
        }
    }
}

impl Signal {
    /// The signal's own variable, or the one for all.
    fn setting(self, what: &str, env: Env<'_>) -> Option<ExporterConfig> {
        let own = match self {
            Self::Logs => "LOGS_",
            Self::Metrics => "METRICS_",
        };
        [own, ""].into_iter().find_map(|signal| {
            let variable = format!("OTEL_EXPORTER_OTLP_{signal}{what}");
            let value = env(&variable)?;
            Some(ExporterConfig { variable, value })
        })
    }

    fn protocol(self, env: Env<'_>) -> Result<Protocol, OtlpError> {
        let Some(setting) = self.setting(PROTOCOL, env) else {
            return Ok(Protocol::HttpBinary);
        };
        match setting.value.as_str() {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpBinary),
            _ => Err(setting.refused("grpc or http/protobuf is possible")),
        }
    }

    /// Whether the endpoint uses TLS. For gRPC, an endpoint without a scheme does too, unless a variable makes it
    /// insecure.
    fn wants_tls(self, protocol: Protocol, env: Env<'_>) -> bool {
        let Some(endpoint) = self.setting(ENDPOINT, env) else {
            return false;
        };
        match endpoint.value.split_once("://") {
            Some((scheme, _)) => scheme.eq_ignore_ascii_case("https"),
            None => {
                let insecure = self.setting(INSECURE, env);
                let insecure = insecure.is_some_and(|set| set.value.eq_ignore_ascii_case("true"));
                protocol == Protocol::Grpc && !insecure
            }
        }
    }

    /// Variables that are set without effect.
    fn unfollowed(self, env: Env<'_>) -> Vec<ExporterConfig> {
        let settings = UNKNOWN.iter().filter_map(|what| self.setting(what, env));
        settings.filter(|set| set.value != "none").collect()
    }

    /// Warns of the variables without effect. They are no reason not to send.
    fn warn_of_unfollowed(self, env: Env<'_>) {
        for ExporterConfig { variable, value } in self.unfollowed(env) {
            warn!(
                publisher = "otlp",
                variable,
                value,
                "not followed: requests are not compressed, and certificates are the system's, or SSL_CERT_FILE's"
            );
        }
    }

    fn timeout(self, env: Env<'_>) -> Result<Duration, OtlpError> {
        let setting = self.setting(TIMEOUT, env);
        setting.map_or(Ok(DEFAULT_TIMEOUT), milliseconds)
    }

    fn http_client(self, protocol: Protocol, env: Env<'_>) -> Result<Client, OtlpError> {
        let timeout = self.timeout(env)?;
        if self.wants_tls(protocol, env) {
            Client::with_tls(timeout).map_err(OtlpError::Roots)
        } else {
            Ok(Client::plain(timeout))
        }
    }
}

fn milliseconds(setting: ExporterConfig) -> Result<Duration, OtlpError> {
    match setting.value.parse() {
        Ok(value) => Ok(Duration::from_millis(value)),
        Err(_) => Err(setting.refused("a number of milliseconds is expected")),
    }
}

/// How long to wait between two exports of metrics.
pub(super) fn interval(env: Env<'_>) -> Result<Duration, OtlpError> {
    let setting = env(INTERVAL).map(|value| ExporterConfig {
        variable: INTERVAL.to_owned(),
        value,
    });
    setting.map_or(Ok(DEFAULT_INTERVAL), milliseconds)
}

/// The exporter of log records.
pub(super) fn logs(env: Env<'_>) -> Result<LogExporter, OtlpError> {
    let (signal, builder) = (Signal::Logs, LogExporter::builder());
    signal.warn_of_unfollowed(env);
    let built = match signal.protocol(env)? {
        protocol @ Protocol::Grpc => {
            // Read in any case, to report a mistake in it.
            signal.timeout(env)?;
            grpc(builder.with_tonic(), signal.wants_tls(protocol, env)).build()
        }
        protocol => http(builder.with_http(), signal.http_client(protocol, env)?).build(),
    };
    built.map_err(|error| OtlpError::Exporter(Box::new(error)))
}

/// The exporter of metrics. Cumulative, so that an export that fails loses nothing.
pub(super) fn metrics(env: Env<'_>) -> Result<MetricExporter, OtlpError> {
    let signal = Signal::Metrics;
    signal.warn_of_unfollowed(env);
    let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
    let built = match signal.protocol(env)? {
        protocol @ Protocol::Grpc => {
            signal.timeout(env)?;
            grpc(builder.with_tonic(), signal.wants_tls(protocol, env)).build()
        }
        protocol => http(builder.with_http(), signal.http_client(protocol, env)?).build(),
    };
    built.map_err(|error| OtlpError::Exporter(Box::new(error)))
}

fn grpc<B: WithTonicConfig>(builder: B, tls: bool) -> B {
    if tls {
        builder.with_tls_config(ClientTlsConfig::new().with_native_roots())
    } else {
        builder
    }
}

fn http<B: WithHttpConfig + WithExportConfig>(builder: B, client: Client) -> B {
    builder
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client)
}

/// Whether the collector would refuse the same request again, by OTLP's specification.
///
/// The exporter gives the answer only as text. The tests hold both sentences against a server that gives those
/// answers. Any other error may pass.
pub(super) fn is_final(error: &OTelSdkError) -> bool {
    let OTelSdkError::InternalFailure(reason) = error else {
        return false;
    };
    if let Some((_, status)) = reason.split_once("failed with status code: ") {
        return !matches!(status.trim(), "429" | "502" | "503" | "504");
    }
    let code = reason.split_once("failed with gRPC code: ");
    let code = code.and_then(|(_, code)| code.split(':').next());
    matches!(
        code,
        Some(
            "InvalidArgument"
                | "NotFound"
                | "AlreadyExists"
                | "PermissionDenied"
                | "Unauthenticated"
                | "FailedPrecondition"
                | "Unimplemented"
                | "Internal"
        )
    )
}

#[cfg(test)]
mod tests;
