//! The task's side of the store: it hands over events together with the ledgers that they changed, and resumes where
//! an earlier run ended. Waits for no disk.
//!
//! One batch at a time is with the store's thread. Whatever comes meanwhile goes into the next batch, so ledgers and
//! batches without events take no event's place. When a batch is in the file, the records read from a pinned ring up
//! to then are handed over. The kernel then gets their room. Without a store, they are handed over when the
//! publishers are done with them.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::info;

use super::{Task, node::REPORTED_UP_TO};
use crate::{
    clock,
    drill::reached,
    event::OomEvent,
    id::ContainerId,
    log::warn,
    probe::Position,
    publish::{Delivery, Publisher, queue::Queue},
    reconcile::UpTo,
    store::{Batch, STORE_QUEUE, Saved, Store, StoreConfig},
    watcher::AddError,
};

/// Number of events of this boot that no history has, as the store knows it.
const LOST_EVENTS: &str = "lost_events";
/// Number of records of victims that found no room in the pinned ring, as far as a run has reported it.
pub(super) const LOST_IN_RING: &str = "lost_in_ring";
/// Time of the last mark that is in the history.
const LAST_MARK_NS: &str = "last_mark_ns";
/// Time of the last removal whose counters were compared.
const LAST_REMOVAL_NS: &str = "last_removal_ns";
/// A batch that takes longer than 1 s is worth a warning.
const SLOW: Duration = Duration::from_secs(1);

/// The store, if there is one, and the data to hand over next.
#[derive(Debug, Default)]
pub(super) struct Persist {
    store: Option<Store>,
    /// A store was wanted and cannot be used: the records in a pinned ring are left to a start that can use it.
    is_refused: bool,
    /// Notified when a publisher is done with an event, where a pinned ring keeps records until then.
    progress: Option<Arc<Notify>>,
    /// Published since the last batch.
    events: Vec<Arc<OomEvent>>,
    /// Registrations that somebody waits for, since the last batch.
    registered: Vec<Answer>,
    under_way: Option<UnderWay>,
    /// The last batch was not written: the store lacks its content.
    is_behind: bool,
    /// Marks were read since the last batch: the position is stored even if no event came of them.
    has_marks: bool,
    /// Lost by earlier runs.
    lost_before: u64,
    /// Lost by this one, as of the last batch, and once it is over.
    lost_stored: u64,
    lost_at_last: u64,
    /// The node's count up to which everything was reported, as of the last batch.
    reported_stored: Option<u64>,
}

/// A batch that is with the store's thread.
#[derive(Debug)]
struct UnderWay {
    since: Instant,
    is_slow: bool,
    /// How far rings were read.
    rings: Vec<Position>,
    /// Dropped with the batch, which answers those who wait.
    _registered: Vec<Answer>,
}

/// Dropped once the registration is in the file, or cannot be.
type Answer = oneshot::Sender<()>;

impl Persist {
    /// Opens the store, if one is wanted. Without a store, or if it cannot be used, the functions below do nothing.
    pub(super) fn open(config: Option<StoreConfig>, boot_id: &Arc<str>) -> (Self, Saved) {
        let Some(config) = config else {
            return (Self::default(), Saved::default());
        };
        match Store::open_in_time(config, Arc::clone(boot_id)) {
            Ok((store, saved)) => {
                let persist = Self {
                    store: Some(store),
                    lost_before: saved.meta.get(LOST_EVENTS).copied().unwrap_or(0),
                    ..Self::default()
                };
                (persist, saved)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map_or_else(String::new, ToString::to_string);
                warn!(%error, cause, "watching goes on without history; what waits in a pinned ring is left to the next start too");
                let persist = Self {
                    is_refused: true,
                    ..Self::default()
                };
                (persist, Saved::default())
            }
        }
    }

    /// There is a pinned ring: without a store, publishers report which events they are done with. Tells whether that
    /// is so.
    pub(super) fn follow_publishers(&mut self) -> bool {
        let is_theirs = self.store.is_none() && !self.is_refused;
        self.progress = is_theirs.then(Arc::default);
        is_theirs
    }

    pub(super) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Starts a publisher, with its outbox if it is to have one.
    pub(super) fn start_publisher(&mut self, publisher: Box<dyn Publisher>) -> Queue {
        let is_stored = publisher.delivery() == Delivery::AtLeastOnce;
        let Some(store) = self.store.as_mut().filter(|_| is_stored) else {
            return Queue::start(publisher, None, self.progress.clone());
        };
        let outbox = store.take_outbox(publisher.name());
        if outbox.is_none() {
            let name = publisher.name();
            warn!(
                publisher = name,
                "two publishers have one name: the second one's events wait in memory only"
            );
        }
        Queue::start(publisher, outbox, None)
    }

