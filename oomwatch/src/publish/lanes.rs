//! Lanes: a queue and a task for each destination of a publisher, so that one that fails delays no other.
//!
//! A lane tries its first event again until it has an outcome, and the others wait behind it. Lanes and their queues
//! are bounded. An event without room is lost if its lane fails. Otherwise it waits, and the reader with it: a lane that
//! works has room soon. While nothing can be reached, that delays nobody. [`super::deliver`] owns the lanes and reads.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};
use tracing::debug;

use super::{PUBLISHER_QUEUE, PublishError, Publisher, progress::Progress, tries::send};
use crate::{event::OomEvent, log::warn, retry::causes};

/// Lanes at most.
const LANES: usize = 64;
/// Events in a lane at most: all lanes together have a queue's.
const LANE_EVENTS: usize = PUBLISHER_QUEUE / LANES;

/// An event as it was read from the feed, with its number there.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) number: i64,
    pub(super) event: Arc<OomEvent>,
}

/// The outcome of an event.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) event: Arc<OomEvent>,
    pub(super) outcome: Result<(), PublishError>,
}

/// Whether a lane has room for another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    /// Not yet, and waiting for it delays nobody who could be served.
    Later,
    /// Nobody knows when.
    Never,
}

/// The last try of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Works,
    /// The destination fails, and others may not.
    Fails,
    Unreachable,
}

impl Health {
    /// After a try that is to be repeated.
    fn after(error: &PublishError) -> Self {
        match error {
            PublishError::Unreachable(_) => Self::Unreachable,
            _ => Self::Fails,
        }
    }
}

/// What a lane's task tells.
#[derive(Debug)]
struct Word {
    lane: Arc<str>,
    health: Health,
    settled: Option<(i64, Settled)>,
}

#[derive(Debug)]
struct Lane {
    events: mpsc::Sender<Read>,
    /// Events without an outcome.
    open: usize,
    health: Health,
    /// The number of its last event.
    last: i64,
}

impl Lane {
    fn room(&self) -> Room {
        match self.health {
            _ if self.open < LANE_EVENTS => Room::Now,
            Health::Fails => Room::Never,
            Health::Works | Health::Unreachable => Room::Later,
        }
    }
}

/// One publisher's lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    /// Events without an outcome.
    open: BTreeSet<i64>,
    /// At most one word for each open event and one for each failed try is on its way.
    words: mpsc::UnboundedReceiver<Word>,
    says: mpsc::UnboundedSender<Word>,
    tasks: JoinSet<()>,
    counts: Arc<Progress>,
}

impl Lanes {
    pub(super) fn new(counts: Arc<Progress>) -> Self {
        let (says, words) = mpsc::unbounded_channel();
        Self {
            lanes: HashMap::new(),
            open: BTreeSet::new(),
            words,
            says,
            tasks: JoinSet::new(),
            counts,
        }
    }

    /// The number of the oldest event without an outcome.
    pub(super) fn first_open(&self) -> Option<i64> {
        self.open.first().copied()
    }

    /// Events without an outcome.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn has(&self, destination: &str) -> bool {
        self.lanes.contains_key(destination)
    }

    /// Whether an event for this destination can be pushed. Makes room for its lane if need be.
    pub(super) fn room(&mut self, destination: &str) -> Room {
        if let Some(lane) = self.lanes.get(destination) {
            return lane.room();
        }
        if self.lanes.len() < LANES || self.end_idle() {
            return Room::Now;
        }
        let mut lanes = self.lanes.values();
        match lanes.all(|lane| lane.health == Health::Fails) {
            true => Room::Never,
            false => Room::Later,
        }
    }

    /// Starts the lane of a destination that has none.
    pub(super) fn start(&mut self, destination: &str, publisher: Box<dyn Publisher>) {
        let destination: Arc<str> = destination.into();
        let (events, receiver) = mpsc::channel(LANE_EVENTS);
        let worker = Worker {
            lane: Arc::clone(&destination),
            publisher,
            says: self.says.clone(),
            counts: Arc::clone(&self.counts),
        };
        self.tasks.spawn(worker.work(receiver));
        let lane = Lane {
            events,
            open: 0,
            health: Health::Works,
            last: 0,
        };
        self.lanes.insert(destination, lane);
    }

    /// Hands an event to the lane of its destination, after [`Self::room`] said that it has room.
    pub(super) fn push(&mut self, destination: &str, read: Read) {
        let Some(lane) = self.lanes.get_mut(destination) else {
            return;
        };
        self.open.insert(read.number);
        lane.last = read.number;
        lane.open += 1;
        // A lane whose publisher closed itself has said so: then all of them end.
        let _ = lane.events.try_send(read);
    }

    /// Waits until a lane tells something, and returns the event that it settled, if that is it. `None` after a task
    /// panicked.
    pub(super) async fn next(&mut self) -> Option<Option<Settled>> {
        loop {
            tokio::select! {
                Some(word) = self.words.recv() => return Some(self.hear(word)),
                Some(ended) = self.tasks.join_next() => ended.ok()?,
            }
        }
    }

    fn hear(&mut self, word: Word) -> Option<Settled> {
        if let Some(lane) = self.lanes.get_mut(&word.lane) {
            lane.health = word.health;
            lane.open = lane
                .open
                .saturating_sub(usize::from(word.settled.is_some()));
        }
        let (number, settled) = word.settled?;
        self.open.remove(&number);
        Some(settled)
    }

    /// Ends the lane that was used least recently and has nothing to do. Its task flushes meanwhile.
    fn end_idle(&mut self) -> bool {
        let idle = self.lanes.iter().filter(|(_, lane)| lane.open == 0);
        let oldest = idle.min_by_key(|(_, lane)| lane.last);
        let oldest = oldest.map(|(destination, _)| Arc::clone(destination));
        oldest.is_some_and(|destination| self.lanes.remove(&destination).is_some())
    }

    /// Waits until all lanes sent the rest and flushed.
    pub(super) async fn finish(&mut self) {
        self.lanes.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A lane's task.
struct Worker {
    lane: Arc<str>,
    publisher: Box<dyn Publisher>,
    says: mpsc::UnboundedSender<Word>,
    counts: Arc<Progress>,
}

impl Worker {
    async fn work(mut self, mut events: mpsc::Receiver<Read>) {
        self.open().await;
        while let Some(Read { number, event }) = events.recv().await {
            let (lane, says) = (Arc::clone(&self.lane), self.says.clone());
            let fails = |error: &PublishError| tell(&says, &lane, Health::after(error), None);
            let publisher = self.publisher.as_mut();
            let outcome = send(publisher, Some(&lane), &event, &self.counts, fails).await;
            let settled = Some((number, Settled { event, outcome }));
            tell(&self.says, &self.lane, Health::Works, settled);
        }
        if let Err(error) = self.publisher.flush().await {
            debug!(publisher = self.publisher.name(), destination = %self.lane, %error, "destination not flushed");
        }
    }

    async fn open(&mut self) {
        if let Err(error) = self.publisher.open().await {
            warn!(publisher = self.publisher.name(), destination = %self.lane, %error, cause = causes(&error), "cannot open a destination");
        }
    }
}

/// Nobody listens any more once the publisher is closed.
fn tell(
    says: &mpsc::UnboundedSender<Word>,
    lane: &Arc<str>,
    health: Health,
    settled: Option<(i64, Settled)>,
) {
    let lane = Arc::clone(lane);
    let _ = says.send(Word {
        lane,
        health,
        settled,
    });
}

#[cfg(test)]
mod tests;
