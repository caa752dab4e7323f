//! The elements of a JSON array, cut out as the array comes. An answer of any length costs the memory of its longest
//! element. An element that is too long, or empty, costs none.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::{HttpError, MAX_ANSWER_BYTES, failed};
use crate::runtimes::source::SourceError;

/// Bytes of an element. A container has all its labels, ports and mounts there.
pub(super) const MAX_ELEMENT_BYTES: usize = 1 << 20;

/// An answer that is a listing.
pub(in crate::runtimes) struct Elements {
    request: &'static str,
    body: Incoming,
    read_bytes: usize,
    cutter: Cutter,
    /// Moves the connection for as long as the elements are read.
    _connection: JoinSet<()>,
}

/// The elements in a piece of the answer.
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
                let cut = self.cutter.parse(&data);
                cut.map(Some).map_err(|error| error.of(request))
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
    fn parse<T: DeserializeOwned>(&mut self, data: &[u8]) -> Result<Piece<T>, HttpError> {
        let (mut elements, mut invalid) = (Vec::new(), 0);
        self.cut(data, |element| {
            let parsed = element.filter(|text| *text != b"{}");
            match parsed.and_then(|text| serde_json::from_slice(text).ok()) {
                Some(element) => elements.push(element),
                None => invalid += 1,
            }
        })?;
        Ok(Piece { elements, invalid })
    }

    /// Calls `found` with each element that ends in this piece; with `None` for one that is too long.
    pub(super) fn cut(
        &mut self,
        data: &[u8],
        mut found: impl FnMut(Option<&[u8]>),
    ) -> Result<(), HttpError> {
        let mut from = 0;
        for (at, &byte) in data.iter().enumerate() {
            match self.at {
                At::Text => match byte {
                    b'"' => self.at = At::Array,
                    b'\\' => self.at = At::Escape,
                    _ => {}
                },
                At::Escape => self.at = At::Text,
                At::Array => match byte {
                    b'"' => self.at = At::Text,
                    b'{' | b'[' => self.depth += 1,
                    b',' | b']' if self.depth == 0 => {
                        self.end(data.get(from..at).unwrap_or_default(), &mut found);
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
        Ok(())
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

    fn end(&mut self, rest: &[u8], found: &mut impl FnMut(Option<&[u8]>)) {
        if self.begun.is_empty() && !self.is_too_long {
            let element = rest.trim_ascii();
            if !element.is_empty() {
                found((element.len() <= MAX_ELEMENT_BYTES).then_some(element));
            }
            return;
        }
        self.keep(rest);
        let element = self.begun.trim_ascii();
        if self.is_too_long || !element.is_empty() {
            found((!self.is_too_long).then_some(element));
        }
        self.begun.clear();
        self.is_too_long = false;
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

    fn cut(pieces: &[&[u8]]) -> Result<Vec<Option<String>>, HttpError> {
        let mut cutter = Cutter::default();
        let mut all = Vec::new();
        for piece in pieces {
            cutter.cut(piece, |element| {
                all.push(element.map(|text| String::from_utf8(text.to_vec()).unwrap()));
            })?;
        }
        if cutter.is_complete() {
            Ok(all)
        } else {
            Err(HttpError::NoListing)
        }
    }

    #[test]
    fn no_listing_is_an_error() {
        for text in ["", "{}", "[1", "nix", "[1] 2", "[\"a]", "[[1]", "7"] {
            assert!(cut(&[text.as_bytes()]).is_err(), "{text}");
        }
        for text in ["[]", " null\n", "[ ]", "\n[\n]\n"] {
            assert_eq!(cut(&[text.as_bytes()]).unwrap(), [], "{text}");
        }
    }

    #[test]
    fn a_long_element_is_skipped_and_takes_no_memory() {
        let mut cutter = Cutter::default();
        let mut found = Vec::new();
        let mut cut =
            |data: &[u8]| cutter.cut(data, |element| found.push(element.map(<[u8]>::len)));
        cut(b"[{\"a\":\"").unwrap();
        let piece = vec![b'x'; MAX_ELEMENT_BYTES / 4];
        for _ in 0..9 {
            cut(&piece).unwrap();
        }
        cut(b"\"}, {\"b\":1}]").unwrap();
        assert!(cutter.begun.capacity() <= MAX_ELEMENT_BYTES);
        assert_eq!(found, [None, Some(7)]);
    }

    #[test]
    fn empty_elements_are_counted_and_nothing_else() {
        let text = format!("[{}{{}}]", "{},".repeat(100_000));
        let piece: Piece<Value> = Cutter::default().parse(text.as_bytes()).unwrap();
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
            size in 1_usize..40,
            is_pretty: bool,
        ) {
            let array = Value::from(values.clone());
            let text = if is_pretty { format!("{array:#}") } else { array.to_string() };
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let mut cutter = Cutter::default();
            let mut found: Vec<Value> = Vec::new();
            for piece in pieces {
                cutter
                    .cut(piece, |element| found.push(serde_json::from_slice(element.unwrap()).unwrap()))
                    .unwrap();
            }
            prop_assert!(cutter.is_complete());
            prop_assert_eq!(found, values);
        }

        #[test]
        fn no_bytes_make_it_panic(data: Vec<u8>) {
            let _ = Cutter::default().cut(&data, |_| {});
        }
    }
}