    /// Notes an event that is being published.
    pub(super) fn push(&mut self, event: &Arc<OomEvent>) {
        let Some(store) = &mut self.store else {
            return;
        };
        if store.is_writing() && self.events.len() >= STORE_QUEUE {
            store.lose(1);
        } else {
            self.events.push(Arc::clone(event));
        }
    }

    /// Answers a request once a crash does not undo it any more. The caller does not wait for a disk that hangs: the
    /// registration holds in this run whatever becomes of the store.
    pub(super) fn answer_once_stored(
        &mut self,
        outcome: Result<(), AddError>,
        answer: oneshot::Sender<Result<(), AddError>>,
    ) {
        if self.store.is_none() || outcome.is_err() {
            // A caller that went away needs no answer.
            let _ = answer.send(outcome);
            return;
        }
        let (stored, is_stored) = oneshot::channel();
        self.registered.push(stored);
        tokio::spawn(async move {
            let _ = timeout(SLOW, is_stored).await;
            let _ = answer.send(outcome);
        });
    }

    /// Notes that marks were read.
    pub(super) fn note_marks(&mut self) {
        self.has_marks = true;
    }

    /// Waits until the store is done with a batch, or asks for all ledgers. Without a store, waits until a publisher
    /// is done with an event.
    pub(super) async fn wanted(&self) {
        match (&self.store, &self.progress) {
            (Some(store), _) => store.wanted().await,
            (None, Some(progress)) => progress.notified().await,
            (None, None) => std::future::pending().await,
        }
    }

    /// Events of this run that are in no history.
    pub(super) fn lost_events(&self) -> u64 {
        self.store
            .as_ref()
            .map_or(self.lost_at_last, Store::lost_events)
    }

    fn is_writing(&self) -> bool {
        self.store.as_ref().is_some_and(Store::is_writing)
    }

    /// How far rings were read when the batch was made that is in the file now. Returned once.
    fn take_written(&mut self) -> Option<Vec<Position>> {
        let store = self.store.as_ref().filter(|store| !store.is_writing())?;
        let under_way = self.under_way.take()?;
        self.is_behind = !store.was_written();
        (!self.is_behind).then_some(under_way.rings)
    }

    /// Warns once of a batch that it takes long.
    fn say_if_slow(&mut self) {
        if let Some(under_way) = &mut self.under_way
            && !under_way.is_slow
            && under_way.since.elapsed() > SLOW
        {
            under_way.is_slow = true;
            warn!(
                waiting = self.events.len(),
                "the store takes long to write: events are published, and wait in memory to be stored"
            );
        }
    }

    /// Closes the store: no batch follows.
    pub(super) fn close(&mut self) {
        if let Some(store) = &mut self.store {
            if !self.events.is_empty() {
                store.lose(std::mem::take(&mut self.events).len());
            }
            store.close();
        }
    }

    /// Waits for the rest to be written.
    pub(super) async fn finish(&mut self, until: Instant) {
        if let Some(store) = self.store.take() {
            self.lost_at_last = store.finish(until).await;
        }
    }
}

impl Task {
    /// Resumes the data that an earlier run left. Call it before the first scan.
    pub(super) fn resume(&mut self, saved: Saved) {
        if !self.persist.has_store() {
            return;
        }
        if let Some(ledgers) = &saved.ledgers {
            let ledgers = ledgers.len();
            info!(ledgers, "resumed ledgers of an earlier run of this boot");
        }
        self.engine.resume(saved.ledgers, saved.by_hand);
        let judged = |name| saved.meta.get(name).copied().unwrap_or(0);
        self.engine.reported_up_to(UpTo {
            mark_ns: judged(LAST_MARK_NS),
            removal_ns: judged(LAST_REMOVAL_NS),
        });
        self.engine
            .were_reported(saved.recent.iter().chain(&saved.pending));
        self.engine.resume_waiting(saved.pending, clock::now());
    }

