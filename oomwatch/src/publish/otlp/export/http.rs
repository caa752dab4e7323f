//! The HTTP client under the exporters: hyper, with rustls where the endpoint is https.

use std::{fmt, future::Future, io, pin::Pin, time::Duration};

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tracing::{debug, warn};

/// What an answer becomes that takes some records and refuses others: each request has one.
const REFUSED: hyper::StatusCode = hyper::StatusCode::BAD_REQUEST;

/// The client.
pub(super) struct Client(Box<dyn HttpClient>);

impl Client {
    /// For endpoints without TLS.
    pub(super) fn plain(timeout: Duration) -> Self {
        Self(Box::new(HyperClient::with_default_connector(timeout, None)))
    }

    /// For endpoints with TLS, with the system's root certificates.
    pub(super) fn with_tls(timeout: Duration) -> io::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_http1()
            .build();
        let client = HyperClient::new(connector, timeout, None);
        Ok(Self(Box::new(client)))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let mut response = match self.0.send_bytes(request).await {
                Ok(response) => response,
                Err(error) => {
                    // The exporter does not tell why.
                    debug!(publisher = "otlp", cause = causes(&*error), "no answer");
                    return Err(error);
                }
            };
            if response.status().is_success() && refuses(response.body()) {
                *response.status_mut() = REFUSED;
            }
            Ok(response)
        })
    }
}

/// Whether an answer takes back what its status says. Those for metrics have the same form.
fn refuses(body: &[u8]) -> bool {
    let answer = ExportLogsServiceResponse::decode(body).ok();
    let Some(partial) = answer.and_then(|answer| answer.partial_success) else {
        return false;
    };
    if !partial.error_message.is_empty() {
        let message = crate::printable(partial.error_message.as_bytes());
        warn!(publisher = "otlp", message, "the collector says");
    }
    partial.rejected_log_records > 0
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
