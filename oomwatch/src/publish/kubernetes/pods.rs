//! The containers that pods have, as the API server tells: regular, init and ephemeral ones. Pure.
//!
//! A node's runtime knows a container's name, but not which of the three it is. A name that is not in the pod names
//! nothing: sandboxes, and containers of another pod with that name.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;

/// Pods of a namespace that are remembered. Beyond that the oldest one is forgotten.
const MAX_PODS: usize = 32;
/// Containers of a pod that are remembered, and bytes of a name: the API's own bound.
const MAX_CONTAINERS: usize = 64;
const MAX_NAME: usize = 63;
/// How long a pod is taken to lack a container. An ephemeral one may come any time, and a failure may pass.
const RECHECK: Duration = Duration::from_secs(10);

/// As much of a Pod as is needed.
#[derive(Debug, Deserialize)]
pub(super) struct PodObject {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    uid: String,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    /// The UID that the kubelet and runtimes have for a static pod. The API server's copy of the pod, its mirror, has
    /// another one (`pkg/kubelet/types`, `ConfigMirrorAnnotationKey`).
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    containers: Option<Vec<Named>>,
    #[serde(default)]
    init_containers: Option<Vec<Named>>,
    #[serde(default)]
    ephemeral_containers: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// The name of a container, and the list of its pod that it is in.
type Container = (String, &'static str);

impl PodObject {
    /// The pod's containers, if it is the pod with this UID.
    pub(super) fn containers_of(self, uid: &str) -> Option<Vec<Container>> {
        let Metadata {
            uid: own,
            annotations,
        } = self.metadata;
        let mirror = annotations.and_then(|annotations| annotations.mirror);
        if own != uid && mirror.as_deref() != Some(uid) {
            return None;
        }
        let spec = self.spec;
        let lists = [
            (spec.containers, "containers"),
            (spec.init_containers, "initContainers"),
            (spec.ephemeral_containers, "ephemeralContainers"),
        ];
        let all = lists.into_iter().flat_map(|(list, field)| {
            let named = list.unwrap_or_default().into_iter();
            named.map(move |container| (container.name, field))
        });
        let valid = all.filter(|(name, _)| name.len() <= MAX_NAME);
        Some(valid.take(MAX_CONTAINERS).collect())
    }
}

#[derive(Debug)]
struct Known {
    containers: Vec<Container>,
    since: Instant,
}

/// Pods by UID.
#[derive(Debug, Default)]
pub(super) struct Pods(HashMap<String, Known>);

impl Pods {
    /// Whether the pod is known to have this container, or was found to lack it just now.
    pub(super) fn knows(&self, uid: &str, container: &str, now: Instant) -> bool {
        self.0
            .get(uid)
            .is_some_and(|known| known.field_of(container).is_some() || now < known.since + RECHECK)
    }

    /// Remembers a pod's containers: none, if it cannot be read.
    pub(super) fn learn(&mut self, uid: &str, containers: Vec<Container>, now: Instant) {
        if self.0.len() >= MAX_PODS && !self.0.contains_key(uid) {
            self.forget_oldest();
        }
        let known = Known {
            containers,
            since: now,
        };
        self.0.insert(uid.to_owned(), known);
    }

    /// The container in its pod, such as `spec.initContainers{init-db}`.
    pub(super) fn field_path(&self, uid: &str, container: &str) -> Option<String> {
        let field = self.0.get(uid)?.field_of(container)?;
        Some(format!("spec.{field}{{{container}}}"))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, known)| known.since);
        if let Some(uid) = oldest.map(|(uid, _)| uid.clone()) {
            self.0.remove(&uid);
        }
    }
}

impl Known {
    fn field_of(&self, container: &str) -> Option<&'static str> {
        let mut all = self.containers.iter();
        all.find(|(name, _)| name == container)
            .map(|(_, field)| *field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "11111111-3b52-4a7e-9d0f-5e1b2c3d4e5f";
    const STATIC: &str = "8f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7f";

    fn containers(json: &str, uid: &str) -> Option<Vec<Container>> {
        let pod: PodObject = serde_json::from_str(json).unwrap();
        pod.containers_of(uid)
    }

    #[test]
    fn each_list_of_the_pod_has_its_field() {
        let json = format!(
            r#"{{"kind":"Pod","metadata":{{"name":"shop-0","uid":"{UID}","annotations":{{"a":"b"}}}},
            "spec":{{"containers":[{{"name":"web","image":"web:1"}}],"initContainers":[{{"name":"init-db"}}],
            "ephemeralContainers":[{{"name":"debug"}}]}},"status":{{}}}}"#
        );
        let now = Instant::now();
        let mut pods = Pods::default();
        pods.learn(UID, containers(&json, UID).unwrap(), now);
        for (name, field) in [
            ("web", Some("spec.containers{web}")),
            ("init-db", Some("spec.initContainers{init-db}")),
            ("debug", Some("spec.ephemeralContainers{debug}")),
            ("POD", None),
        ] {
            assert_eq!(pods.field_path(UID, name).as_deref(), field);
        }
        assert_eq!(pods.field_path(STATIC, "web"), None);
        assert_eq!(containers(&json, STATIC), None, "another pod of that name");
    }

    #[test]
    fn a_static_pod_is_known_by_its_mirrors_annotation() {
        let json = format!(
            r#"{{"metadata":{{"uid":"{UID}","annotations":{{"kubernetes.io/config.mirror":"{STATIC}"}}}},
            "spec":{{"containers":[{{"name":"etcd"}}],"initContainers":null}}}}"#
        );
        for uid in [UID, STATIC] {
            let found = containers(&json, uid).unwrap();
            assert_eq!(found, [("etcd".to_owned(), "containers")]);
        }
        assert_eq!(containers(&json, "8f2c1d0e"), None);
        assert_eq!(containers(r#"{"metadata":{"uid":"a"}}"#, "a"), Some(vec![]));
    }

    #[test]
    fn what_a_pod_lacks_is_asked_for_again_later() {
        let (mut pods, now) = (Pods::default(), Instant::now());
        assert!(!pods.knows(UID, "web", now));
        pods.learn(UID, vec![("web".to_owned(), "containers")], now);
        assert!(pods.knows(UID, "debug", now), "it was just read");
        let later = now + RECHECK;
        assert!(pods.knows(UID, "web", later));
        assert!(!pods.knows(UID, "debug", later));
    }

    #[test]
    fn pods_and_their_containers_are_bounded() {
        let (mut pods, start) = (Pods::default(), Instant::now());
        for pod in 0..u32::try_from(MAX_PODS).unwrap() + 3 {
            let now = start + Duration::from_secs(pod.into());
            pods.learn(&pod.to_string(), Vec::new(), now);
        }
        assert_eq!(pods.0.len(), MAX_PODS);
        assert!(!pods.0.contains_key("2") && pods.0.contains_key("3"));
        let many = vec![r#"{"name":"a"}"#; MAX_CONTAINERS + 1].join(",");
        let json = format!(r#"{{"metadata":{{"uid":"a"}},"spec":{{"containers":[{many}]}}}}"#);
        assert_eq!(containers(&json, "a").unwrap().len(), MAX_CONTAINERS);
        let long = "a".repeat(MAX_NAME + 1);
        let json = format!(
            r#"{{"metadata":{{"uid":"a"}},"spec":{{"containers":[{{"name":"{long}"}}]}}}}"#
        );
        assert_eq!(containers(&json, "a"), Some(vec![]));
    }
}