    /// Hands over new data to the store. Without a store, the publishers take it over once they are done with it.
    /// Only the loop calls this.
    pub(super) fn save(&mut self) {
        if self.persist.is_refused {
            return;
        }
        if !self.persist.has_store() {
            if self.engine.is_nothing_waiting() && self.queues.iter().all(Queue::is_idle) {
                self.hand_over(&self.source.positions());
            }
            return;
        }
        if self.persist.is_writing() {
            return self.persist.say_if_slow();
        }
        if let Some(rings) = self.persist.take_written() {
            reached("stored");
            self.hand_over(&rings);
        }
        self.write_next();
    }

    fn write_next(&mut self) {
        let rings = self.source.positions();
        let registered = std::mem::take(&mut self.persist.registered);
        let Some(batch) = self.next_batch(&rings) else {
            // The records that were read changed nothing.
            if !self.persist.is_behind {
                self.hand_over(&rings);
            }
            return;
        };
        if let Some(store) = &mut self.persist.store {
            store.write(batch);
        }
        self.persist.under_way = Some(UnderWay {
            since: Instant::now(),
            is_slow: false,
            rings,
            _registered: registered,
        });
    }

    /// All data that the store lacks now; `None` if it lacks none.
    fn next_batch(&mut self, rings: &[Position]) -> Option<Batch> {
        let persist = &mut self.persist;
        let store = persist.store.as_ref()?;
        let (is_whole, lost) = (store.wants_whole(), store.lost_events());
        let mut batch = Batch {
            events: std::mem::take(&mut persist.events),
            is_whole,
            ..Batch::default()
        };
        (batch.ledgers, batch.registrations) = if is_whole {
            self.engine.all_kept()
        } else {
            self.engine.take_changes()
        };
        let pending = self.engine.take_pending(is_whole);
        (batch.pending, batch.gone) = (pending.events, pending.gone);
        let has_marks = std::mem::take(&mut persist.has_marks) && !rings.is_empty();
        let reported_up_to = self.node_reported_up_to();
        let persist = &mut self.persist;
        let has_news = lost != persist.lost_stored || reported_up_to != persist.reported_stored;
        if batch.is_empty() && !has_marks && !has_news {
            return None;
        }
        persist.reported_stored = reported_up_to;
        persist.lost_stored = lost;
        let lost = persist.lost_before.saturating_add(lost);
        batch.meta.push((LOST_EVENTS, lost));
        let judged = self.engine.judged_up_to();
        batch.meta.push((LAST_MARK_NS, judged.mark_ns));
        batch.meta.push((LAST_REMOVAL_NS, judged.removal_ns));
        let lost_in_ring = self.source.lost_before() + self.drops.victims;
        batch.meta.push((LOST_IN_RING, lost_in_ring));
        let reported_up_to = reported_up_to.map(|value| (REPORTED_UP_TO, value));
        batch.meta.extend(reported_up_to);
        batch.rings = rings.iter().map(|at| (at.ring, at.bytes)).collect();
        Some(batch)
    }

    /// Records read up to these positions belong to the store or the publishers by now.
    fn hand_over(&mut self, rings: &[Position]) {
        self.source.handed_over(rings);
        self.is_backlog_over = true;
        if !rings.is_empty() {
            reached("handed-over");
        }
    }

    /// A slow store or publisher does not keep the kernel from writing into a pinned ring. Records from before the
    /// start may stay in the ring for up to 1 s, because they may fill most of it.
    pub(super) fn relieve(&mut self) {
        self.is_backlog_over |= self.started.elapsed() > SLOW;
        if self.is_backlog_over {
            self.source.relieve();
        }
    }

    /// Hands over the rest, once everything is published. Events that cannot be written by `until`, or not at all,
    /// are lost and counted.
    pub(super) async fn save_last(&mut self, until: Instant) {
        if let Some(store) = &self.persist.store {
            store.hurry();
        }
        loop {
            self.save();
            if !self.persist.is_writing() {
                return;
            }
            while self.persist.is_writing() {
                if timeout_at(until, self.persist.wanted()).await.is_err() {
                    return;
                }
            }
            if !self.persist.store.as_ref().is_some_and(Store::was_written) {
                return;
            }
        }
    }

    /// Makes a registration that outlives this run. If an earlier run's registration is still there, its owner takes
    /// it over.
    pub(super) fn add_by_hand(&mut self, id: &str, cgroup: &Path) -> Result<(), AddError> {
        let container = ContainerId::new(id)?;
        let cgroup_id = self.hierarchy.id(cgroup)?;
        if self.engine.take_restored(&container, cgroup_id) {
            return Ok(());
        }
        self.add(id, cgroup)?;
        self.engine.keep_registration(cgroup_id);
        Ok(())
    }
}
