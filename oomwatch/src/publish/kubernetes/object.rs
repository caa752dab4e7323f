//! A kill as an `events.k8s.io/v1` Event within the API's bounds. Pure.
//!
//! Names of processes and containers are untrusted: they are made printable and cut to their room. The pod's names go
//! into paths and references, so they must be valid Kubernetes names.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    containers::container::Container,
    event::{Kind, OomEvent, Scope, text::Bytes},
    id::printable,
};

const REASON: &str = "ContainerProcessOOMKilled";
const ACTION: &str = "OOMKill";
const CONTROLLER: &str = "oomwatch";
/// The API's bounds, in bytes.
const MAX_NOTE: usize = 1024;
const MAX_INSTANCE: usize = 128;
const MAX_NAME: usize = 253;
const MAX_NAMESPACE: usize = 63;
/// Bytes of one name in a note: several find room.
const MAX_WORD: usize = 128;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Option<String>,
}

impl Pod {
    /// The pod that a kill was in. `None` if the event is no kill, or in no pod.
    pub(super) fn killed_in(event: &OomEvent) -> Option<Self> {
        let container = event.answerable();
        container
            .filter(|_| event.kind != Kind::AlreadyExiting)
            .and_then(|container| Self::of(container))
    }

    /// The container's pod, if it is one of Kubernetes.
    fn of(container: &Container) -> Option<Self> {
        let details = &container.details;
        let namespace = details.namespace.as_deref()?;
        let name = details.pod.as_deref()?;
        let is_namespace = is_name(namespace, MAX_NAMESPACE) && !namespace.contains('.');
        if !is_namespace || !is_name(name, MAX_NAME) {
            return None;
        }
        let uid = details.pod_uid.as_deref();
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.map(word),
        })
    }
}

/// Whether a text is a DNS subdomain as Kubernetes wants it.
fn is_name(text: &str, max_bytes: usize) -> bool {
    text.len() <= max_bytes && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut ends = [bytes.first(), bytes.last()].into_iter();
    ends.all(|end| end.is_some_and(is_letter))
        && bytes.iter().all(|byte| is_letter(byte) || *byte == b'-')
}

/// A kill in a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kill {
    pub(super) pod: Pod,
    pub(super) unix_ns: i128,
    pub(super) boottime_ns: u64,
    /// The group kill that it is a part of.
    pub(super) group: Option<u64>,
    /// The name of its container; `None` for a sandbox, which the pod does not list.
    pub(super) container: Option<String>,
    id: String,
    note: String,
    node: Option<String>,
}

impl Kill {
    /// The kill in an event. `None` if the event is no kill, or in no pod.
    pub(super) fn of(event: &OomEvent) -> Option<Self> {
        let details = &event.answerable()?.details;
        let is_sandbox = details.is_sandbox == Some(true);
        Some(Self {
            pod: Pod::killed_in(event)?,
            unix_ns: event.unix_time_ns,
            boottime_ns: event.boottime_ns,
            group: event.group.map(|group| group.invocation),
            id: event.id.clone(),
            container: details.name.clone().filter(|_| !is_sandbox),
            note: note(event),
            node: event.node.as_deref().map(str::to_owned),
        })
    }

    #[cfg(test)]
    pub(super) fn for_test(pod: &str, seq: u64) -> Self {
        Self {
            pod: Pod {
                namespace: "shop".into(),
                name: pod.into(),
                uid: None,
            },
            unix_ns: seq.into(),
            boottime_ns: seq,
            group: None,
            id: format!("boot-{seq}"),
            container: Some("web".into()),
            note: "killed".into(),
            node: None,
        }
    }
}

/// Kills that one Event reports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) count: u64,
    pub(super) first_unix_ns: i128,
    pub(super) last: Kill,
}

impl Held {
    pub(super) fn of(kill: Kill) -> Self {
        Self {
            count: 1,
            first_unix_ns: kill.unix_ns,
            last: kill,
        }
    }

    pub(super) fn and(self, kill: Kill) -> Self {
        Self {
            count: self.count.saturating_add(1),
            last: kill,
            ..self
        }
    }
}

