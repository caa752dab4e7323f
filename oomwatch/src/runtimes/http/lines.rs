//! A stream of lines, each a JSON object, read as it comes. A line that is too long is skipped. It costs no more
//! memory than another line.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use super::failed;
use crate::{log::warn, runtimes::source::SourceError};

/// Bytes of a line. An event has all labels of its container.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// The lines of an answer that does not end.
pub(super) struct Lines {
    request: &'static str,
    body: Incoming,
    split: Split,
    /// Whether the log has a warning about a line that was too long.
    said: bool,
    /// Moves the connection for as long as the lines are read.
    _connection: JoinSet<()>,
}

impl Lines {
    pub(super) fn new(request: &'static str, body: Incoming, connection: JoinSet<()>) -> Self {
        Self {
            request,
            body,
            split: Split::default(),
            said: false,
            _connection: connection,
        }
    }

    /// The next line. A caller that stops waiting loses nothing.
    pub(super) async fn next(&mut self) -> Result<Bytes, SourceError> {
        loop {
            match self.split.next() {
                Some(Line::Whole(line)) => return Ok(line),
                Some(Line::TooLong) => self.say(),
                None => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), SourceError> {
        let Some(frame) = self.body.frame().await else {
            return Err(SourceError::Closed);
        };
        let frame = frame.map_err(|error| failed(self.request, error))?;
        if let Ok(data) = frame.into_data() {
            self.split.push(&data);
        }
        Ok(())
    }

    fn say(&mut self) {
        if !std::mem::replace(&mut self.said, true) {
            let limit = MAX_LINE_BYTES;
            warn!(limit, "a runtime's event is too long: oomwatch left it out");
        }
    }
}

/// A line, or that there was one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes),
    TooLong,
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Split {
    buffer: BytesMut,
    /// Bytes that hold no end of a line.
    scanned: usize,
    /// Within a line that is too long.
    skipping: bool,
}

impl Split {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let fresh = self.buffer.iter().skip(self.scanned);
            let Some(end) = fresh.copied().position(|byte| byte == b'\n') else {
                return self.unfinished();
            };
            let line = self.buffer.split_to(self.scanned + end + 1);
            self.scanned = 0;
            let is_rest = std::mem::take(&mut self.skipping);
            if !is_rest && line.len() > MAX_LINE_BYTES {
                return Some(Line::TooLong);
            }
            if !is_rest && !line.trim_ascii().is_empty() {
                return Some(Line::Whole(line.freeze()));
            }
        }
    }

    fn unfinished(&mut self) -> Option<Line> {
        self.scanned = self.buffer.len();
        if self.scanned <= MAX_LINE_BYTES {
            return None;
        }
        self.buffer.clear();
        self.scanned = 0;
        let is_news = !std::mem::replace(&mut self.skipping, true);
        is_news.then_some(Line::TooLong)
    }
}
