//! A ring of the kernel's, read in two steps: read records stay in the ring until they are handed over.
//!
//! A reader has a cursor of its own. The kernel's consumer position follows it by [`Ring::consume`], and another
//! daemon continues there. So a daemon that is killed between the two steps loses nothing. Records behind the
//! consumer position stay in memory until the kernel needs the room, and [`Ring::taken_since`] copies them. Pinned
//! programs wake the reader at each record, because the kernel itself does so only where the consumer position is at
//! that record.
//!
//! Knows the layout of a ring's memory (`kernel/bpf/ringbuf.c`) and nothing of records. That memory is one page with
//! the consumer's position, one page with the producer's, and the data twice in a row.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    slice,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use aya::maps::{Map, MapData, MapError};
use memmap2::{MmapOptions, MmapRaw};

/// `BPF_RINGBUF_BUSY_BIT` and `BPF_RINGBUF_DISCARD_BIT` of a record's length.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Bytes of the header in front of each record. Records are aligned to them.
const HEADER_BYTES: usize = 8;

/// How far a ring is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The kernel's number of the map.
    pub(crate) ring: u32,
    /// Bytes since the ring was made.
    pub(crate) bytes: u64,
}

/// A ring and its reader's cursor.
pub(crate) struct Ring {
    map: MapData,
    id: u32,
    data_bytes: usize,
    /// The page with the consumer's position, which is ours to move.
    consumer: MmapRaw,
    /// The page with the producer's position, and the data behind it.
    produced: MmapRaw,
    page_bytes: usize,
    /// Where the next record is read. Only ever at the beginning of one.
    cursor: usize,
}

impl Ring {
    /// Opens a map; one that is no ring is refused. Reading begins at the consumer's position.
    pub(crate) fn open(map: Map) -> Result<Self, MapError> {
        let Map::RingBuf(map) = map else {
            return Err(MapError::IoError(io::Error::other("it is no ring buffer")));
        };
        let info = map.info()?;
        let (id, data_bytes) = (info.id(), info.max_entries() as usize);
        let page_bytes = rustix::param::page_size();
        let fd = map.fd().as_fd().as_raw_fd();
        let consumer = MmapOptions::new().len(page_bytes).map_raw(fd);
        let consumer = consumer.map_err(MapError::IoError)?;
        let mut options = MmapOptions::new();
        let options = options
            .offset(page_bytes as u64)
            .len(page_bytes + 2 * data_bytes);
        Ok(Self {
            cursor: position_at(&consumer),
            produced: options.map_raw_read_only(fd).map_err(MapError::IoError)?,
            consumer,
            id,
            data_bytes,
            page_bytes,
            map,
        })
    }

    /// The next record, if there is one. It stays in the ring.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        while self.cursor < position_at(&self.produced) {
            let at = self.at();
            let length = self.header();
            if length & BUSY != 0 {
                return None;
            }
            let bytes = (length & !DISCARDED) as usize;
            self.cursor += (HEADER_BYTES + bytes).next_multiple_of(HEADER_BYTES);
            if length & DISCARDED == 0 {
                return Some(self.record_at(at + HEADER_BYTES, bytes));
            }
        }
        None
    }

    /// Whether there is a record without a wake-up: the kernel wrote it before it saw the new consumer position. Ask
    /// after [`Self::consume`].
    pub(crate) fn has_next(&self) -> bool {
        // The kernel writes the record and then reads the position. Here it is the other way round.
        fence(Ordering::SeqCst);
        self.cursor < position_at(&self.produced) && self.header() & BUSY == 0
    }

    /// Where in the mapping the cursor is.
    fn at(&self) -> usize {
        self.page_bytes + self.cursor % self.data_bytes
    }

    /// In front of the record at the cursor.
    fn header(&self) -> u32 {
        word_at(&self.produced, self.at(), Ordering::Acquire)
    }

    /// A record that was not consumed: the kernel writes nothing there.
    fn record_at(&self, at: usize, bytes: usize) -> &[u8] {
        assert!(at + bytes <= self.produced.len());
        // SAFETY: it is in the mapping, and written: the length was read with `Acquire`.
        unsafe { slice::from_raw_parts(self.produced.as_ptr().add(at), bytes) }
    }

    /// The end of the read records.
    pub(crate) fn position(&self) -> Position {
        Position {
            ring: self.id,
            bytes: self.cursor as u64,
        }
    }

    /// Continues after the stored position. Takes the later records that were given back to the kernel, unless it has
    /// overwritten them. Ignores positions of other rings.
    pub(crate) fn resume(&mut self, stored: &[Position], mut take: impl FnMut(&[u8])) {
        for since in stored {
            let taken = self.taken_since(*since).unwrap_or_default();
            records(&taken).for_each(&mut take);
            self.skip_to(*since);
        }
    }

    fn skip_to(&mut self, position: Position) {
        if let Some(bytes) = self.own(position)
            && (self.cursor..=position_at(&self.produced)).contains(&bytes)
        {
            self.cursor = bytes;
        }
    }

    /// Gives the kernel the room of all read records before a position.
    pub(crate) fn consume(&self, position: Position) {
        if let Some(bytes) = self.own(position)
            && (position_at(&self.consumer)..=self.cursor).contains(&bytes)
        {
            set_position(&self.consumer, bytes);
        }
    }

    /// Whether read and not consumed records keep half of the room from the kernel.
    pub(crate) fn is_pressed(&self) -> bool {
        let held = self.cursor.saturating_sub(position_at(&self.consumer));
        held > self.data_bytes / 2
    }

    fn own(&self, position: Position) -> Option<usize> {
        let bytes = usize::try_from(position.bytes).ok();
        bytes.filter(|_| position.ring == self.id)
    }

    /// The memory of the records from a position up to the consumer's, if the kernel has overwritten none of it.
    /// `None` if it has, or if the position is another ring's or ahead.
    fn taken_since(&self, since: Position) -> Option<Vec<u8>> {
        let since = self.own(since)?;
        let length = position_at(&self.consumer).checked_sub(since);
        let length = length.filter(|length| *length <= self.data_bytes)?;
        let begin = self.page_bytes + since % self.data_bytes;
        let mut taken = Vec::with_capacity(length);
        for at in (begin..begin + length).step_by(size_of::<u32>()) {
            let word = word_at(&self.produced, at, Ordering::Relaxed);
            taken.extend_from_slice(&word.to_ne_bytes());
        }
        // Before the kernel overwrites a header, the producer's position is right behind it.
        fence(Ordering::Acquire);
        let is_intact = position_at(&self.produced) < since + self.data_bytes;
        is_intact.then_some(taken)
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.map.fd().as_fd().as_raw_fd()
    }
}

