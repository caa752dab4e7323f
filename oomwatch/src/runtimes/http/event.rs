//! The events of a daemon, and the containers that changed and still have to be passed on. Pure.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::{HttpError, Labels};
use crate::containers::names::is_runtimes_id;

/// Containers that wait at most. Beyond this the source gives up the connection and lists all containers again.
pub(super) const MAX_PENDING: usize = 16_384;
/// Longest name or image, in bytes, that an event may keep while its container waits.
const MAX_TOLD_BYTES: usize = 512;

/// The meaning of an event for its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtimes) enum Change {
    /// There is something to ask for.
    New,
    /// It was removed.
    Gone,
}

/// The details of a container in its event. A removed container has no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::runtimes) struct Told {
    pub(in crate::runtimes) name: Option<String>,
    pub(in crate::runtimes) image: Option<String>,
    /// The labels, and further attributes that the daemon mixes with them.
    #[serde(flatten)]
    pub(in crate::runtimes) labels: Labels,
}

/// Attributes of an event that are no labels of its container.
const NO_LABELS: &[&str] = &[
    "containerExitCode",
    "exitCode",
    "oldName",
    "podId",
    "signal",
];

/// An event of a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) action: String,
    pub(super) told: Told,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(rename = "Type")]
    kind: Option<String>,
    action: Option<String>,
    actor: Option<Actor>,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "Attributes")]
    attributes: Option<Told>,
}

impl Event {
    /// Reads a line. `None` if the line is no event of a container.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, HttpError> {
        let message: Message = serde_json::from_slice(line)?;
        let of_container = message.kind.as_deref() == Some("container");
        let (Some(action), Some(actor)) = (message.action, message.actor) else {
            return Ok(None);
        };
        let Some(id) = actor.id.filter(|id| of_container && is_runtimes_id(id)) else {
            return Ok(None);
        };
        let mut told = actor.attributes.unwrap_or_default();
        told.labels
            .0
            .retain(|name, _| !NO_LABELS.contains(&name.as_str()));
        Ok(Some(Self { id, action, told }))
    }
}

/// What happened to a container since the source last passed it on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The details in the last event that added or changed the container.
    pub(super) new: Option<Told>,
    /// The last event removed the container.
    pub(super) gone: bool,
}

/// The containers that changed, each once. The one that waits longest comes first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    order: VecDeque<String>,
    changes: HashMap<String, Changes>,
}

impl Pending {
    pub(super) fn add(&mut self, id: String, change: Change, told: Told) -> Result<(), HttpError> {
        if !self.changes.contains_key(&id) {
            if self.order.len() >= MAX_PENDING {
                let limit = MAX_PENDING;
                return Err(HttpError::Behind { limit });
            }
            self.order.push_back(id.clone());
        }
        let changes = self.changes.entry(id).or_default();
        changes.gone = change == Change::Gone;
        if change == Change::New {
            changes.new = Some(Told {
                name: short(told.name),
                image: short(told.image),
                // Labels may be long. Only the event itself passes them on.
                labels: Labels::default(),
            });
        }
        Ok(())
    }

    /// Adds a container that no event named, to ask the daemon for it. Without room it is left to the listing.
    pub(super) fn ask(&mut self, id: String) {
        if self.has_room() && !self.changes.contains_key(&id) {
            self.order.push_back(id.clone());
            self.changes.insert(id, Changes::default());
        }
    }

    /// Whether another container that no event named may wait.
    pub(super) fn has_room(&self) -> bool {
        self.order.len() < MAX_PENDING
    }

    /// The next container that nobody is busy with.
    pub(super) fn next(&mut self, is_busy: impl Fn(&str) -> bool) -> Option<(String, Changes)> {
        let free = self.order.iter().position(|id| !is_busy(id))?;
        let id = self.order.remove(free)?;
        let changes = self.changes.remove(&id)?;
        Some((id, changes))
    }
}

fn short(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= MAX_TOLD_BYTES)
}
