//! The elements of a JSON array, cut out as the array comes. An answer of any length costs the memory of its longest
//! element. An element that is too long, or empty, costs none.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use memchr::memchr2;
use serde::de::DeserializeOwned;
use serde_json::Deserializer;
use tokio::task::JoinSet;

use super::{HttpError, MAX_ANSWER_BYTES, failed};
use crate::runtimes::source::SourceError;

/// Bytes of an element. A container has all its labels, ports and mounts there.
pub(super) const MAX_ELEMENT_BYTES: usize = 1 << 20;
/// An element without anything. It would take far more memory than text.
const EMPTY: &[u8] = b"{}";

/// An answer that is a listing.
pub(in crate::runtimes) struct Elements {
    request: &'static str,
    body: Incoming,
    read_bytes: usize,
    cutter: Cutter,
    /// Moves the connection for as long as the elements are read.
    _connection: JoinSet<()>,
}

/// The elements that end in a piece of the answer.
pub(in crate::runtimes) struct Piece<T> {
    pub(in crate::runtimes) elements: Vec<T>,
    /// Elements that are empty, too long or of another form.
    pub(in crate::runtimes) invalid: usize,
}

impl Elements {
    pub(super) fn new(request: &'static str, body: Incoming, connection: JoinSet<()>) -> Self {
        Self {
            request,
            body,
            read_bytes: 0,
            cutter: Cutter::default(),
            _connection: connection,
        }
    }

    /// The next elements; `None` at the end of the array.
    pub(in crate::runtimes) async fn next<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Piece<T>>, SourceError> {
        let request = self.request;
        match super::within(request, self.read()).await? {
            Some(data) => {
                let piece = self.cutter.cut(&data);
                piece.map(Some).map_err(|error| error.of(request))
            }
            None if self.cutter.is_complete() => Ok(None),
            None => Err(HttpError::NoListing.of(request)),
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(frame) = self.body.frame().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|error| failed(self.request, error))?;
        let data = frame.into_data().unwrap_or_default();
        self.read_bytes = self.read_bytes.saturating_add(data.len());
        if self.read_bytes > MAX_ANSWER_BYTES {
            return Err(HttpError::TooLong.of(self.request));
        }
        Ok(Some(data))
    }
}

impl<T: DeserializeOwned> Piece<T> {
    /// Takes an element that begins here and ends in this piece. Returns its length. Such elements are nearly all, and
    /// this parses them without looking for their end first.
    fn take_whole(&mut self, text: &[u8]) -> Option<usize> {
        if text.starts_with(EMPTY) {
            return None;
        }
        let mut texts = Deserializer::from_slice(text).into_iter();
        let element = texts.next()?.ok()?;
        let length = texts.byte_offset();
        (length <= MAX_ELEMENT_BYTES).then(|| {
            self.elements.push(element);
            length
        })
    }

    /// Takes an element; none where nothing is between two commas.
    fn take(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        if text.is_empty() {
            return;
        }
        let has_place = text != EMPTY && text.len() <= MAX_ELEMENT_BYTES;
        match has_place.then(|| serde_json::from_slice(text)) {
            Some(Ok(element)) => self.elements.push(element),
            _ => self.invalid += 1,
        }
    }
}

/// Where in the array the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the array.
    #[default]
    Begin,
    /// In `null`, which both daemons answer where there is nothing.
    Null,
    /// In the array.
    Array,
    /// In an element's text.
    Text,
    /// After a backslash in an element's text.
    Escape,
    /// After the array.
    End,
}

/// Cuts an array into its elements.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    at: At,
    /// Objects and arrays within the element that are open.
    depth: usize,
    /// The beginning of an element that goes on in the next piece.
    begun: Vec<u8>,
    is_too_long: bool,
}

impl Cutter {
    /// The elements that end in this piece.
    fn cut<T: DeserializeOwned>(&mut self, data: &[u8]) -> Result<Piece<T>, HttpError> {
        let mut piece = Piece {
            elements: Vec::new(),
            invalid: 0,
        };
        let (mut from, mut next) = (0, 0);
        while let Some(&byte) = data.get(next) {
            let at = next;
            next += 1;
            match self.at {
                // Most of an answer is text.
                At::Text => {
                    let rest = data.get(at..).unwrap_or_default();
                    let Some(end) = memchr2(b'"', b'\\', rest) else {
                        break;
                    };
                    next = at + end + 1;
                    self.at = match rest.get(end) {
                        Some(b'"') => At::Array,
                        _ => At::Escape,
                    };
                }
                At::Escape => self.at = At::Text,
                At::Array => match byte {
                    b'"' => self.at = At::Text,
                    b'{' if self.is_before_element() => {
                        match piece.take_whole(data.get(at..).unwrap_or_default()) {
                            Some(length) => {
                                next = at + length;
                                from = next;
                            }
                            None => self.depth = 1,
                        }
                    }
                    b'{' | b'[' => self.depth += 1,
                    b',' | b']' if self.depth == 0 => {
                        self.end(data.get(from..at).unwrap_or_default(), &mut piece);
                        from = at + 1;
                        if byte == b']' {
                            self.at = At::End;
                        }
                    }
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                },
                At::Begin | At::Null | At::End => {
                    self.outside(byte)?;
                    from = at + 1;
                }
            }
        }
        if matches!(self.at, At::Array | At::Text | At::Escape) {
            self.keep(data.get(from..).unwrap_or_default());
        }
        Ok(piece)
    }

