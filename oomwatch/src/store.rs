//! The store: events, and the ledgers, in an SQLite file under the state directory.
//!
//! One transaction holds the events of a batch and the ledgers that they changed. So the history and the ledgers
//! agree at every moment, also after `kill -9`. A lost transaction is missing in the ledgers too, and its kills
//! become `counter_only` after the restart. [`open`] reads what an earlier run left. After that only the writer's
//! thread writes the file. A damaged file is moved aside; a file of a newer version is left alone. Publishers that
//! must miss nothing read the stored events, as their [`outbox`]. Never touches the engine, the ring or a cgroup.
//!
//! [`open`]: Store::open_in_time

#[cfg(not(feature = "store"))]
mod absent;
#[cfg(feature = "store")]
mod age;
#[cfg(feature = "store")]
mod cursors;
#[cfg(feature = "store")]
mod database;
#[cfg(feature = "store")]
mod error;
#[cfg(feature = "store")]
mod files;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(feature = "store")]
mod handle;
#[cfg(feature = "store")]
pub(crate) mod history;
#[cfg(feature = "store")]
pub(crate) mod outbox;
#[cfg(feature = "store")]
mod retention;
#[cfg(feature = "store")]
mod schema;
#[cfg(feature = "store")]
mod writer;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

#[cfg(not(feature = "store"))]
pub(crate) use self::absent::{Store, outbox};
#[cfg(feature = "store")]
pub use self::error::StoreError;
#[cfg(feature = "store")]
pub(crate) use self::handle::Store;
use crate::{
    containers::identity::Word,
    event::OomEvent,
    id::CgroupId,
    ledger::{Change, Ledger},
};

/// Events that wait at most while the store's thread writes a batch. The history loses further events, and counts
/// them.
pub const STORE_QUEUE: usize = 4096;
/// Where the store is, and how much it keeps.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) dir: PathBuf,
    pub(crate) limits: Limits,
    /// Names of the publishers that read the outbox.
    pub(crate) publishers: Vec<Arc<str>>,
}

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_age: Duration,
    pub(crate) max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 64 << 20,
        }
    }
}

/// The data that an earlier run of this boot left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// All ledgers; `None` where the store has none to continue with.
    pub(crate) ledgers: Option<Vec<(CgroupId, Ledger)>>,
    pub(crate) by_hand: Vec<(CgroupId, Word)>,
    /// Numbers of the node by name; of this boot too.
    pub(crate) meta: HashMap<String, u64>,
    /// Events that are in the ledgers and were not published.
    pub(crate) pending: Vec<OomEvent>,
    /// The last published events: more threads of their victims may be marked.
    pub(crate) recent: Vec<OomEvent>,
    /// How far pinned rings are in the store: the id of each ring, and its position in bytes.
    pub(crate) rings: Vec<(u32, u64)>,
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<OomEvent>>,
    /// Ledgers and registrations are complete: stored ones that are not among them go.
    pub(crate) is_whole: bool,
    pub(crate) ledgers: Vec<Change>,
    pub(crate) registrations: Vec<(CgroupId, Option<Word>)>,
    pub(crate) meta: Vec<(&'static str, u64)>,
    /// Events that are in these ledgers and wait to be published. `gone` has the numbers of those that no longer
    /// wait.
    pub(crate) pending: Vec<Arc<OomEvent>>,
    pub(crate) gone: Vec<u64>,
    /// As [`Saved::rings`]; empty where none is pinned.
    pub(crate) rings: Vec<(u32, u64)>,
}

impl Batch {
    /// Whether writing it would change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_whole
            && self.events.is_empty()
            && self.ledgers.is_empty()
            && self.registrations.is_empty()
            && self.meta.is_empty()
            && self.pending.is_empty()
            && self.gone.is_empty()
    }
}

#[cfg(test)]
mod tests;