/// The object that is created. `field` is the pod's field that has the container.
pub(super) fn event(held: &Held, field: Option<&str>) -> Value {
    let (kill, pod) = (&held.last, &held.last.pod);
    let series = (held.count > 1).then(|| {
        json!({
            "count": i32::try_from(held.count).unwrap_or(i32::MAX),
            "lastObservedTime": micro_time(kill.unix_ns),
        })
    });
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": name(kill),
            "namespace": pod.namespace,
        },
        "eventTime": micro_time(held.first_unix_ns),
        "series": series,
        "type": "Warning",
        "reason": REASON,
        "action": ACTION,
        "note": folded(held),
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "fieldPath": field,
        },
        "reportingController": CONTROLLER,
        "reportingInstance": instance(kill.node.as_deref()),
    })
}

/// The pod's name, as far as there is room, and the kill's id: the same for the same kill.
fn name(kill: &Kill) -> String {
    let id: String = kill
        .id
        .bytes()
        .map(|byte| match byte.to_ascii_lowercase() {
            byte if byte.is_ascii_alphanumeric() => char::from(byte),
            _ => '-',
        })
        .collect();
    let id = id.trim_matches('-');
    let room = MAX_NAME.saturating_sub(id.len() + 1);
    let pod = cut(&kill.pod.name, room).trim_end_matches(['-', '.']);
    format!("{pod}.{id}")
}

fn instance(node: Option<&str>) -> String {
    let instance = match node {
        Some(node) => format!("{CONTROLLER}-{}", printable(node.as_bytes())),
        None => CONTROLLER.to_owned(),
    };
    cut(&instance, MAX_INSTANCE).to_owned()
}

/// The note of the last kill, and how many there were before.
fn folded(held: &Held) -> String {
    let mut note = held.last.note.clone();
    if held.count > 1 {
        let more = held.count - 1;
        let since = micro_time(held.first_unix_ns);
        // Writing to a string does not fail.
        let _ = write!(note, "; {more} more OOM kills since {since}");
    }
    cut(&note, MAX_NOTE).to_owned()
}

/// The victim, the limit and what was in use.
fn note(event: &OomEvent) -> String {
    let mut note = String::new();
    // Writing to a string does not fail.
    let _ = write_note(&mut note, event);
    note
}

fn write_note(note: &mut String, event: &OomEvent) -> std::fmt::Result {
    if event.kind == Kind::CounterOnly {
        return write!(
            note,
            "OOM kills that only the kernel's counter tells of: {}",
            event.count
        );
    }
    note.push_str("Process ");
    write_task(note, event.victim.comm.as_deref(), event.victim.pid)?;
    note.push_str(" was OOM-killed");
    match event.group.and_then(|group| group.size) {
        Some(size) if size > 1 => write!(note, " with {} others (memory.oom.group)", size - 1)?,
        Some(_) => {}
        None if event.group.is_some() => note.push_str(" with others (memory.oom.group)"),
        None => {}
    }
    if let Some(bytes) = event.victim.anon_rss_bytes {
        write!(note, "; it had {} of anonymous memory", Bytes(bytes))?;
    }
    write!(note, "; {} was hit", whose(event.scope))?;
    if let Some(bytes) = event.limit.max_bytes {
        write!(note, ": {}", Bytes(bytes))?;
    }
    if let Some(bytes) = event.limit.usage_bytes {
        write!(note, ", {} in use", Bytes(bytes))?;
    }
    if event.trigger.pid.is_some() && event.trigger.pid != event.victim.pid {
        note.push_str(", by ");
        write_task(note, event.trigger.comm.as_deref(), event.trigger.pid)?;
    }
    Ok(())
}

fn whose(scope: Scope) -> &'static str {
    match scope {
        Scope::Container => "the container's memory limit",
        Scope::Pod => "the pod's memory limit",
        Scope::Ancestor | Scope::Cgroup => "the memory limit of a cgroup above",
        Scope::Node => "the node's memory",
        Scope::Unknown => "a memory limit",
    }
}

fn write_task(note: &mut String, comm: Option<&str>, pid: Option<u32>) -> std::fmt::Result {
    note.push_str(&word(comm.unwrap_or("?")));
    match pid {
        Some(pid) => write!(note, " (pid {pid})"),
        None => Ok(()),
    }
}

/// Untrusted text in a sentence.
fn word(text: &str) -> String {
    cut(&printable(text.as_bytes()), MAX_WORD).to_owned()
}

/// The beginning of a text, whole characters only.
fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes))
        .unwrap_or(text)
}

/// The API's `MicroTime`.
fn micro_time(unix_ns: i128) -> String {
    let time = Timestamp::from_nanosecond(unix_ns).unwrap_or(Timestamp::MAX);
    format!("{time:.6}")
}

#[cfg(test)]
mod tests;
