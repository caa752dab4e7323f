//! A container's labels: who it is, as printable text. Pure.

use crate::{containers::container::Container, id::printable};

/// Labels as they are written.
pub(super) type Pairs<'a, const N: usize> = [(&'static str, &'a str); N];

/// The labels of every series of a container. The id is among them, so no two containers share a series.
#[derive(Debug)]
pub(super) struct Labels {
    namespace: String,
    pod: String,
    container: String,
    container_id: String,
}

impl Labels {
    /// Of several containers with one id, each has its key in the place of the id.
    pub(super) fn of(container: &Container, is_unique: bool) -> Self {
        let key = container.key().filter(|_| !is_unique);
        let id = key.unwrap_or_else(|| container.id.as_str().to_owned());
        let details = &container.details;
        Self {
            namespace: text(details.namespace.as_deref()),
            pod: text(details.pod.as_deref()),
            container: text(details.name.as_deref()),
            container_id: printable(id.as_bytes()),
        }
    }

    pub(super) fn pairs(&self) -> Pairs<'_, 4> {
        [
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("container", &self.container),
            ("container_id", &self.container_id),
        ]
    }

    /// The labels of cadvisor's `container_oom_events_total`. Under Kubernetes its `name` is the container's id.
    /// Otherwise it is the name that a person gave.
    pub(super) fn cadvisor<'a>(&'a self, path: &'a str, image: &'a str) -> Pairs<'a, 6> {
        let by_id = !self.pod.is_empty() || self.container.is_empty();
        let name = if by_id {
            &self.container_id
        } else {
            &self.container
        };
        [
            ("id", path),
            ("name", name),
            ("image", image),
            ("container", &self.container),
            ("pod", &self.pod),
            ("namespace", &self.namespace),
        ]
    }
}

/// Untrusted text as a label's value. An unknown value is empty, and Prometheus treats that as no label.
pub(super) fn text(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| printable(value.as_bytes()))
}
