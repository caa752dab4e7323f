//! What the watcher's task has to do with the store: handing over events together with the books
//! that they changed, and going on where an earlier run ended. Waits for no disk.

use std::{path::Path, sync::Arc};

use tracing::{info, warn};

use super::{Task, node::TOLD_UP_TO};
use crate::{
    AddError, ContainerId, Delivery, OomEvent, Publisher, clock,
    probe::Position,
    publish::queue::Queue,
    store::{Batch, STORE_QUEUE, Saved, Store, StoreConfig},
};

/// Events of this boot that no history has, as the store knows it.
const LOST_EVENTS: &str = "lost_events";
/// How far the pinned ring is in the store: which ring, and how far.
const RING: &str = "ring";
const RING_BYTES: &str = "ring_bytes";

/// The store, if there is one, and what is to be handed over next.
#[derive(Debug, Default)]
pub(super) struct Persist {
    store: Option<Store>,
    pending: Vec<Arc<OomEvent>>,
    /// Lost by earlier runs.
    lost_before: u64,
    /// Lost by this one, once it is over.
    lost_at_last: u64,
}

impl Persist {
    /// Opens the store, if one is wanted; without one, or where it cannot be used, nothing of
    /// what follows does anything.
    pub(super) fn open(config: Option<StoreConfig>, boot_id: &str) -> (Self, Saved) {
        let Some(config) = config else {
            return (Self::default(), Saved::default());
        };
        match Store::open(config, boot_id) {
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
                warn!(%error, cause, "watching goes on without history");
                (Self::default(), Saved::default())
            }
        }
    }

    /// Starts a publisher, with its outbox if it is to have one.
    pub(super) fn publish(&mut self, publisher: Box<dyn Publisher>) -> Queue {
        let store = self.store.as_mut();
        let store = store.filter(|_| publisher.delivery() == Delivery::AtLeastOnce);
        let Some(store) = store else {
            return Queue::start(publisher, None);
        };
        let outbox = store.take_outbox(publisher.name());
        if outbox.is_none() {
            let name = publisher.name();
            warn!(
                publisher = name,
                "two publishers have one name: the second one's events wait in memory only"
            );
        }
        Queue::start(publisher, outbox)
    }

    /// Notes an event that is being published.
    pub(super) fn push(&mut self, event: &Arc<OomEvent>) {
        if self.store.is_some() {
            self.pending.push(Arc::clone(event));
        }
    }

    /// Waits until the store asks for all books; for ever without one.
    pub(super) async fn wanted(&self) {
        match &self.store {
            Some(store) => store.wanted().await,
            None => std::future::pending().await,
        }
    }

    /// Events of this run that are in no history.
    pub(super) fn lost_events(&self) -> u64 {
        self.store
            .as_ref()
            .map_or(self.lost_at_last, Store::lost_events)
    }

    /// What was handed over is the last.
    pub(super) fn close(&self) {
        if let Some(store) = &self.store {
            store.close();
        }
    }

    /// Waits for the rest to be written.
    pub(super) async fn finish(&mut self) {
        if let Some(store) = self.store.take() {
            self.lost_at_last = store.finish().await;
        }
    }
}

/// How far an earlier run's ring is in the store.
pub(super) fn position(saved: &Saved) -> Option<Position> {
    let ring = u32::try_from(*saved.meta.get(RING)?).ok()?;
    let bytes = *saved.meta.get(RING_BYTES)?;
    Some(Position { ring, bytes })
}

impl Task {
    /// Takes up what an earlier run left. Before the first scan.
    pub(super) fn resume(&mut self, saved: Saved) {
        if self.persist.store.is_none() {
            return;
        }
        if !saved.books.is_empty() {
            let books = saved.books.len();
            info!(books, "going on where an earlier run of this boot ended");
        }
        self.engine.resume(saved.books);
    }

    /// Hands over what is new to the store: events, and the books that changed with them.
    pub(super) fn save(&mut self) {
        if self.engine.take_audit_wanted() {
            self.audit.wanted(clock::now().boottime_ns);
        }
        if self.persist.store.is_none() {
            return;
        }
        if self.engine.holds_events() || !self.unnamed.is_empty() {
            // The held events' kills are in the books: both are written together, soon.
            if self.persist.pending.len() >= STORE_QUEUE / 2 {
                let rest = self.engine.release();
                self.publish(rest);
                self.publish_named(u64::MAX);
            }
            return;
        }
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let Some(store) = &mut self.persist.store else {
            return;
        };
        let events = std::mem::take(&mut self.persist.pending);
        if !store.has_room(events.len()) {
            // Books are asked for as soon as there is room.
            return store.lose(events.len());
        }
        let mut batch = Batch {
            events,
            all_books: store.wants_all_books(),
            ..Batch::default()
        };
        if batch.all_books {
            batch.books = self.engine.all_books();
            let lost = self.persist.lost_before.saturating_add(store.lost_events());
            batch.meta.push((LOST_EVENTS, lost));
        } else {
            let changes = self.engine.take_changes();
            (batch.books, batch.closed) = (changes.books, changes.closed);
        }
        if !batch.is_empty() {
            let told = self.engine.node_told();
            let told_up_to = self.node.told_up_to(told);
            batch
                .meta
                .extend(told_up_to.map(|value| (TOLD_UP_TO, value)));
            if let Some(Position { ring, bytes }) = self.taken_up_to {
                batch
                    .meta
                    .extend([(RING, ring.into()), (RING_BYTES, bytes)]);
            }
            store.write(batch);
        }
    }

    /// A registration that is to outlive this run. One that did is taken over by its owner.
    pub(super) fn add_by_hand(&mut self, id: &str, cgroup: &Path) -> Result<(), AddError> {
        let container = ContainerId::new(id)?;
        let cgroup_id = self.hierarchy.id(cgroup)?;
        if self.engine.take_restored(&container, cgroup_id) {
            return Ok(());
        }
        self.add(id, cgroup, Self::read_late)?;
        self.engine.keep_registration(cgroup_id);
        self.save();
        Ok(())
    }
}
