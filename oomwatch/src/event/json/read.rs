//! The reverse of [`super`]: an event from its own JSON, as the store gives it back.
//!
//! Reads what this version writes, so that publishing may be made up for later. A value that it does not know, such
//! as a later version's, is an error and never a guess. A field that is not there is `None`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    event::{
        Attribution, Counter, Evidence, Group, Kind, Limit, OomEvent, Place, Quality, SCHEMA,
        Scope, Trigger, Victim, missing,
    },
    id::{CgroupId, ContainerId, ContainerIdError},
    record::Constraint,
    tier::Tier,
};

/// Why a text is no event of this schema.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not JSON, or not the fields of an event. The place only: the parser's words repeat the text.
    #[error("malformed at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// In bytes, from 1.
        column: usize,
    },
    /// Another schema.
    #[error("the schema is {0:?}, and {SCHEMA:?} was expected")]
    Schema(String),
    /// A value that this version does not know.
    #[error("{word:?} is no {what}")]
    Unknown {
        /// The field whose value it is.
        what: &'static str,
        /// The value.
        word: String,
    },
    /// The container's id.
    #[error(transparent)]
    ContainerId(#[from] ContainerIdError),
}

#[derive(Deserialize)]
struct WireEvent {
    schema: String,
    id: String,
    seq: u64,
    time: String,
    boottime_ns: u64,
    kind: String,
    count: u64,
    supersedes: Option<u64>,
    while_down: bool,
    evidence: Vec<String>,
    scope: String,
    constraint: String,
    group: Option<Group>,
    victim: Victim,
    trigger: Trigger,
    limit: Limit,
    counter: Counter,
    container: Option<WireContainer>,
    place: Option<Box<Place>>,
    node: Option<String>,
    latency: WireLatency,
    quality: WireQuality,
}

#[derive(Deserialize)]
struct WireContainer {
    id: String,
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
    labels: BTreeMap<String, String>,
    /// Not in events of the first version.
    identity: Option<String>,
    inside: Option<Box<Self>>,
}

#[derive(Deserialize)]
struct WireLatency {
    delivered_ns: Option<u64>,
}

#[derive(Deserialize)]
struct WireQuality {
    tier: String,
    attribution: String,
    missing: Vec<String>,
}

impl OomEvent {
    /// The event that [`Self::to_json`] wrote down, by this version or an earlier one.
    ///
    /// # Errors
    /// When the text is no JSON, of another schema, or has a value that this version does not know.
    pub fn from_json(json: &str) -> Result<Self, ReadError> {
        let wire: WireEvent = serde_json::from_str(json).map_err(|error| ReadError::Malformed {
            line: error.line(),
            column: error.column(),
        })?;
        wire.try_into()
    }
}

impl TryFrom<WireEvent> for OomEvent {
    type Error = ReadError;

    fn try_from(wire: WireEvent) -> Result<Self, ReadError> {
        if wire.schema != SCHEMA {
            return Err(ReadError::Schema(wire.schema));
        }
        let evidence = wire.evidence.iter().map(|word| evidence(word));
        Ok(Self {
            unix_time_ns: unix_time_ns(&wire.time)?,
            kind: kind(&wire.kind)?,
            evidence: evidence.collect::<Result<_, _>>()?,
            scope: scope(&wire.scope)?,
            constraint: constraint(&wire.constraint)?,
            limit: wire.limit,
            container: wire.container.map(container).transpose()?,
            quality: wire.quality.try_into()?,
            id: wire.id,
            seq: wire.seq,
            boottime_ns: wire.boottime_ns,
            count: wire.count,
            supersedes: wire.supersedes,
            while_down: wire.while_down,
            group: wire.group,
            victim: wire.victim,
            trigger: wire.trigger,
            counter: wire.counter,
            place: wire.place,
            node: wire.node.map(Arc::from),
            delivered_ns: wire.latency.delivered_ns,
        })
    }
}

