//! The HTTP client under the exporters: hyper, with rustls where the endpoint is https.

use std::{fmt, future::Future, io, pin::Pin, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tracing::debug;

use crate::log::warn;

/// Status of an answer that takes some records and refuses others. Each request has one record.
const REFUSED: hyper::StatusCode = hyper::StatusCode::BAD_REQUEST;
/// Answers have a few bytes; beyond this they are not read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The client.
pub(super) struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// A client for endpoints without TLS. It has the same connector, so there is one kind of client. It trusts no
    /// certificate.
    pub(super) fn plain(timeout: Duration) -> Self {
        let config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config);
        Self::new(connector.https_or_http().enable_http1().build(), timeout)
    }

    /// For endpoints with TLS, with the system's root certificates.
    pub(super) fn with_tls(timeout: Duration) -> io::Result<Self> {
        let connector = HttpsConnectorBuilder::new().with_native_roots()?;
        let connector = connector.https_only().enable_http1().build();
        Ok(Self::new(connector, timeout))
    }

    fn new(connector: HttpsConnector<HttpConnector>, timeout: Duration) -> Self {
        let inner = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Self { inner, timeout }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.inner.request(request.map(Full::from)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
        let mut answer = Response::from_parts(head, body.to_bytes());
        if answer.status().is_success() && refuses(answer.body()) {
            *answer.status_mut() = REFUSED;
        }
        Ok(answer)
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
            let answer = timeout(self.timeout, self.send(request)).await;
            let answer = answer.unwrap_or_else(|elapsed| Err(elapsed.into()));
            // The exporter does not report why.
            answer.inspect_err(|error| {
                debug!(publisher = "otlp", cause = causes(&**error), "no answer");
            })
        })
    }
}

/// Whether an answer's body refuses what its status accepts. Answers for metrics have the same form.
fn refuses(body: &[u8]) -> bool {
    let answer = ExportLogsServiceResponse::decode(body).ok();
    let Some(partial) = answer.and_then(|answer| answer.partial_success) else {
        return false;
    };
    if !partial.error_message.is_empty() {
        let message = crate::id::printable(partial.error_message.as_bytes());
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
