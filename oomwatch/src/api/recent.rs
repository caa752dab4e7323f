//! The latest events, bounded in number and bytes, for all readers. A reader has a place in them and no queue of its
//! own. A reader that falls behind finds its place gone, and the number of events that it missed. It costs the others
//! nothing. The publisher owns the events; readers look through a `watch` channel.

use std::{collections::VecDeque, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    event::OomEvent,
    publish::{PublishFuture, Publisher},
};

/// Events kept.
const MAX_EVENTS: usize = 1000;
/// Bytes of their JSON kept.
const MAX_BYTES: usize = 1 << 20;

/// Collects events for an [`crate::api::Api`].
#[derive(Debug)]
pub struct ApiPublisher(watch::Sender<Recent>);

pub(super) fn channel() -> (ApiPublisher, watch::Receiver<Recent>) {
    let (sender, receiver) = watch::channel(Recent::default());
    (ApiPublisher(sender), receiver)
}

impl Publisher for ApiPublisher {
    fn name(&self) -> &str {
        "api"
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        self.0.send_modify(|recent| recent.push(&event));
        Box::pin(async { Ok(()) })
    }
}

/// One event, as a frame of a stream. The frame contains the event's JSON.
#[derive(Clone, Debug)]
struct Frame {
    id: String,
    bytes: Bytes,
    json: Bytes,
}

impl Frame {
    fn new(event: &OomEvent) -> Self {
        let json = event.to_json_with_text();
        let mut text = String::with_capacity(json.len() + event.id.len() + 32);
        // Writing to a string does not fail. Neither an id nor JSON has a line break in it.
        let _ = write!(text, "id: {}\nevent: oom\ndata: ", event.id);
        let start = text.len();
        text.push_str(&json);
        let end = text.len();
        text.push_str("\n\n");
        let bytes = Bytes::from(text);
        Self {
            id: event.id.clone(),
            json: bytes.slice(start..end),
            bytes,
        }
    }
}

/// The item at a reader's place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame of the stream.
    Frame(Bytes),
    /// The place is gone: this many events were missed.
    Missed(u64),
    /// Nothing yet.
    Nothing,
}

/// The latest events, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    frames: VecDeque<Frame>,
    /// Number of the first of them; events are numbered from 0.
    first: u64,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, event: &OomEvent) {
        let frame = Frame::new(event);
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        while self.frames.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes.len();
            self.first += 1;
        }
    }

    /// The place after the last one.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::try_from(self.frames.len()).unwrap_or(u64::MAX)
    }

    /// The place of the oldest.
    pub(super) fn start(&self) -> u64 {
        self.first
    }

    /// The place after the event of this id. A kill that is published again has its id twice. The events after the
    /// first one are then sent once more rather than not at all.
    pub(super) fn after(&self, id: &str) -> Option<u64> {
        let mut numbered = (self.first..).zip(&self.frames);
        numbered
            .find(|(_, frame)| frame.id == id)
            .map(|(number, _)| number + 1)
    }

    pub(super) fn at(&self, place: u64) -> Next {
        let Some(index) = place.checked_sub(self.first) else {
            return Next::Missed(self.first - place);
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        match self.frames.get(index) {
            Some(frame) => Next::Frame(frame.bytes.clone()),
            None => Next::Nothing,
        }
    }

    /// The JSON of the latest `limit`, the oldest first.
    pub(super) fn latest(&self, limit: usize) -> impl Iterator<Item = Bytes> {
        let skipped = self.frames.len().saturating_sub(limit);
        self.frames
            .iter()
            .skip(skipped)
            .map(|frame| frame.json.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::event_at;

    #[test]
    fn a_reader_that_falls_behind_is_told_by_how_much() {
        let mut recent = Recent::default();
        for second in 0..2500 {
            recent.push(&event_at(second));
        }
        assert!(recent.bytes <= MAX_BYTES, "{}", recent.bytes);
        assert!(recent.frames.len() <= MAX_EVENTS);
        let start = recent.start();
        assert_eq!(recent.end(), 2500);
        assert_eq!(recent.at(0), Next::Missed(start));
        assert_eq!(recent.at(2500), Next::Nothing);
        assert!(matches!(recent.at(2499), Next::Frame(_)));
        assert_eq!(recent.latest(3).count(), 3);
    }

    #[test]
    fn bytes_are_bounded_whatever_one_event_has() {
        let mut recent = Recent::default();
        let mut large = event_at(1);
        // Twice in it: the text has it too.
        large.victim.cgroup_path = Some("x".repeat(300 << 10));
        recent.push(&large);
        recent.push(&large);
        assert_eq!((recent.frames.len(), recent.start()), (1, 1));
        large.victim.cgroup_path = Some("x".repeat(MAX_BYTES));
        recent.push(&large);
        assert_eq!(
            (recent.frames.len(), recent.start(), recent.bytes),
            (0, 3, 0)
        );
        assert_eq!(recent.at(2), Next::Missed(1));
    }

    #[test]
    fn a_place_is_found_by_the_id_of_what_was_read() {
        let mut recent = Recent::default();
        for second in [5, 6, 5] {
            recent.push(&event_at(second));
        }
        assert_eq!(recent.after("boot-6"), Some(2));
        assert_eq!(recent.after("boot-5"), Some(1), "rather twice than never");
        assert_eq!(recent.after("other-6"), None);
    }

    #[test]
    fn a_frame_is_one_message_of_a_stream() {
        let frame = Frame::new(&event_at(7));
        let text = std::str::from_utf8(&frame.bytes).unwrap();
        let lines: Vec<_> = text.split('\n').collect();
        assert_eq!(lines[0], "id: boot-7");
        assert_eq!(lines[1], "event: oom");
        let json = lines[2].strip_prefix("data: ").unwrap();
        assert_eq!(json.as_bytes(), frame.json);
        assert_eq!(lines[3..], ["", ""]);
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(value["text"], event_at(7).to_text(false));
    }
}
