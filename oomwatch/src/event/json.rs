//! The event as JSON, schema [`SCHEMA`]: one object, one line.
//!
//! The parts of an event that are plain numbers and printable text are written as [`super`] has them: their fields
//! are the schema's, and change only by adding. The types here are the rest of the wire.

pub(crate) mod read;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{
    Attribution, Counter, Evidence, Group, Kind, Limit, OomEvent, Place, SCHEMA, Scope, Trigger,
    Victim, missing,
};
use crate::{containers::container as containers, id::printable, record::Constraint};

#[derive(Serialize)]
struct Event<'a> {
    schema: &'static str,
    id: &'a str,
    seq: u64,
    #[serde(serialize_with = "rfc3339")]
    time: i128,
    boottime_ns: u64,
    kind: &'static str,
    count: u64,
    supersedes: Option<u64>,
    while_down: bool,
    evidence: Vec<&'static str>,
    scope: &'static str,
    constraint: &'static str,
    group: Option<Group>,
    victim: &'a Victim,
    trigger: &'a Trigger,
    limit: &'a Limit,
    counter: Counter,
    container: Option<Container<'a>>,
    place: Option<&'a Place>,
    node: Option<&'a str>,
    latency: Latency,
    quality: Quality<'a>,
}

/// An event with its line for a person at the end.
#[derive(Serialize)]
struct WithText<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    text: &'a str,
}

#[derive(Serialize)]
struct Container<'a> {
    id: &'a str,
    cgroup_id: u64,
    name: Option<String>,
    runtime: Option<String>,
    image: Option<String>,
    pod: Option<String>,
    pod_uid: Option<String>,
    namespace: Option<String>,
    containerd_namespace: Option<String>,
    containerd_address: Option<String>,
    realm: Option<String>,
    attempt: Option<u32>,
    is_sandbox: Option<bool>,
    node: Option<&'a str>,
    labels: BTreeMap<String, String>,
    identity: &'static str,
    inside: Option<Box<Self>>,
}

#[derive(Serialize)]
struct Latency {
    delivered_ns: Option<u64>,
}

#[derive(Serialize)]
struct Quality<'a> {
    tier: &'static str,
    attribution: &'static str,
    identity: &'static str,
    missing: &'a [&'static str],
}

impl OomEvent {
    /// The event as one line of JSON, without a line break.
    ///
    /// Schema `oomwatch.oom/1`: sizes in bytes, times in ns and RFC 3339, unknown is `null`,
    /// and untrusted text has no control characters in it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // The types above have string keys only and nothing that can fail.
        serde_json::to_string(&self.wire()).unwrap_or_default()
    }

    /// The same with one more member, `text`: the event as [`Self::to_text`] has it.
    pub(crate) fn to_json_with_text(&self) -> String {
        let text = self.to_text(false);
        let event = self.wire();
        serde_json::to_string(&WithText { event, text: &text }).unwrap_or_default()
    }

    fn wire(&self) -> Event<'_> {
        let missing = &self.quality.missing;
        debug_assert!(missing.iter().all(|name| missing::known(name).is_some()));
        Event {
            schema: SCHEMA,
            id: &self.id,
            seq: self.seq,
            time: self.unix_time_ns,
            boottime_ns: self.boottime_ns,
            kind: self.kind.as_str(),
            count: self.count,
            supersedes: self.supersedes,
            while_down: self.while_down,
            evidence: self.evidence.iter().map(|found| found.as_str()).collect(),
            scope: self.scope.as_str(),
            constraint: self.constraint.as_str(),
            group: self.group,
            victim: &self.victim,
            trigger: &self.trigger,
            limit: &self.limit,
            counter: self.counter,
            container: self
                .container
                .as_deref()
                .map(|found| self.wire_container(found)),
            place: self.place.as_deref(),
            node: self.node.as_deref(),
            latency: Latency {
                delivered_ns: self.delivered_ns,
            },
            quality: Quality {
                tier: self.quality.tier.as_str(),
                attribution: self.quality.attribution.as_str(),
                identity: self.identity().as_str(),
                missing,
            },
        }
    }

    fn wire_container<'a>(&'a self, container: &'a containers::Container) -> Container<'a> {
        let details = &container.details;
        let text = |value: &Option<String>| value.as_ref().map(|value| printable(value.as_bytes()));
        Container {
            id: container.id.as_str(),
            cgroup_id: container.cgroup_id.0,
            name: text(&details.name),
            runtime: text(&details.runtime),
            image: text(&details.image),
            pod: text(&details.pod),
            pod_uid: text(&details.pod_uid),
            namespace: text(&details.namespace),
            containerd_namespace: text(&details.containerd_namespace),
            containerd_address: text(&details.containerd_address),
            realm: text(&details.realm),
            attempt: details.attempt,
            is_sandbox: details.is_sandbox,
            node: self.node.as_deref(),
            labels: details
                .labels
                .iter()
                .map(|(key, value)| (printable(key.as_bytes()), printable(value.as_bytes())))
                .collect(),
            identity: container.identity.as_str(),
            inside: container
                .inside
                .as_deref()
                .map(|outer| Box::new(self.wire_container(outer))),
        }
    }
}

/// RFC 3339 with nanoseconds, UTC.
pub(super) fn format_time(unix_time_ns: i128) -> String {
    match Timestamp::from_nanosecond(unix_time_ns) {
        Ok(time) => format!("{time:.9}"),
        // Out of jiff's years -9999 to 9999: no clock says that.
        Err(_) => unix_time_ns.to_string(),
    }
}

/// A mask of bits, as the kernel writes one: `0xcc0`.
pub(super) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        mask: &Option<u32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match mask {
            Some(mask) => serializer.collect_str(&format_args!("{mask:#x}")),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u32>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let digits = text.strip_prefix("0x");
        let mask = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        mask.map(Some)
            .ok_or_else(|| D::Error::custom("no hexadecimal mask"))
    }
}

fn rfc3339<S: Serializer>(unix_time_ns: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*unix_time_ns))
}

impl Kind {
    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::AlreadyExiting => "already_exiting",
            Self::CounterOnly => "counter_only",
        }
    }
}

impl Evidence {
    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Counter => "counter",
        }
    }
}

impl Scope {
    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Ancestor => "ancestor",
            Self::Cgroup => "cgroup",
            Self::Node => "node",
            Self::Unknown => "unknown",
        }
    }
}

impl Constraint {
    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cpuset => "cpuset",
            Self::MemoryPolicy => "memory_policy",
            Self::Memcg => "memcg",
            Self::Unknown => "unknown",
        }
    }
}

impl Attribution {
    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Ancestor => "ancestor",
            Self::Late => "late",
            Self::Unregistered => "unregistered",
        }
    }
}

#[cfg(test)]
mod tests;
