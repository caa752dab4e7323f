//! A publisher's own task: it publishes one event after the other, and again where that was promised.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::{
    Delivery, PublishError, Publisher,
    progress::{Progress, add},
};
use crate::{
    event::OomEvent,
    log::{info, warn},
    retry::{causes, delays},
    store::outbox::{Outbox, OutboxRead},
};

/// Where a publisher's events come from.
pub(super) enum Feed {
    Memory(mpsc::Receiver<Arc<OomEvent>>),
    Store(Box<Outbox>),
}

impl Feed {
    /// The next event; `None` when there are no more.
    async fn next(&mut self, publisher: &str, counts: &Progress) -> Option<Arc<OomEvent>> {
        let outbox = match self {
            Self::Memory(events) => return events.recv().await,
            Self::Store(outbox) => outbox,
        };
        loop {
            match outbox.next().await? {
                OutboxRead::Event(event) => return Some(event),
                OutboxRead::Lost(lost) => {
                    add(&counts.lost_in_queue, lost);
                    warn!(
                        publisher,
                        lost, "retention removed events before they were published"
                    );
                    outbox.done();
                }
            }
        }
    }

    /// The last event is done.
    fn done(&self) {
        if let Self::Store(outbox) = self {
            outbox.done();
        }
    }
}

/// Publishes until there are no more events, or the publisher is closed.
pub(super) async fn deliver(
    mut publisher: Box<dyn Publisher>,
    mut feed: Feed,
    counts: Arc<Progress>,
    progress: Option<Arc<Notify>>,
) {
    match publisher.open().await {
        Ok(()) => {}
        Err(PublishError::Closed) => return counts.is_unwanted.store(true, Ordering::Relaxed),
        Err(error) => {
            warn!(publisher = publisher.name(), %error, cause = causes(&error), "cannot open a publisher");
        }
    }
    while let Some(event) = feed.next(publisher.name(), &counts).await {
        match send(publisher.as_mut(), &event, &counts).await {
            Ok(()) => {
                add(&counts.published, 1);
            }
            Err(PublishError::Closed) => {
                debug!(publisher = publisher.name(), "publisher closed");
                return;
            }
            Err(error) => {
                add(&counts.lost_by_publisher, 1);
                let cause = causes(&error);
                warn!(publisher = publisher.name(), event = event.id, %error, cause, "a publisher could not publish an event");
            }
        }
        feed.done();
        if let Some(progress) = &progress {
            progress.notify_one();
        }
    }
    if let Err(error) = publisher.flush().await {
        debug!(publisher = publisher.name(), %error, "publisher not flushed");
    }
}

/// Sends one event. With [`Delivery::AtLeastOnce`], tries until the publisher accepts or refuses it.
async fn send(
    publisher: &mut dyn Publisher,
    event: &Arc<OomEvent>,
    counts: &Progress,
) -> Result<(), PublishError> {
    let mut delays = delays();
    let mut failures = 0_u64;
    loop {
        let error = match publisher.publish(Arc::clone(event)).await {
            Err(error @ PublishError::Failed(_))
                if publisher.delivery() == Delivery::AtLeastOnce =>
            {
                error
            }
            done => {
                if failures > 0 {
                    info!(
                        publisher = publisher.name(),
                        failures, "a publisher works again"
                    );
                }
                return done;
            }
        };
        failures += 1;
        add(&counts.retries, 1);
        say(publisher.name(), event, &error, failures);
        tokio::time::sleep(delays.next().unwrap_or_default()).await;
    }
}

/// Warns of the first failure in a row. The others are the same one and go to the debug log.
fn say(publisher: &str, event: &OomEvent, error: &PublishError, failures: u64) {
    let (event, cause) = (&event.id, causes(error));
    if failures == 1 {
        warn!(publisher, event, %error, cause, "a publisher fails for now: events wait, and it tries again");
    } else {
        debug!(publisher, event, %error, cause, failures, "still not published");
    }
}
