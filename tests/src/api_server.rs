//! A Kubernetes API server that is none: it keeps the Events that it is sent, and has no pod.
//!
//! It listens on loopback, by TLS with an authority of its own. It checks no token.

use std::{
    convert::Infallible,
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, runtime};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

type Events = Arc<Mutex<Vec<Value>>>;

/// A running one. It ends with the process.
#[derive(Debug)]
pub struct ApiServer {
    port: u16,
    events: Events,
}

impl ApiServer {
    /// Starts one, and writes the service account that trusts it into a directory.
    pub fn start(account: &Path) -> Result<Self> {
        let address = Ipv4Addr::LOCALHOST;
        let key = rcgen::generate_simple_self_signed([address.to_string()])?;
        fs::create_dir_all(account).context("the service account")?;
        fs::write(account.join("ca.crt"), key.cert.pem()).context("the service account")?;
        fs::write(account.join("token"), "token\n").context("the service account")?;
        let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], PrivateKeyDer::from(secret))?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((address, 0)))?;
        let port = listener.local_addr()?.port();
        let events = Events::default();
        let server = serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&events),
        );
        thread::spawn(move || runtime.block_on(server));
        Ok(Self { port, events })
    }

    /// The environment of a pod.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", Ipv4Addr::LOCALHOST.to_string()),
            ("KUBERNETES_SERVICE_PORT", self.port.to_string()),
        ]
    }

    /// The Events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, events: Events) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, events) = (acceptor.clone(), Arc::clone(&events));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let answers = service_fn(|request| answer(request, Arc::clone(&events)));
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), answers);
                // The client sees what failed.
                let _ = served.await;
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    events: Events,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_event = request.method() == Method::POST;
    let body = request.into_body().collect().await;
    let event = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    let status = match event {
        Some(event) if is_event => {
            events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event);
            StatusCode::CREATED
        }
        _ => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    *response.status_mut() = status;
    Ok(response)
}