/// The position at the beginning of a mapping, which the kernel or a reader moves.
fn position_at(memory: &MmapRaw) -> usize {
    position_of(memory).load(Ordering::Acquire)
}

fn set_position(consumer: &MmapRaw, bytes: usize) {
    position_of(consumer).store(bytes, Ordering::Release);
}

fn position_of(memory: &MmapRaw) -> &AtomicUsize {
    assert!(size_of::<usize>() <= memory.len());
    // SAFETY: it is in the mapping, aligned as pages are, and others write it atomically.
    unsafe { &*memory.as_ptr().cast::<AtomicUsize>() }
}

/// A part of a record, which the kernel may be writing over.
fn word_at(memory: &MmapRaw, at: usize, ordering: Ordering) -> u32 {
    assert!(at + size_of::<u32>() <= memory.len() && at.is_multiple_of(size_of::<u32>()));
    // SAFETY: it is in the mapping and aligned; a torn value is found out afterwards.
    let word = unsafe { &*memory.as_ptr().add(at).cast::<AtomicU32>() };
    word.load(ordering)
}

/// The records in a part of a ring's memory that begins and ends with one.
fn records(mut memory: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let (header, rest) = memory.split_at_checked(HEADER_BYTES)?;
            let length = u32::from_ne_bytes(*header.first_chunk()?);
            let bytes = (length & !(BUSY | DISCARDED)) as usize;
            let (record, _) = rest.split_at_checked(bytes)?;
            memory = rest.get(bytes.next_multiple_of(HEADER_BYTES)..)?;
            if length & (BUSY | DISCARDED) == 0 {
                return Some(record);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flags: u32, bytes: &[u8]) -> Vec<u8> {
        let mut memory = (bytes.len() as u32 | flags).to_ne_bytes().to_vec();
        memory.extend([0; 4]);
        memory.extend(bytes);
        memory.resize(memory.len().next_multiple_of(HEADER_BYTES), 0xff);
        memory
    }

    #[test]
    fn records_follow_one_another_aligned() {
        let memory = [
            record(0, b"first"),
            record(0, b"the second"),
            record(0, b""),
        ]
        .concat();
        let found: Vec<_> = records(&memory).collect();
        assert_eq!(found, [b"first".as_slice(), b"the second", b""]);
    }

    #[test]
    fn what_was_given_back_is_no_record() {
        let memory = [
            record(DISCARDED, b"no"),
            record(0, b"yes"),
            record(BUSY, b"no"),
        ]
        .concat();
        let found: Vec<_> = records(&memory).collect();
        assert_eq!(found, [b"yes".as_slice()]);
    }

    #[test]
    fn a_length_beyond_the_end_ends_it() {
        let mut memory = record(0, b"whole");
        memory.extend(64_u32.to_ne_bytes());
        memory.extend([0; 12]);
        assert_eq!(records(&memory).count(), 1);
        assert_eq!(records(&memory[..6]).count(), 0);
    }
}