    /// Whether an object that begins here is an element, and no part of it was kept.
    fn is_before_element(&self) -> bool {
        self.depth == 0 && self.begun.is_empty() && !self.is_too_long
    }

    fn outside(&mut self, byte: u8) -> Result<(), HttpError> {
        self.at = match (self.at, byte) {
            (at, b' ' | b'\t' | b'\r' | b'\n') => at,
            (At::Begin, b'[') => At::Array,
            (At::Begin, b'n') | (At::Null, b'u' | b'l') => At::Null,
            _ => return Err(HttpError::NoListing),
        };
        Ok(())
    }

    fn end<T: DeserializeOwned>(&mut self, rest: &[u8], piece: &mut Piece<T>) {
        if self.begun.is_empty() && !self.is_too_long {
            piece.take(rest);
            return;
        }
        self.keep(rest);
        if std::mem::take(&mut self.is_too_long) {
            piece.invalid += 1;
        } else {
            piece.take(&self.begun);
        }
        self.begun.clear();
    }

    fn keep(&mut self, part: &[u8]) {
        self.is_too_long |= self.begun.len() + part.len() > MAX_ELEMENT_BYTES;
        if self.is_too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.at, At::Null | At::End)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cut(text: &str) -> Result<Piece<Value>, HttpError> {
        let mut cutter = Cutter::default();
        let piece = cutter.cut(text.as_bytes())?;
        cutter
            .is_complete()
            .then_some(piece)
            .ok_or(HttpError::NoListing)
    }

    #[test]
    fn no_listing_is_an_error() {
        for text in ["", "{}", "[1", "nix", "[1] 2", "[\"a]", "[[1]", "7"] {
            assert!(cut(text).is_err(), "{text}");
        }
        for text in ["[]", " null\n", "[ ]", "\n[\n]\n"] {
            let piece = cut(text).unwrap();
            assert!(piece.elements.is_empty() && piece.invalid == 0, "{text}");
        }
    }

    #[test]
    fn a_long_element_is_skipped_and_takes_no_memory() {
        let mut cutter = Cutter::default();
        let mut next = |data: &[u8]| cutter.cut::<Value>(data).unwrap();
        next(b"[{\"a\":\"");
        let part = vec![b'x'; MAX_ELEMENT_BYTES / 4];
        for _ in 0..9 {
            next(&part);
        }
        let last = next(b"\"}, {\"b\":1}]");
        assert!(cutter.begun.capacity() <= MAX_ELEMENT_BYTES);
        assert_eq!((last.invalid, last.elements), (1, vec![json!({"b": 1})]));
        // All of it in one piece.
        let long = "x".repeat(MAX_ELEMENT_BYTES);
        let piece = cut(&format!("[{{\"a\":\"{long}\"}},{{\"b\":1}}]")).unwrap();
        assert_eq!((piece.invalid, piece.elements.len()), (1, 1));
    }

    #[test]
    fn empty_elements_are_counted_and_nothing_else() {
        let text = format!("[{}{{}}]", "{},".repeat(100_000));
        let piece = cut(&text).unwrap();
        assert_eq!((piece.elements.capacity(), piece.invalid), (0, 100_001));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[a-c\\[\\]{},\":\\\\ ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a\\]\"]{0,3}", inner, 0..4)
                    .prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn elements_come_whole_however_they_were_cut(
            values in prop::collection::vec(value(), 0..6),
            size in 1_usize..200,
            is_pretty: bool,
        ) {
            let array = Value::from(values.clone());
            let text = if is_pretty { format!("{array:#}") } else { array.to_string() };
            let mut cutter = Cutter::default();
            let (mut found, mut invalid) = (Vec::<Value>::new(), 0);
            for piece in text.as_bytes().chunks(size) {
                let piece = cutter.cut(piece).unwrap();
                found.extend(piece.elements);
                invalid += piece.invalid;
            }
            prop_assert!(cutter.is_complete());
            let (empty, others): (Vec<_>, Vec<_>) =
                values.into_iter().partition(|value| *value == json!({}));
            prop_assert_eq!((found, invalid), (others, empty.len()));
        }

        #[test]
        fn no_bytes_make_it_panic(data: Vec<u8>) {
            let _ = Cutter::default().cut::<Value>(&data);
        }
    }
}
