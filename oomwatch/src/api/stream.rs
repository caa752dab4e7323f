//! Events as server-sent events: one reader of [`super::recent`] for each open stream.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use super::{
    MAX_STREAMS, Shared,
    problem::Problem,
    recent::{Next, Recent},
};

/// Time without an event until a comment is sent. Proxies cut silent streams, and a write finds a reader that is
/// gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
const HEARTBEAT_FRAME: &str = ": still here\n\n";
/// The first frame: how long to wait before connecting again.
const HELLO: &str = "retry: 2000\n\n";
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /v1/events/stream`.
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let permit = Arc::clone(&shared.streams).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let detail = format!("{MAX_STREAMS} streams are open already; try again later");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let last = headers
        .get(LAST_EVENT_ID)
        .and_then(|value| value.to_str().ok());
    let reader = Reader::new(shared.recent.clone(), last, permit);
    let frames = futures_util::stream::unfold(reader, |mut reader| async {
        let frame = reader.next().await?;
        Some((Ok::<_, Infallible>(frame), reader))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// One reader, at its place.
struct Reader {
    recent: watch::Receiver<Recent>,
    place: u64,
    /// Frames before all others.
    first: Vec<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Begins after the event of that id. Without an id, it begins with the next event.
    fn new(
        recent: watch::Receiver<Recent>,
        last: Option<&str>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let mut first = Vec::new();
        let place = {
            let recent = recent.borrow();
            match last.map(|id| recent.after(id)) {
                None => recent.end(),
                Some(Some(place)) => place,
                Some(None) => {
                    first.push(gap(None));
                    recent.start()
                }
            }
        };
        // `next` takes from the end.
        first.push(Bytes::from_static(HELLO.as_bytes()));
        Self {
            recent,
            place,
            first,
            _permit: permit,
        }
    }

    /// The next frame; `None` after the watcher's last event.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.first.pop() {
            return Some(frame);
        }
        loop {
            let next = self.recent.borrow_and_update().at(self.place);
            match next {
                Next::Frame(frame) => {
                    self.place += 1;
                    return Some(frame);
                }
                Next::Missed(missed) => {
                    self.place += missed;
                    return Some(gap(Some(missed)));
                }
                Next::Nothing => {}
            }
            match timeout(HEARTBEAT, self.recent.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some(Bytes::from_static(HEARTBEAT_FRAME.as_bytes())),
            }
        }
    }
}

/// A frame for events that are not in the stream. `missed` is their number; `None` if it is unknown.
fn gap(missed: Option<u64>) -> Bytes {
    let missed = missed.map_or_else(|| "null".to_owned(), |missed| missed.to_string());
    format!("event: gap\ndata: {{\"missed\":{missed}}}\n\n").into()
}
