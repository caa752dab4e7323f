//! An event in OpenTelemetry's words: a log record. Pure.
//!
//! Names come from the semantic conventions 1.42 where they have one. The others begin with `oomwatch.oom`. Unknown
//! fields are left out. The kernel's name of a process (`comm`) is `process.title`. For `process.executable.name` the
//! conventions want the name of the file, and a dead process no longer has one to read.

use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord, Severity};

use crate::{containers::container::Container, event::OomEvent, id::printable};

/// Name of the record's event.
pub(super) const EVENT_NAME: &str = "oomwatch.oom.kill";

/// Fills an empty record.
pub(super) fn fill(record: &mut impl LogRecord, event: &OomEvent) {
    record.set_event_name(EVENT_NAME);
    record.set_severity_number(Severity::Error);
    record.set_severity_text("ERROR");
    if let Some(time) = time(event.unix_time_ns) {
        record.set_timestamp(time);
    }
    record.set_body(event.to_text(false).into());
    let mut attributes = Attributes(Vec::new());
    attributes.event(event);
    attributes.processes(event);
    attributes.limit(event);
    if let Some(container) = &event.container {
        attributes.container(container);
    }
    record.add_attributes(attributes.0);
}

/// The time as the SDK has it. No kill is from before 1970.
fn time(unix_time_ns: i128) -> Option<SystemTime> {
    let since_1970 = Duration::from_nanos(u64::try_from(unix_time_ns).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

struct Attributes(Vec<(&'static str, AnyValue)>);

impl Attributes {
    fn event(&mut self, event: &OomEvent) {
        self.text("oomwatch.oom.event.id", Some(&event.id));
        self.text("oomwatch.oom.kind", Some(event.kind.as_str()));
        self.number("oomwatch.oom.count", Some(event.count));
        self.number("oomwatch.oom.supersedes", event.supersedes);
        self.flag("oomwatch.oom.while_down", event.while_down);
        let evidence = event.evidence.iter().map(|found| found.as_str());
        self.texts("oomwatch.oom.evidence", evidence);
        self.text("oomwatch.oom.scope", Some(event.scope.as_str()));
        self.text("oomwatch.oom.constraint", Some(event.constraint.as_str()));
        let attribution = event.quality.attribution.as_str();
        self.text("oomwatch.oom.attribution", Some(attribution));
        self.text("oomwatch.oom.tier", Some(event.quality.tier.as_str()));
        if let Some(group) = event.group {
            self.number("oomwatch.oom.group.invocation", Some(group.invocation));
            self.number("oomwatch.oom.group.index", Some(group.index));
            self.number("oomwatch.oom.group.size", group.size);
        }
    }

    fn processes(&mut self, event: &OomEvent) {
        let (victim, trigger) = (&event.victim, &event.trigger);
        self.number("process.pid", victim.pid);
        self.text("process.title", victim.comm.as_deref());
        self.number("oomwatch.oom.victim.uid", victim.uid);
        self.text("oomwatch.oom.victim.cgroup", victim.cgroup_path.as_deref());
        self.number("oomwatch.oom.victim.anon_bytes", victim.anon_rss_bytes);
        self.number("oomwatch.oom.victim.file_bytes", victim.file_rss_bytes);
        self.number("oomwatch.oom.victim.shmem_bytes", victim.shmem_rss_bytes);
        self.number("oomwatch.oom.trigger.pid", trigger.pid);
        self.text("oomwatch.oom.trigger.comm", trigger.comm.as_deref());
    }

    fn limit(&mut self, event: &OomEvent) {
        self.number("oomwatch.oom.limit_bytes", event.limit.max_bytes);
        self.number("oomwatch.oom.usage_bytes", event.limit.usage_bytes);
        self.text("oomwatch.oom.limit.cgroup", event.limit.path.as_deref());
    }

    fn container(&mut self, container: &Container) {
        let details = &container.details;
        self.text("container.id", Some(container.id.as_str()));
        self.text(
            "oomwatch.container.identity",
            Some(container.identity.as_str()),
        );
        self.text("oomwatch.container.realm", details.realm.as_deref());
        self.text("container.name", details.name.as_deref());
        self.text("container.runtime.name", details.runtime.as_deref());
        match details.image.as_deref() {
            Some(id) if id.starts_with("sha256:") => self.text("container.image.id", Some(id)),
            Some(image) => {
                let (name, tag) = image_name(image);
                self.text("container.image.name", Some(name));
                self.texts("container.image.tags", tag.into_iter());
            }
            None => {}
        }
        // A path may give the pod's uid, and no more.
        self.text("k8s.pod.uid", details.pod_uid.as_deref());
        let Some(pod) = &details.pod else {
            return;
        };
        self.text("k8s.pod.name", Some(pod));
        self.text("k8s.namespace.name", details.namespace.as_deref());
        self.text("k8s.container.name", details.name.as_deref());
        self.number("k8s.container.restart_count", details.attempt);
    }

    fn text(&mut self, name: &'static str, value: Option<&str>) {
        self.0.extend(value.map(|value| (name, text(value))));
    }

    fn texts<'a>(&mut self, name: &'static str, values: impl Iterator<Item = &'a str>) {
        let values: Vec<_> = values.map(text).collect();
        if !values.is_empty() {
            self.0.push((name, AnyValue::ListAny(Box::new(values))));
        }
    }

    fn number(&mut self, name: &'static str, value: Option<impl Into<u64>>) {
        let value = value.map(|value| i64::try_from(value.into()).unwrap_or(i64::MAX));
        self.0.extend(value.map(|value| (name, value.into())));
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.0.push((name, AnyValue::Boolean(value)));
    }
}

/// Untrusted text.
fn text(value: &str) -> AnyValue {
    printable(value.as_bytes()).into()
}

/// The name of an image without its tag, and the tag. A digest is neither.
pub(super) fn image_name(image: &str) -> (&str, Option<&str>) {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        // A registry's port is followed by a path.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, None),
    }
}