impl TryFrom<WireQuality> for Quality {
    type Error = ReadError;

    fn try_from(wire: WireQuality) -> Result<Self, ReadError> {
        let missing = wire.missing.iter().map(|word| {
            missing::known(word).ok_or_else(|| unknown("name of what is missing", word))
        });
        Ok(Self {
            tier: tier(&wire.tier)?,
            attribution: attribution(&wire.attribution)?,
            missing: missing.collect::<Result<_, _>>()?,
        })
    }
}

fn container(wire: WireContainer) -> Result<Arc<Container>, ReadError> {
    let identity = wire.identity.as_deref();
    let inside = wire.inside.map(|outer| container(*outer));
    Ok(Arc::new(Container {
        id: ContainerId::new(&wire.id)?,
        cgroup_id: CgroupId(wire.cgroup_id),
        identity: identity.map_or(Ok(Identity::Unknown), self::identity)?,
        inside: inside.transpose()?,
        details: ContainerDetails {
            name: wire.name,
            runtime: wire.runtime,
            image: wire.image,
            pod: wire.pod,
            pod_uid: wire.pod_uid,
            namespace: wire.namespace,
            containerd_namespace: wire.containerd_namespace,
            containerd_address: wire.containerd_address,
            realm: wire.realm,
            attempt: wire.attempt,
            is_sandbox: wire.is_sandbox,
            labels: wire.labels,
        },
    }))
}

fn unix_time_ns(text: &str) -> Result<i128, ReadError> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(time.as_nanosecond()),
        // A time that RFC 3339 cannot express is written as a number.
        Err(_) => text.parse().map_err(|_| unknown("time", text)),
    }
}

fn unknown(what: &'static str, word: &str) -> ReadError {
    let word = crate::id::printable(word.as_bytes());
    ReadError::Unknown { what, word }
}

fn kind(word: &str) -> Result<Kind, ReadError> {
    let all = [Kind::Kill, Kind::AlreadyExiting, Kind::CounterOnly];
    find("kind", &all, |kind| kind.as_str(), word)
}

fn evidence(word: &str) -> Result<Evidence, ReadError> {
    let all = [Evidence::Tracepoint, Evidence::Counter];
    find("evidence", &all, |evidence| evidence.as_str(), word)
}

fn scope(word: &str) -> Result<Scope, ReadError> {
    use Scope::{Ancestor, Cgroup, Container, Node, Pod, Unknown};
    let all = [Container, Pod, Ancestor, Cgroup, Node, Unknown];
    find("scope", &all, |scope| scope.as_str(), word)
}

fn constraint(word: &str) -> Result<Constraint, ReadError> {
    use Constraint::{Cpuset, Memcg, MemoryPolicy, None, Unknown};
    let all = [None, Cpuset, MemoryPolicy, Memcg, Unknown];
    find("constraint", &all, |constraint| constraint.as_str(), word)
}

fn attribution(word: &str) -> Result<Attribution, ReadError> {
    use Attribution::{Ancestor, Exact, Late, Unregistered};
    let all = [Exact, Ancestor, Late, Unregistered];
    find("attribution", &all, |found| found.as_str(), word)
}

fn identity(word: &str) -> Result<Identity, ReadError> {
    use Identity::{Claimed, Manual, Path, Runtime, Unit, Unknown};
    let all = [Runtime, Path, Manual, Unit, Claimed, Unknown];
    find("identity", &all, |identity| identity.as_str(), word)
}

fn tier(word: &str) -> Result<Tier, ReadError> {
    let all = [Tier::Btf, Tier::BtfPid, Tier::Pid, Tier::Counters];
    find("tier", &all, |tier| tier.as_str(), word)
}

fn find<T: Copy>(
    what: &'static str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    word: &str,
) -> Result<T, ReadError> {
    let found = all.iter().copied().find(|&one| name(one) == word);
    found.ok_or_else(|| unknown(what, word))
}

#[cfg(test)]
mod tests;
