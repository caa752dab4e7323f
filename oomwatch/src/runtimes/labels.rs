//! Labels of runtimes and engines, for details of a container that their interfaces have no fields for. And how they
//! write an image's name. Pure.

use std::collections::BTreeMap;

use crate::containers::container::ContainerDetails;

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The value of a label that is not empty.
pub(super) fn label(labels: &BTreeMap<String, String>, name: &str) -> Option<String> {
    labels.get(name).filter(|value| !value.is_empty()).cloned()
}

/// The details in the kubelet's labels, and the labels themselves.
pub(super) fn details(labels: BTreeMap<String, String>) -> ContainerDetails {
    ContainerDetails {
        name: label(&labels, CONTAINER_NAME),
        pod: label(&labels, POD_NAME),
        pod_uid: label(&labels, POD_UID),
        namespace: label(&labels, POD_NAMESPACE),
        labels,
        ..ContainerDetails::default()
    }
}

/// The image as people name it: without a digest. `None` for a digest alone.
pub(super) fn tag(image: String) -> Option<String> {
    let is_name = !image.is_empty() && !image.starts_with("sha256:");
    let name = image.split_once('@').map(|(name, _)| name.to_owned());
    is_name.then(|| name.unwrap_or(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_no_name() {
        let tag = |image: &str| tag(image.to_owned());
        assert_eq!(tag("postgres:16").as_deref(), Some("postgres:16"));
        assert_eq!(
            tag("r:5000/db:1@sha256:8e4f").as_deref(),
            Some("r:5000/db:1")
        );
        assert_eq!(tag("db@sha256:8e4f").as_deref(), Some("db"));
        assert_eq!((tag("sha256:8e4f"), tag("")), (None, None));
    }

    #[test]
    fn the_kubelets_labels_are_names() {
        let labels = [
            (POD_NAME, "web-7d4"),
            (POD_NAMESPACE, "shop"),
            (POD_UID, "a-b-c"),
            (CONTAINER_NAME, ""),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let details = details(labels.into());
        assert_eq!(details.pod.as_deref(), Some("web-7d4"));
        assert_eq!(details.namespace.as_deref(), Some("shop"));
        assert_eq!(details.pod_uid.as_deref(), Some("a-b-c"));
        assert_eq!(details.name, None);
        assert_eq!(details.labels.len(), 4);
    }
}
