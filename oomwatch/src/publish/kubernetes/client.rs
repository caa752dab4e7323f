//! Requests to the API server from inside the cluster: HTTP/1.1 over TLS, as the pod's service account.
//!
//! Each request reads token and authority anew, because both change while a pod runs. A connection serves one
//! request, because there are few in an hour. Every answer is bounded in time and size. Knows no kill.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::pods::PodObject;
use crate::{id::printable, retry::REQUEST_LIMIT};

const TOKEN: &str = "token";
const AUTHORITY: &str = "ca.crt";
/// Longest time until a connection stands. A server that is not there is told from one that does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time of a question about a pod, while an Event waits for the answer.
const POD_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of a Pod that are read. Namespaces ask at the same time, and pods' owners make them as large as they like.
const MAX_POD_BYTES: usize = 512 << 10;
/// Bytes of a refusal that are read, and characters of its message that are passed on.
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_MESSAGE_CHARS: usize = 256;
const AGENT: &str = concat!("oomwatch/", env!("CARGO_PKG_VERSION"));

/// Why an Event was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubernetesError {
    /// Not in a pod.
    #[error("${variable} is not set: Events can be published from a pod of the cluster only")]
    NotInCluster {
        /// The variable that each container of a pod has.
        variable: &'static str,
    },
    /// The port of the API server.
    #[error("$KUBERNETES_SERVICE_PORT is {port:?}, which is no port")]
    Port {
        /// What it is.
        port: String,
    },
    /// The service account.
    #[error("cannot read {}: is automountServiceAccountToken off?", path.display())]
    ServiceAccount {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token.
    #[error("the token in {} is no token", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The authority that the API server's certificate is held against.
    #[error("the certificates in {} cannot be used", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection.
    #[error("cannot connect to the API server at {server}")]
    Connect {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer in time from the API server at {server}")]
    Hangs {
        /// Host and port.
        server: String,
    },
    /// The connection failed.
    #[error("the request to the API server failed")]
    Request(#[source] Box<dyn Error + Send + Sync>),
    /// The API server refuses.
    #[error("the API server's answer is {status}: {message}")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// The message beside the status.
        message: String,
    },
}

/// Who has to change before an Event is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server or the way to it: nothing can be sent.
    Server,
    /// The namespace, or the server for this one request: the same Event may be accepted later.
    Namespace,
    /// The Event: it would be refused again.
    Event,
}

impl KubernetesError {
    pub(super) fn fault(&self) -> Fault {
        match self {
            // 401 is about the token, which is exchanged; 408 and 429 are about the moment.
            Self::Answer { status: 401, .. } => Fault::Server,
            Self::Answer {
                status: 408 | 429, ..
            } => Fault::Namespace,
            Self::Answer {
                status: 400..500, ..
            } => Fault::Event,
            Self::Answer { .. } | Self::Hangs { .. } | Self::Request(_) => Fault::Namespace,
            _ => Fault::Server,
        }
    }
}

/// Asks one API server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    host: String,
    port: u16,
    /// Where the service account is mounted.
    account: PathBuf,
}

impl Client {
    pub(super) fn new(host: String, port: u16, account: PathBuf) -> Self {
        Self {
            host,
            port,
            account,
        }
    }

    /// Whether there is all that a request needs.
    pub(super) fn check(&self) -> Result<(), KubernetesError> {
        self.token()?;
        self.tls().map(drop)
    }

