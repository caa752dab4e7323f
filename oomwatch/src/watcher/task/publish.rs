//! From the waiting room to the publishers. Only the loop publishes and saves, after each event that it handled. All
//! others put events into the waiting room.

use std::sync::Arc;

use super::Task;
use crate::{
    clock,
    event::{Kind, OomEvent},
    log::warn,
    publish::stream::Sent,
    tier::Tier,
};

/// Events published before the publishers' tasks have their turn.
const TURN: usize = 256;

impl Task {
    /// Takes events into the waiting room.
    pub(super) fn admit(&mut self, events: impl IntoIterator<Item = OomEvent>) {
        self.engine.admit(events, clock::now());
    }

    /// Does what follows each event of the loop.
    pub(super) fn turn(&mut self) {
        for (source, key) in self.engine.take_wanted() {
            self.sources.ask(source, key);
        }
        self.publish();
        self.save();
        self.relieve();
    }

    /// Publishes up to 256 events that wait no longer; the rest is for the next turn.
    fn publish(&mut self) {
        self.engine.release(clock::now().boottime_ns);
        for _ in 0..TURN {
            let Some(event) = self.engine.next_ready() else {
                return;
            };
            self.deliver(event);
        }
    }

    /// Publishes everything, whatever it waits for.
    pub(super) async fn publish_all(&mut self) {
        self.engine.let_all_go();
        while !self.engine.is_nothing_waiting() {
            self.turn();
            tokio::task::yield_now().await;
        }
    }

    /// Hands an event to the store, all publishers and subscribers.
    fn deliver(&mut self, mut event: OomEvent) {
        let now = clock::now();
        event.delivered_ns = Some(now.boottime_ns.saturating_sub(event.boottime_ns));
        if let Some(on_publish) = &mut self.on_publish {
            on_publish(&event);
        }
        self.warn_if_blind(&event);
        let event = Arc::new(event);
        self.persist.push(&event);
        for queue in &mut self.queues {
            queue.push(&event);
        }
        let lost = &mut self.report.lost.queue;
        self.subscribers.retain(|subscriber| {
            let sent = subscriber.send(&event);
            *lost += u64::from(sent == Sent::Full);
            sent != Sent::Gone
        });
    }

    /// Warns once that counters rise and the probe sees nothing of it, though no record was lost.
    fn warn_if_blind(&mut self, event: &OomEvent) {
        let has_probe = self.source.tier() != Tier::Counters;
        let is_unseen = event.kind == Kind::CounterOnly && !event.while_down;
        let totals = self.engine.totals();
        let marks = totals.kills + totals.already_exiting + totals.folded;
        let sees_nothing = marks == 0 && self.drops.victims == 0;
        if has_probe && is_unseen && sees_nothing && !self.is_blind {
            self.is_blind = true;
            warn!(
                tier = %self.source.tier(),
                "the kernel counts OOM kills, and the probe has seen no mark of one: kills are reported by number only. `oomwatch check` says what this host allows; --tier takes another way"
            );
        }
    }
}
