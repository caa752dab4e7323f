//! A publisher's own task: it publishes one event after the other.
//!
//! Events for several destinations go through [`Lanes`], which finish in any order. The cursor of the store follows the
//! oldest event without an outcome.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::{
    PublishError, Publisher,
    lanes::{Lanes, Read, Room, Settled},
    progress::{Progress, add},
    tries::send,
};
use crate::{
    event::OomEvent,
    log::warn,
    retry::causes,
    store::outbox::{Outbox, OutboxRead},
};

/// Where a publisher's events come from.
pub(super) enum Feed {
    Memory {
        events: mpsc::Receiver<Arc<OomEvent>>,
        given: i64,
    },
    Store(Box<Outbox>),
}

impl Feed {
    pub(super) fn memory(events: mpsc::Receiver<Arc<OomEvent>>) -> Self {
        Self::Memory { events, given: 0 }
    }

    /// The next item; `None` when there are no more. Loses nothing when it is dropped before that.
    async fn next(&mut self) -> Option<OutboxRead> {
        match self {
            Self::Memory { events, given } => {
                let event = events.recv().await?;
                *given += 1;
                Some(OutboxRead::Event(event))
            }
            Self::Store(outbox) => outbox.next().await,
        }
    }

    /// The number of the last item.
    fn given(&self) -> i64 {
        match self {
            Self::Memory { given, .. } => *given,
            Self::Store(outbox) => outbox.given(),
        }
    }

    /// All items are done up to this number.
    fn done(&self, number: i64) {
        if let Self::Store(outbox) = self {
            outbox.done(number);
        }
    }
}

/// The publisher is not to be called again.
struct Closed;

/// Publishes until there are no more events, or the publisher is closed.
pub(super) async fn deliver(
    mut publisher: Box<dyn Publisher>,
    feed: Feed,
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
    let mut deliverer = Deliverer {
        lanes: Lanes::new(Arc::clone(&counts)),
        publisher,
        counts,
        progress,
    };
    if deliverer.run(feed).await.is_err() {
        debug!(publisher = deliverer.publisher.name(), "publisher closed");
        return;
    }
    if let Err(error) = deliverer.publisher.flush().await {
        debug!(publisher = deliverer.publisher.name(), %error, "publisher not flushed");
    }
}

/// All that one publisher's task has.
struct Deliverer {
    publisher: Box<dyn Publisher>,
    lanes: Lanes,
    counts: Arc<Progress>,
    progress: Option<Arc<Notify>>,
}

impl Deliverer {
    /// Publishes until each event of the feed has an outcome.
    async fn run(&mut self, mut feed: Feed) -> Result<(), Closed> {
        // An event that its lane has no room for yet.
        let mut waiting = None;
        let mut has_more = true;
        while has_more || waiting.is_some() || self.lanes.open() > 0 {
            tokio::select! {
                // A lane that works again has room for what is read next.
                biased;
                heard = self.lanes.next() => {
                    if let Some(Settled { event, outcome }) = heard.ok_or(Closed)? {
                        self.settle(&event, outcome)?;
                    }
                }
                item = feed.next(), if has_more && waiting.is_none() => match item {
                    Some(OutboxRead::Event(event)) => {
                        let number = feed.given();
                        waiting = Some(Read { number, event });
                    }
                    Some(OutboxRead::Lost(lost)) => self.lose(lost),
                    None => has_more = false,
                },
            }
            if let Some(read) = waiting.take() {
                waiting = self.take(read).await?;
            }
            self.note_done(&feed, waiting.as_ref());
        }
        self.lanes.finish().await;
        Ok(())
    }

    /// Sends an event, or hands it to the lane of its destination. Returns it if there is no room yet.
    async fn take(&mut self, read: Read) -> Result<Option<Read>, Closed> {
        let Some(destination) = self.publisher.destination(&read.event) else {
            return self.send_here(&read.event).await;
        };
        match self.lanes.room(&destination) {
            Room::Now => {}
            Room::Later => return Ok(Some(read)),
            Room::Never => {
                self.drop_for(&destination, &read.event);
                return Ok(None);
            }
        }
        if !self.lanes.has(&destination) {
            let Some(publisher) = self.publisher.only_to(&destination) else {
                return self.send_here(&read.event).await;
            };
            self.lanes.start(&destination, publisher);
        }
        self.lanes.push(&destination, read);
        Ok(None)
    }

    async fn send_here(&mut self, event: &Arc<OomEvent>) -> Result<Option<Read>, Closed> {
        let publisher = self.publisher.as_mut();
        let outcome = send(publisher, None, event, &self.counts, |_| ()).await;
        self.settle(event, outcome).map(|()| None)
    }

    fn settle(&self, event: &OomEvent, outcome: Result<(), PublishError>) -> Result<(), Closed> {
        match outcome {
            Ok(()) => {
                add(&self.counts.published, 1);
            }
            Err(PublishError::Closed) => return Err(Closed),
            Err(error) => {
                add(&self.counts.lost_by_publisher, 1);
                let cause = causes(&error);
                warn!(publisher = self.publisher.name(), event = event.id, %error, cause, "a publisher could not publish an event");
            }
        }
        self.tell_progress();
        Ok(())
    }

    /// Drops an event whose destination fails and has enough to do already.
    fn drop_for(&self, destination: &str, event: &OomEvent) {
        let lost = add(&self.counts.lost_by_publisher, 1);
        warn!(
            publisher = self.publisher.name(),
            destination,
            event = event.id,
            lost,
            "a destination fails and has no room for an event: it is lost"
        );
        self.tell_progress();
    }

    fn lose(&self, lost: u64) {
        add(&self.counts.lost_in_queue, lost);
        warn!(
            publisher = self.publisher.name(),
            lost, "retention removed events before they were published"
        );
    }

    fn tell_progress(&self) {
        if let Some(progress) = &self.progress {
            progress.notify_one();
        }
    }

    /// Moves the cursor up to the oldest event without an outcome.
    fn note_done(&self, feed: &Feed, waiting: Option<&Read>) {
        let first = self.lanes.first_open();
        let first = first.or(waiting.map(|read| read.number));
        let given = feed.given();
        let done = first.map_or(given, |first| first.saturating_sub(1));
        let open = self.lanes.open() + usize::from(waiting.is_some());
        let since = usize::try_from(given.saturating_sub(done)).unwrap_or(0);
        let ahead = u64::try_from(since.saturating_sub(open)).unwrap_or(0);
        self.counts.settled_ahead.store(ahead, Ordering::Relaxed);
        feed.done(done);
    }
}
