//! From the ring to the engine: records in batches. Losses between records are noted before the records that came
//! after them.

use super::{super::Report, Task};
use crate::{log::warn, probe::DecodeError, record::Record};

/// Records worked through at a time, so that commands are not kept waiting in a storm.
const BATCH: usize = 256;

impl Task {
    /// Works through all that is in the ring, and all counters that moved.
    pub(super) fn drain(&mut self) {
        self.drain_ring();
        self.drain_counters();
    }

    /// Works through a batch, and leaves the rest to the next turn of the loop.
    pub(super) fn drain_some(&mut self) {
        self.has_more = self.drain_batch();
        if !self.has_more {
            self.drain_counters();
        }
    }

    /// Works through all that is in the ring.
    pub(super) fn drain_ring(&mut self) {
        while self.drain_batch() {
            self.relieve();
        }
        self.has_more = false;
    }

    /// Tells whether more may be left.
    fn drain_batch(&mut self) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let more = self.read_ring(BATCH, &mut batch);
        // A record is lost only while there are records to be read, or records that were read and are not handed
        // over. So this sees every loss, and before the records that came after it.
        if !batch.is_empty() || self.source.pinned_at().is_some() {
            self.check_drops();
        }
        if !batch.is_empty() {
            self.apply_batch(&batch);
            batch.clear();
        }
        self.batch = batch;
        more
    }

    pub(super) fn apply_batch(&mut self, batch: &[Record]) {
        let is_mark = |record: &Record| {
            matches!(
                record,
                Record::Victim(_) | Record::DoubleCount(_) | Record::GroupEnd(_)
            )
        };
        if batch.iter().any(is_mark) {
            self.persist.note_marks();
        }
        self.apply(batch);
    }

    /// Adds what is in the ring to `batch`, `limit` records at most; tells whether more may be left.
    pub(super) fn read_ring(&mut self, limit: usize, batch: &mut Vec<Record>) -> bool {
        let report = &mut self.report;
        self.source
            .drain(limit, |record| batch.extend(understood(record, report)))
    }
}

pub(super) fn understood(
    record: Result<Record, DecodeError>,
    report: &mut Report,
) -> Option<Record> {
    record
        .inspect_err(|error| {
            report.lost.decode += 1;
            if report.lost.decode.is_power_of_two() {
                warn!(%error, count = report.lost.decode, "cannot decode a record of the ring");
            }
        })
        .ok()
}