    /// Creates an Event in a namespace, unless it is there already.
    pub(super) async fn create_event(
        &self,
        namespace: &str,
        body: String,
    ) -> Result<(), KubernetesError> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let created = timeout(REQUEST_LIMIT, self.ask(request, body)).await;
        match created.unwrap_or_else(|_| Err(self.hangs())) {
            // Sent before, and only the answer was lost.
            Err(KubernetesError::Answer { status: 409, .. }) => Ok(()),
            created => created.map(drop),
        }
    }

    /// Reads a pod.
    pub(super) async fn pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PodObject, KubernetesError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let reading = async {
            let answer = self.ask(Request::get(path), String::new()).await?;
            let body = Limited::new(answer.response.into_body(), MAX_POD_BYTES);
            let body = body.collect().await.map_err(KubernetesError::Request)?;
            serde_json::from_slice(&body.to_bytes()).map_err(failed)
        };
        let read = timeout(POD_LIMIT, reading).await;
        read.unwrap_or_else(|_| Err(self.hangs()))
    }

    /// Sends a request over a connection of its own.
    async fn ask(&self, request: Builder, body: String) -> Result<Answer, KubernetesError> {
        let request = request
            .header(HOST, self.server())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, self.token()?)
            .body(Full::new(Bytes::from(body)))
            .map_err(failed)?;
        let connected = timeout(CONNECT_LIMIT, self.connect()).await;
        let stream = connected.unwrap_or_else(|elapsed| Err(self.not_connected(elapsed)))?;
        let (mut sender, moving) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let mut connection = JoinSet::new();
        connection.spawn(async {
            // Its error comes to whoever reads the answer.
            let _ = moving.await;
        });
        let response = sender.send_request(request).await.map_err(failed)?;
        match response.status() {
            status if status.is_success() => Ok(Answer {
                response,
                _connection: connection,
            }),
            status => Err(refusal(status, response).await),
        }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, KubernetesError> {
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| self.not_connected(error))?;
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| self.not_connected(error))?;
        let connected = tls.connect(name, stream).await;
        connected.map_err(|error| self.not_connected(error))
    }

    fn token(&self) -> Result<HeaderValue, KubernetesError> {
        let path = self.account.join(TOKEN);
        let text = read(&path)?;
        let token = str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        match header {
            Ok(mut header) if !token.is_empty() => {
                header.set_sensitive(true);
                Ok(header)
            }
            _ => Err(KubernetesError::Token { path }),
        }
    }

    fn tls(&self) -> Result<ClientConfig, KubernetesError> {
        let path = self.account.join(AUTHORITY);
        let text = read(&path)?;
        let unusable = |source| KubernetesError::Authority {
            path: path.clone(),
            source,
        };
        let mut authorities = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&text) {
            let authority = authority.map_err(|error| unusable(Box::new(error)))?;
            let added = authorities.add(authority);
            added.map_err(|error| unusable(Box::new(error)))?;
        }
        if authorities.is_empty() {
            return Err(unusable("there is none".into()));
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(Box::new(error)))?;
        Ok(config
            .with_root_certificates(authorities)
            .with_no_client_auth())
    }

    /// Host and port as in a URL.
    fn server(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn hangs(&self) -> KubernetesError {
        KubernetesError::Hangs {
            server: self.server(),
        }
    }

    fn not_connected(&self, error: impl Error + Send + Sync + 'static) -> KubernetesError {
        KubernetesError::Connect {
            server: self.server(),
            source: Box::new(error),
        }
    }
}

/// An answer of success, which the connection must outlive.
struct Answer {
    response: Response<Incoming>,
    _connection: JoinSet<()>,
}

fn read(path: &Path) -> Result<Vec<u8>, KubernetesError> {
    fs::read(path).map_err(|source| KubernetesError::ServiceAccount {
        path: path.to_owned(),
        source,
    })
}

fn failed(error: impl Error + Send + Sync + 'static) -> KubernetesError {
    KubernetesError::Request(Box::new(error))
}

/// The message of the API server beside an error's status.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

async fn refusal(status: StatusCode, response: Response<Incoming>) -> KubernetesError {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let message = match body.collect().await {
        Ok(body) => serde_json::from_slice::<Refusal>(&body.to_bytes()).ok(),
        Err(_) => None,
    };
    let message = message.map_or_else(String::new, |refusal| refusal.message);
    let message = printable(message.as_bytes());
    KubernetesError::Answer {
        status: status.as_u16(),
        message: message.chars().take(MAX_MESSAGE_CHARS).collect(),
    }
}
