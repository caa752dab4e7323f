//! An event as an entry of the journal, in the bytes of its native protocol. Pure.

use super::JOURNAL_MESSAGE_ID;
use crate::{
    event::{Kind, OomEvent},
    id::printable,
};

/// `err`: somebody lost a process.
const KILLED: &str = "3";
/// `info`: a task that was dying already.
const EXITING: &str = "6";

/// The entry: one field after the other, unknown ones left out.
pub(super) fn entry(event: &OomEvent) -> Vec<u8> {
    let mut entry = Entry(Vec::with_capacity(2048));
    entry.add("MESSAGE", &event.to_text(false));
    entry.add("MESSAGE_ID", JOURNAL_MESSAGE_ID);
    entry.add(
        "PRIORITY",
        match event.kind {
            Kind::Kill | Kind::CounterOnly => KILLED,
            Kind::AlreadyExiting => EXITING,
        },
    );
    entry.add("SYSLOG_IDENTIFIER", "oomwatch");
    entry.add("OOMWATCH_EVENT_ID", &event.id);
    entry.add("OOMWATCH_KIND", event.kind.as_str());
    entry.number("OOMWATCH_COUNT", Some(event.count));
    entry.number("OOMWATCH_SUPERSEDES", event.supersedes);
    entry.add(
        "OOMWATCH_WHILE_DOWN",
        if event.while_down { "1" } else { "0" },
    );
    entry.add("OOMWATCH_SCOPE", event.scope.as_str());
    entry.add("OOMWATCH_CONSTRAINT", event.constraint.as_str());
    add_container(&mut entry, event);
    add_tasks(&mut entry, event);
    entry.text("OOMWATCH_LIMIT_PATH", event.limit.path.as_deref());
    entry.number("OOMWATCH_LIMIT_BYTES", event.limit.max_bytes);
    entry.number("OOMWATCH_USAGE_BYTES", event.limit.usage_bytes);
    entry.add("OOMWATCH_TIER", event.quality.tier.as_str());
    entry.add("OOMWATCH_ATTRIBUTION", event.quality.attribution.as_str());
    entry.0
}

fn add_container(entry: &mut Entry, event: &OomEvent) {
    let Some(container) = &event.container else {
        return;
    };
    let details = &container.details;
    entry.add("OOMWATCH_CONTAINER_ID", container.id.as_str());
    entry.add("OOMWATCH_IDENTITY", container.identity.as_str());
    entry.text("OOMWATCH_REALM", details.realm.as_deref());
    entry.text("OOMWATCH_CONTAINER", details.name.as_deref());
    entry.text("OOMWATCH_NAMESPACE", details.namespace.as_deref());
    entry.text("OOMWATCH_POD", details.pod.as_deref());
    entry.text("OOMWATCH_POD_UID", details.pod_uid.as_deref());
}

fn add_tasks(entry: &mut Entry, event: &OomEvent) {
    let (victim, trigger) = (&event.victim, &event.trigger);
    entry.number("OOMWATCH_VICTIM_PID", victim.pid.map(u64::from));
    entry.number("OOMWATCH_VICTIM_UID", victim.uid.map(u64::from));
    entry.text("OOMWATCH_VICTIM_COMM", victim.comm.as_deref());
    entry.text("OOMWATCH_VICTIM_CGROUP", victim.cgroup_path.as_deref());
    entry.number("OOMWATCH_TRIGGER_PID", trigger.pid.map(u64::from));
    entry.text("OOMWATCH_TRIGGER_COMM", trigger.comm.as_deref());
}

struct Entry(Vec<u8>);

impl Entry {
    /// Adds untrusted text.
    fn text(&mut self, field: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(field, &printable(value.as_bytes()));
        }
    }

    fn number(&mut self, field: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.add(field, &value.to_string());
        }
    }

    /// Writes a value with a line break by its length. No event has such a value, but a field that ends early would
    /// turn the rest of it into a field of its own.
    fn add(&mut self, field: &str, value: &str) {
        let value = value.as_bytes();
        self.0.extend_from_slice(field.as_bytes());
        if value.contains(&b'\n') {
            let length = u64::try_from(value.len()).unwrap_or(0);
            self.0.push(b'\n');
            self.0.extend_from_slice(&length.to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_line_break_is_told_by_its_length() {
        let mut entry = Entry(Vec::new());
        entry.add("A", "one=1");
        entry.add("B", "two\nC=3");
        entry.number("D", Some(4));
        entry.number("E", None);
        let expected = b"A=one=1\nB\n\x07\0\0\0\0\0\0\0two\nC=3\nD=4\n";
        assert_eq!(entry.0, expected);
    }
}
