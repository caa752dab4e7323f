//! A container: the cgroup that was registered, and what is known of it.

use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::identity::Identity;
use crate::id::{CgroupId, ContainerId};

/// A container that oomwatch answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Name it was registered under.
    pub id: ContainerId,
    /// Its cgroup; kills in cgroups below belong to it too.
    pub cgroup_id: CgroupId,
    /// On what evidence it has this id.
    pub identity: Identity,
    /// The container that it is in, as far as it is only claimed to be one.
    pub inside: Option<Arc<Container>>,
    /// What else is known.
    pub details: ContainerDetails,
}

/// What is escaped in the parts of a key.
const IN_KEY: &AsciiSet = &CONTROLS.add(b'/').add(b'%');

impl Container {
    /// What tells it apart from all others: `runtime/realm/id`, each percent-encoded. `None` where the first two are
    /// unknown.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        let part = |text| utf8_percent_encode(text, IN_KEY);
        let runtime = part(self.details.runtime.as_deref()?);
        let realm = part(self.details.realm.as_deref()?);
        Some(format!("{runtime}/{realm}/{}", part(self.id.as_str())))
    }

    /// The id in a key.
    pub(crate) fn id_of_key(key: &str) -> Option<ContainerId> {
        let mut parts = key.split('/');
        let (_, _, id) = (parts.next()?, parts.next()?, parts.next()?);
        let id = percent_decode_str(id).decode_utf8().ok()?;
        ContainerId::new(&id)
            .ok()
            .filter(|_| parts.next().is_none())
    }

    /// Who answers for what happened here: the container that it is in, where it is only claimed to be one.
    #[must_use]
    pub fn answerable(self: &Arc<Self>) -> Option<&Arc<Self>> {
        match self.identity {
            Identity::Claimed => self.inside.as_ref(),
            _ => Some(self),
        }
    }
}

/// What a source of containers knows beside the id. All of it is untrusted text, made
/// printable when it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerDetails {
    /// Name of the container, as a person gave it.
    pub name: Option<String>,
    /// Runtime or engine, such as `containerd`.
    pub runtime: Option<String>,
    /// Image reference.
    pub image: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes pod UID.
    pub pod_uid: Option<String>,
    /// Kubernetes namespace, or containerd namespace outside of Kubernetes.
    pub namespace: Option<String>,
    /// containerd's namespace, for `ctr -n`; `k8s.io` under Kubernetes, `moby` under Docker.
    pub containerd_namespace: Option<String>,
    /// Socket of that containerd, for `ctr -a`.
    pub containerd_address: Option<String>,
    /// Within which the runtime's ids are unique: containerd's namespace, `host`, or the owner of a rootless engine as
    /// `uid:1000`. Of a claim: the container that it is in, as `in:` and the id of its cgroup, or the user who made it.
    pub realm: Option<String>,
    /// How often Kubernetes started this container in its pod before.
    pub attempt: Option<u32>,
    /// Whether it is the container that only holds a pod's namespaces (pause).
    pub is_sandbox: Option<bool>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
}
