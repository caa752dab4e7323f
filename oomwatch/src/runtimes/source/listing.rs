//! What a listing brings. A runtime may list anything: without bounds, a few MiB of text would take ten times the
//! memory. Pure.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexSet;

use super::Seen;
use crate::{
    containers::{
        container::ContainerDetails,
        sighting::{Realm, RuntimeKey},
    },
    id::ContainerId,
};

/// Containers of a listing at most: three times as many as the largest hosts have. The others stay without a name.
pub(crate) const MAX_LISTED: usize = 16_384;
/// Labels of one container at most.
const MAX_LABELS: usize = 256;
/// Labels of all containers of a listing at most.
const MAX_LISTED_LABELS: usize = 131_072;
/// Bytes of all names and labels of a listing at most.
const MAX_LISTED_BYTES: usize = 16 << 20;

/// Bytes of a container's names and labels at most, while it waits for the watcher. The watcher keeps some 8 kB.
const MAX_CONTAINER_BYTES: usize = 64 << 10;

/// The containers of a listing so far, and what was left out.
#[derive(Debug)]
pub(crate) struct Listing {
    /// In the listing's order.
    known: IndexSet<RuntimeKey, DefaultHashBuilder>,
    bytes_left: usize,
    labels_left: usize,
    pub(super) left_out: LeftOut,
}

/// How much of a listing was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Elements that are no containers.
    pub(super) invalid: usize,
    /// Containers that were listed before.
    pub(super) repeated: usize,
    /// Containers beyond the most.
    pub(super) surplus: usize,
    /// Containers whose names or labels found no room.
    pub(super) stripped: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            known: IndexSet::default(),
            bytes_left: MAX_LISTED_BYTES,
            labels_left: MAX_LISTED_LABELS,
            left_out: LeftOut::default(),
        }
    }
}

impl Listing {
    /// Counts elements that are no containers.
    pub(crate) fn skip(&mut self, invalid: usize) {
        self.left_out.invalid += invalid;
    }

    /// Counts containers beyond the most.
    pub(crate) fn cut(&mut self, surplus: usize) {
        self.left_out.surplus += surplus;
    }

    /// Whether a container counts. Takes away the names and labels for which there is no room.
    pub(super) fn admit(&mut self, realm: &Realm, seen: &mut Seen) -> bool {
        if ContainerId::check(&seen.id).is_err() {
            self.left_out.invalid += 1;
            return false;
        }
        let key = super::key(realm, seen.id.clone());
        if self.known.len() >= MAX_LISTED && !self.known.contains(&key) {
            self.left_out.surplus += 1;
            return false;
        }
        let is_new = self.known.insert(key);
        if is_new {
            self.bound(seen);
        } else {
            self.left_out.repeated += 1;
        }
        is_new
    }

    /// Whether the listing has this container.
    pub(super) fn has(&self, key: &RuntimeKey) -> bool {
        self.known.contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    fn bound(&mut self, seen: &mut Seen) {
        let labels = seen.details.labels.len();
        if labels > MAX_LABELS || labels > self.labels_left {
            seen.details.labels.clear();
            self.left_out.stripped += 1;
        }
        self.labels_left -= seen.details.labels.len();
        match self.bytes_left.checked_sub(fit(&mut seen.details)) {
            Some(left) => self.bytes_left = left,
            None => {
                seen.details = ContainerDetails::default();
                self.left_out.stripped += 1;
            }
        }
    }

    /// The containers, in the listing's order.
    pub(super) fn into_keys(self) -> Vec<RuntimeKey> {
        self.known.into_iter().collect()
    }
}

impl LeftOut {
    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }
}

/// Takes away what is too long to wait for the watcher: the labels, or all. Returns the bytes of the rest.
pub(super) fn fit(details: &mut ContainerDetails) -> usize {
    let mut size = bytes(details);
    if size > MAX_CONTAINER_BYTES {
        details.labels.clear();
        size = bytes(details);
    }
    if size > MAX_CONTAINER_BYTES {
        *details = ContainerDetails::default();
        size = 0;
    }
    size
}

/// Bytes of the text in a container's details.
fn bytes(details: &ContainerDetails) -> usize {
    let names = [
        &details.name,
        &details.runtime,
        &details.image,
        &details.pod,
        &details.pod_uid,
        &details.namespace,
    ];
    let names = names.into_iter().flatten().map(String::len);
    let labels = details.labels.iter();
    let labels = labels.map(|(key, value)| key.len() + value.len());
    names.chain(labels).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::sighting::RuntimeApi;

    fn admitted(listing: &mut Listing, seen: &mut Seen) -> bool {
        listing.admit(&Realm::of(RuntimeApi::Cri), seen)
    }

    fn seen(id: &str, labels: usize, length: usize) -> Seen {
        let label = |number: usize| (number.to_string(), "x".repeat(length));
        Seen {
            id: id.to_owned(),
            details: ContainerDetails {
                labels: (0..labels).map(label).collect(),
                ..ContainerDetails::default()
            },
            ..Seen::default()
        }
    }

    #[test]
    fn what_is_no_container_or_comes_again_is_counted() {
        let mut listing = Listing::default();
        assert!(admitted(&mut listing, &mut seen("b", 0, 0)));
        assert!(admitted(&mut listing, &mut seen("a", 0, 0)));
        for id in ["", "a\n", "a", "b"] {
            assert!(!admitted(&mut listing, &mut seen(id, 0, 0)));
        }
        let counted = LeftOut {
            invalid: 2,
            repeated: 2,
            ..LeftOut::default()
        };
        assert_eq!(listing.left_out, counted);
        let ids: Vec<_> = listing.into_keys().into_iter().map(|key| key.id).collect();
        assert_eq!(ids, ["b", "a"]);
    }

    #[test]
    fn a_container_alone_is_bounded_too() {
        let mut labelled = seen("a", 2, MAX_CONTAINER_BYTES).details;
        labelled.name = Some("web".to_owned());
        fit(&mut labelled);
        assert_eq!(
            (labelled.name.as_deref(), labelled.labels.len()),
            (Some("web"), 0)
        );
        labelled.name = Some("x".repeat(MAX_CONTAINER_BYTES + 1));
        fit(&mut labelled);
        assert_eq!(labelled, ContainerDetails::default());
    }

    #[test]
    fn containers_labels_and_text_are_bounded() {
        let mut listing = Listing::default();
        for number in 0..MAX_LISTED + 3 {
            let mut one = seen(&number.to_string(), 16, 2);
            admitted(&mut listing, &mut one);
        }
        let stripped = MAX_LISTED - MAX_LISTED_LABELS / 16;
        let counted = LeftOut {
            surplus: 3,
            stripped,
            ..LeftOut::default()
        };
        assert_eq!(listing.left_out, counted);

        let mut listing = Listing::default();
        let mut many = seen("many", MAX_LABELS + 1, 1);
        assert!(admitted(&mut listing, &mut many) && many.details.labels.is_empty());
        let mut long = seen("long", 1, MAX_LISTED_BYTES);
        assert!(admitted(&mut listing, &mut long) && long.details.labels.is_empty());
        let mut fits = seen("fits", 1, 100);
        assert!(admitted(&mut listing, &mut fits) && fits.details.labels.len() == 1);
    }
}
