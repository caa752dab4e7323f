//! A generation of pinned programs that a newer one takes over from: read to its end, and removed once that is
//! handed over. Until then its programs stay attached, and see what the newer ones see too.

use oomwatch_common::record::WIRE_VERSION;
use tracing::debug;

use super::{
    DecodeError, Position, decode, is_victim,
    pin::{Generation, Overlap},
    ring::{self, Ring},
};
use crate::{log::warn, record::Record};

/// The generation and its ring.
pub(super) struct Older {
    /// `None` where it cannot be opened: after a start that was interrupted, as a rule.
    ring: Option<Ring>,
    generation: Generation,
}

impl Older {
    /// Opens what there is of it.
    pub(super) fn open(generation: Generation) -> Self {
        // Each of its records says so too: it is counted as one that was not understood, never misread.
        if let Some(version) = generation.wire_version()
            && version != WIRE_VERSION
        {
            warn!(
                path = %generation.path().display(),
                version,
                reads = WIRE_VERSION,
                "a pinned ring has records of another wire version: kills while no daemon ran have no details"
            );
        }
        let ring = match generation.open() {
            Ok(opened) => Some(opened.ring),
            Err(error) => {
                debug!(%error, "an older ring cannot be read");
                None
            }
        };
        Self { ring, generation }
    }

    /// Reads all that is in it. What came before a `stored` position was told; it is noted all the same, so that
    /// the newer programs do not tell of it.
    pub(super) fn read(
        &mut self,
        stored: &[Position],
        page_bytes: u64,
        overlap: &mut Overlap,
        take: &mut impl FnMut(Result<Record, DecodeError>),
    ) {
        let number = self.generation.number();
        let Some(ring) = &mut self.ring else {
            return;
        };
        let mut told_up_to = None;
        for since in stored {
            for bytes in ring::records(&ring.taken_since(*since).unwrap_or_default()) {
                let record = decode(bytes, number, page_bytes);
                if !is_victim(&record, |victim| overlap.is_repeated(victim)) {
                    take(record);
                }
            }
            if since.ring == ring.position().ring {
                told_up_to = Some(since.bytes);
            }
        }
        loop {
            let begins_at = ring.position().bytes;
            let Some(bytes) = ring.next() else {
                return;
            };
            let record = decode(bytes, number, page_bytes);
            let is_told = told_up_to.is_some_and(|told_up_to| begins_at < told_up_to);
            if !is_victim(&record, |victim| overlap.is_repeated(victim)) && !is_told {
                take(record);
            }
        }
    }

    /// How far it is read.
    pub(super) fn position(&self) -> Option<Position> {
        self.ring.as_ref().map(Ring::position)
    }

    /// Whether all that was read of it comes before one of these positions.
    pub(super) fn is_among(&self, positions: &[Position]) -> bool {
        self.position()
            .is_none_or(|position| positions.contains(&position))
    }

    /// Detaches and removes it.
    pub(super) fn retire(self) {
        if let Err(error) = self.generation.remove() {
            warn!(%error, "what is pinned cannot be removed");
        }
    }
}
