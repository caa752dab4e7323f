//! Applies records: in tier `pid`, victims recorded at their exit, with the counters that judge them.

use super::{Task, counters::reading};
use crate::{
    clock,
    engine::counter_reading::CounterReading,
    event::OomEvent,
    id::CgroupId,
    log::warn,
    record::{Record, VictimRecord},
};

impl Task {
    /// Works through records as this tier has them.
    pub(in super::super::task) fn apply(&mut self, records: &[Record]) {
        if !self.source.waits_for_victims() {
            return self.engine.work_through(records, clock::now());
        }
        for record in records {
            if let Record::Victim(victim) = record {
                let event = self.exited(victim);
                self.admit(event);
            }
        }
    }

    fn exited(&mut self, record: &VictimRecord) -> Option<OomEvent> {
        if let Some(id) = record.victim.cgroup_id
            && !self.engine.tree().contains(id)
        {
            // Created a moment ago.
            self.with_counters(|task, watch| {
                task.take_changes(watch);
            });
        }
        let reading = self.read_charged(record);
        self.engine.exited(record, reading.as_ref(), clock::now())
    }

    /// The counter of the victim's container, or without a container, of its own memory cgroup.
    fn read_charged(&self, record: &VictimRecord) -> Option<CounterReading> {
        let own = record.victim.cgroup_id?;
        if let Some(container) = self.engine.owner(own) {
            return self.read_file(container);
        }
        let mut lineage = self.engine.tree().lineage(own);
        lineage.find_map(|id| self.read_file(id))
    }

    fn read_file(&self, id: CgroupId) -> Option<CounterReading> {
        match self.read_once(id) {
            Ok(read) => read.map(|read| reading(id, read)),
            Err(error) => {
                warn!(%error, "cannot read a counter");
                None
            }
        }
    }
}
