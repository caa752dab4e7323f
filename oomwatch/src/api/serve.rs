//! Moving connections: accepting them, and bounding a client's room and time.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ControlSocket, ReadOnlyListener};
use crate::log::warn;

/// Connections of one listener; further ones are closed at once.
const MAX_CONNECTIONS: usize = 256;
/// Bytes of a request's line and headers, and of one read or write.
const BUFFER_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// How long a request's headers may take, from when the connection is free for them.
const HEADERS_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take none of an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// Pause after a failed accept. Where descriptors have run out, nothing changes at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A socket that listens.
pub(super) enum Listen {
    Control(ControlSocket),
    ReadOnly(ReadOnlyListener),
}

/// A connection as it is accepted.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listen {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Control(socket) => socket.accept().await.map(Stream::Unix),
            Self::ReadOnly(listener) => listener.accept().await.map(Stream::Tcp),
        }
    }
}

/// Accepts and serves until it must stop, then waits for the open connections.
pub(super) async fn serve(listen: Listen, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failed = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = listen.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(stream) => {
                // Beyond the limit, dropping the stream closes it.
                if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
                    let connection = connection(stream, router.clone(), stop.clone(), permit);
                    connections.spawn(connection);
                }
            }
            Err(error) => {
                failed += 1;
                if failed.is_power_of_two() {
                    warn!(%error, failed, "cannot accept a connection to the API");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The socket's file goes before the last answers do.
    drop(listen);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: Stream,
    router: Router,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    match stream {
        Stream::Unix(stream) => exchange(stream, router, stop).await,
        Stream::Tcp(stream) => exchange(stream, router, stop).await,
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite, router: Router, stop: CancellationToken) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_LIMIT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the API ended");
    }
}
