//! The publisher that an embedding program reads events from, as a stream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::mpsc;

use super::PUBLISHER_QUEUE;
use crate::event::OomEvent;

/// Events in order, from the moment it was made. Ends when the watcher stops.
///
/// Holds [`PUBLISHER_QUEUE`] events. [`crate::watcher::Lost::queue`] counts the events that a slower reader misses.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Arc<OomEvent>>);

/// The watcher's end.
#[derive(Debug)]
pub(crate) struct Subscriber(mpsc::Sender<Arc<OomEvent>>);

pub(crate) fn channel() -> (Subscriber, Events) {
    let (sender, receiver) = mpsc::channel(PUBLISHER_QUEUE);
    (Subscriber(sender), Events(receiver))
}

/// The outcome of sending an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Taken,
    Full,
    Gone,
}

impl Subscriber {
    pub(crate) fn send(&self, event: &Arc<OomEvent>) -> Sent {
        match self.0.try_send(Arc::clone(event)) {
            Ok(()) => Sent::Taken,
            Err(mpsc::error::TrySendError::Full(_)) => Sent::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Sent::Gone,
        }
    }
}

impl Events {
    /// Waits for the next event; `None` when the watcher has stopped.
    pub async fn next(&mut self) -> Option<Arc<OomEvent>> {
        self.0.recv().await
    }
}

impl Stream for Events {
    type Item = Arc<OomEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
