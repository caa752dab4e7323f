//! A generation of pinned programs that a newer one replaces. It is read to its end, and removed once its records are
//! handed over. Until then its programs stay attached and see what the newer ones see.

use oomwatch_common::record::WIRE_VERSION;
use tracing::debug;

use super::{DecodeError, Position, decode, pin::Generation, ring::Ring};
use crate::{log::warn, record::Record};

/// The generation and its ring.
pub(super) struct Older {
    /// `None` if it cannot be opened, usually after an interrupted start.
    ring: Option<Ring>,
    generation: Generation,
}

impl Older {
    /// Opens the parts of it that exist.
    pub(super) fn open(generation: Generation) -> Self {
        // Its records carry the version too. Each is counted as not understood, never misread.
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

    /// Reads all of its records, except those before a `stored` position: they were reported.
    pub(super) fn read(
        &mut self,
        stored: &[Position],
        page_bytes: u64,
        take: &mut impl FnMut(Result<Record, DecodeError>),
    ) {
        let number = self.generation.number();
        let Some(ring) = &mut self.ring else {
            return;
        };
        ring.resume(stored, |bytes| take(decode(bytes, number, page_bytes)));
        while let Some(bytes) = ring.next() {
            take(decode(bytes, number, page_bytes));
        }
    }

    /// How far it is read.
    pub(super) fn position(&self) -> Option<Position> {
        self.ring.as_ref().map(Ring::position)
    }

    /// Whether all of its read records come before one of these positions.
    pub(super) fn is_among(&self, positions: &[Position]) -> bool {
        self.position()
            .is_none_or(|position| positions.contains(&position))
    }

    /// Detaches and removes it.
    pub(super) fn retire(self) {
        if let Err(error) = self.generation.remove() {
            warn!(%error, "cannot remove pinned programs");
        }
    }
}
