//! A ring of the kernel's, and how far it is read.
//!
//! aya reads it. What this adds is for a daemon that goes on after one that was killed: the reader's
//! position, to be stored beside what was made of the records before it; and the records after a stored
//! position, which were taken and not stored. What is taken stays where it was until the kernel needs
//! the room. Knows the layout of a ring's memory (`kernel/bpf/ringbuf.c`: a page with the consumer's
//! position, one with the producer's, the data twice in a row), and nothing of records.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use aya::maps::{Map, MapData, MapError, RingBuf, ring_buf::RingBufItem};
use memmap2::{MmapOptions, MmapRaw};

/// `BPF_RINGBUF_BUSY_BIT` and `BPF_RINGBUF_DISCARD_BIT` of a record's length.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// In front of each record, and what records are aligned to.
const HEADER_BYTES: usize = 8;

/// How far a ring is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The kernel's number of the map.
    pub(crate) ring: u32,
    /// Bytes since the ring was made.
    pub(crate) bytes: u64,
}

/// A ring and its reader's position.
pub(crate) struct Ring {
    reader: RingBuf<MapData>,
    id: u32,
    data_bytes: usize,
    page_bytes: usize,
    /// The page with the consumer's position.
    consumer: MmapRaw,
}

impl Ring {
    /// Opens a map; one that is no ring is refused.
    pub(crate) fn open(map: Map) -> Result<Self, MapError> {
        let (mut id, mut data_bytes) = (0, 0);
        if let Map::RingBuf(data) = &map {
            let info = data.info()?;
            (id, data_bytes) = (info.id(), info.max_entries());
        }
        let reader: RingBuf<MapData> = map.try_into()?;
        let page_bytes = rustix::param::page_size();
        let mut options = MmapOptions::new();
        let consumer = options.len(page_bytes).map_raw_read_only(&reader);
        Ok(Self {
            consumer: consumer.map_err(MapError::IoError)?,
            id,
            data_bytes: data_bytes as usize,
            page_bytes,
            reader,
        })
    }

    /// The next record, if there is one.
    pub(crate) fn next(&mut self) -> Option<RingBufItem<'_>> {
        self.reader.next()
    }

    /// Everything before it was taken.
    pub(crate) fn position(&self) -> Position {
        Position {
            ring: self.id,
            bytes: position_at(&self.consumer, 0) as u64,
        }
    }

    /// The memory of the records that were taken after a position, as long as none of it is used
    /// again; nothing where it is, and where the position is another ring's.
    pub(crate) fn taken_since(&self, since: Position) -> io::Result<Option<Vec<u8>>> {
        let Ok(since_bytes) = usize::try_from(since.bytes) else {
            return Ok(None);
        };
        let until = position_at(&self.consumer, 0);
        let length = until.checked_sub(since_bytes);
        let length = length.filter(|length| *length <= self.data_bytes);
        let Some(length) = length.filter(|_| since.ring == self.id) else {
            return Ok(None);
        };
        let data_at = 2 * self.page_bytes;
        let mut options = MmapOptions::new();
        let whole = options.len(data_at + 2 * self.data_bytes);
        let whole = whole.map_raw_read_only(&self.reader)?;
        let begin = data_at + since_bytes % self.data_bytes;
        let mut taken = Vec::with_capacity(length);
        for at in (begin..begin + length).step_by(size_of::<u32>()) {
            taken.extend_from_slice(&word_at(&whole, at).to_ne_bytes());
        }
        // Before a header is written over, the producer's position is right behind it.
        fence(Ordering::Acquire);
        let produced = position_at(&whole, self.page_bytes);
        let is_intact = produced < since_bytes + self.data_bytes;
        Ok(is_intact.then_some(taken))
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

/// A position that the kernel and readers move.
fn position_at(memory: &MmapRaw, at: usize) -> usize {
    assert!(at + size_of::<usize>() <= memory.len());
    // SAFETY: it is in the mapping, aligned as pages are, and others write it atomically.
    let position = unsafe { &*memory.as_ptr().add(at).cast::<AtomicUsize>() };
    position.load(Ordering::Acquire)
}

/// A part of a record, which the kernel may be writing over.
fn word_at(memory: &MmapRaw, at: usize) -> u32 {
    assert!(at + size_of::<u32>() <= memory.len() && at.is_multiple_of(size_of::<u32>()));
    // SAFETY: it is in the mapping and aligned; what is torn is found out afterwards.
    let word = unsafe { &*memory.as_ptr().add(at).cast::<AtomicU32>() };
    word.load(Ordering::Relaxed)
}

/// The records in a part of a ring's memory that begins and ends with one.
pub(crate) fn records(mut memory: &[u8]) -> impl Iterator<Item = &[u8]> {
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
