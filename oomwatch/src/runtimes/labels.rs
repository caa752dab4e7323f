//! Labels of runtimes and engines, for details of a container that their interfaces have no fields for. Pure.

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

#[cfg(test)]
mod tests {
    use super::*;

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
