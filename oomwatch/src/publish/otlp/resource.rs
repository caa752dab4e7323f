//! Who sends: this host, and this run of oomwatch.

use std::fs;

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};

use super::export;

const MACHINE_ID: &str = "/etc/machine-id";
/// A new one for each reader.
const UUID: &str = "/proc/sys/kernel/random/uuid";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// The attributes of the sender.
#[derive(Debug)]
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// Reads this host's description of itself. Unknown parts are left out.
    pub(super) fn of_this_host() -> Self {
        let system = rustix::system::uname();
        let host = crate::id::printable(system.nodename().to_bytes());
        let known = [
            ("service.name", Some("oomwatch".to_owned())),
            (
                "service.version",
                Some(env!("CARGO_PKG_VERSION").to_owned()),
            ),
            ("service.instance.id", line(UUID)),
            ("host.name", Some(host)),
            ("host.id", line(MACHINE_ID)),
        ];
        let known = known.into_iter();
        Self(
            known
                .filter_map(|(key, value)| Some(KeyValue::new(key, value?)))
                .collect(),
        )
    }

    pub(super) fn set_node(&mut self, node: &str) {
        let node = crate::id::printable(node.as_bytes());
        self.0.push(KeyValue::new("k8s.node.name", node));
    }

    /// Adds the attributes of the environment, which win.
    pub(super) fn build(&self) -> Resource {
        let name = export::env(SERVICE_NAME);
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(self.0.iter().cloned())
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(name.map(|name| KeyValue::new("service.name", name)))
            .build()
    }
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
