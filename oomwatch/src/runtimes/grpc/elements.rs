//! The elements of a listing, decoded one by one. An element that is empty or too long costs no memory, and neither
//! does one beyond the most. A million empty messages are 2 MiB on the way and would be 100 MiB here.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_varint, message, skip_field},
};

use crate::runtimes::source::MAX_LISTED;

/// Bytes of an element. A container of containerd has its specification there.
const MAX_ELEMENT_BYTES: u64 = 1 << 20;
/// Labels of all elements.
const MAX_LABELS: usize = 131_072;

/// A message of a listing.
pub(crate) trait Element: Message + Default + 'static {
    /// Whether it names something.
    fn is_valid(&self) -> bool;

    /// Its labels, if it has any.
    fn labels(&mut self) -> Option<&mut BTreeMap<String, String>> {
        None
    }
}

/// An answer that consists of elements: in its first field, if not said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Elements<M, const FIELD: u32 = 1> {
    pub(crate) kept: Vec<M>,
    /// Elements that are empty or too long, or name nothing.
    pub(crate) invalid: usize,
    /// Elements beyond the most.
    pub(crate) surplus: usize,
    labels_left: usize,
}

impl<M, const FIELD: u32> Default for Elements<M, FIELD> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            invalid: 0,
            surplus: 0,
            labels_left: MAX_LABELS,
        }
    }
}

#[cfg(test)]
impl<M, const FIELD: u32> From<Vec<M>> for Elements<M, FIELD> {
    fn from(kept: Vec<M>) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }
}

impl<M: Element, const FIELD: u32> Elements<M, FIELD> {
    fn add(&mut self, mut element: M) {
        if !element.is_valid() {
            self.invalid += 1;
            return;
        }
        if let Some(labels) = element.labels() {
            if labels.len() > self.labels_left {
                labels.clear();
            }
            self.labels_left -= labels.len();
        }
        self.kept.push(element);
    }
}

impl<M: Element, const FIELD: u32> Message for Elements<M, FIELD> {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        message::encode_repeated(FIELD, &self.kept, buffer);
    }

    fn merge_field(
        &mut self,
        field: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let is_surplus = self.kept.len() >= MAX_LISTED;
        let is_element = field == FIELD && wire_type == WireType::LengthDelimited;
        if is_element && !is_surplus && (1..=MAX_ELEMENT_BYTES).contains(&length(buffer)) {
            let mut element = M::default();
            message::merge(wire_type, &mut element, buffer, context)?;
            self.add(element);
            return Ok(());
        }
        if is_element {
            let count = if is_surplus {
                &mut self.surplus
            } else {
                &mut self.invalid
            };
            *count += 1;
        }
        skip_field(wire_type, field, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(FIELD, &self.kept)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The length of the element that comes next, which stays there; 0 if that cannot be read.
fn length(buffer: &impl Buf) -> u64 {
    decode_varint(&mut buffer.chunk()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct One {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(btree_map = "string, string", tag = "2")]
        labels: BTreeMap<String, String>,
    }

    impl Element for One {
        fn is_valid(&self) -> bool {
            !self.id.is_empty()
        }

        fn labels(&mut self) -> Option<&mut BTreeMap<String, String>> {
            Some(&mut self.labels)
        }
    }

    fn one(id: &str, labels: usize) -> One {
        let label = |number: usize| (number.to_string(), String::new());
        One {
            id: id.to_owned(),
            labels: (0..labels).map(label).collect(),
        }
    }

    fn decoded(kept: Vec<One>) -> Elements<One> {
        let elements = Elements::<One>::from(kept);
        Elements::decode(elements.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn a_million_empty_messages_take_no_memory() {
        let bytes = [0x0a, 0x00].repeat(1_000_000);
        let elements = Elements::<One>::decode(bytes.as_slice()).unwrap();
        assert_eq!((elements.kept.capacity(), elements.invalid), (0, 1_000_000));
    }

    #[test]
    fn elements_and_their_labels_are_bounded() {
        let many = decoded((0..MAX_LISTED + 5).map(|_| one("a", 0)).collect());
        assert_eq!((many.kept.len(), many.surplus), (MAX_LISTED, 5));
        let labels = decoded((0..40).map(|_| one("a", 5_000)).collect());
        let kept: usize = labels.kept.iter().map(|one| one.labels.len()).sum();
        assert_eq!((labels.kept.len(), kept), (40, MAX_LABELS / 5_000 * 5_000));
        let long = decoded(vec![
            one(&"x".repeat(2 << 20), 0),
            one("", 3),
            one("good", 1),
        ]);
        assert_eq!((long.kept, long.invalid), (vec![one("good", 1)], 2));
    }

    proptest! {
        #[test]
        fn what_is_ordinary_comes_whole(ids in prop::collection::vec("[a-z]{1,9}", 0..20)) {
            let all: Vec<One> = ids.iter().map(|id| one(id, 2)).collect();
            prop_assert_eq!(decoded(all.clone()).kept, all);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Elements::<One>::decode(bytes.as_slice());
        }
    }
}
