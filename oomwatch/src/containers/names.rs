//! What runtimes report of their containers, by id: the part of an answer that no path holds.
//!
//! Kept apart from the registry, because a name may come before the container's cgroup exists, or after its kill. It
//! may come from several sources. A name outlives the container as long as the tombstone does. Names are bounded in
//! number and in size, because labels are whatever people put there. Pure: time is an argument.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::sighting::RuntimeApi;
use crate::{
    containers::container::{Container, ContainerDetails},
    id::ContainerId,
    topology::tree::TOMBSTONE_NS,
};

/// Most containers whose names are kept; further containers stay without a name.
const MAX_CONTAINERS: usize = 65_536;
/// Bytes of a name, and of a label.
const MAX_NAME_BYTES: usize = 512;
/// Bytes of all labels of a container, keys included.
const MAX_LABELS_BYTES: usize = 4096;

/// The namespace in which containerd keeps what its CRI plugin makes.
const CRI_NAMESPACE: &str = "k8s.io";

/// Number of a source, from 0.
pub(crate) type SourceNumber = u32;

/// What is known of one container.
#[derive(Debug)]
struct NameRecord {
    details: ContainerDetails,
    /// The source that knows most.
    api: RuntimeApi,
    /// A bit for each source that has it.
    sources: u64,
    gone_ns: Option<u64>,
    /// Only an event's own details are known.
    is_partial: bool,
}

impl NameRecord {
    /// Whether more than its id is known, and no more is expected.
    fn is_named(&self) -> bool {
        let details = &self.details;
        let has_any = details.name.is_some() || details.image.is_some() || details.pod.is_some();
        has_any && !self.is_partial
    }

    /// Whether an interface that has not reported the container knows what others never will. Of a pod's containers,
    /// containerd knows the image and labels, and CRI knows the attempt.
    fn is_left_to(&self, api: RuntimeApi) -> bool {
        let namespace = self.details.containerd_namespace.as_deref();
        api == RuntimeApi::Cri && self.api < api && namespace == Some(CRI_NAMESPACE)
    }
}

/// The names of all containers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: HashMap<ContainerId, NameRecord>,
    /// Containers that are gone, the first gone first.
    gone: VecDeque<(u64, ContainerId)>,
    following: HashSet<(SourceNumber, RuntimeApi)>,
}

impl Names {
    /// Takes in an event's own details of a container. The source will report more of it.
    pub(crate) fn told(
        &mut self,
        source: (SourceNumber, RuntimeApi),
        id: ContainerId,
        details: ContainerDetails,
    ) {
        self.learn(source, id, details, true);
    }

    /// Takes in a container that a source reports; returns the id that the container is kept under. containerd's ids
    /// are unique in a namespace only. If another container has the id already, the new one is kept as
    /// `namespace/id`.
    pub(crate) fn seen(
        &mut self,
        source: (SourceNumber, RuntimeApi),
        id: ContainerId,
        details: ContainerDetails,
    ) -> Option<ContainerId> {
        self.learn(source, id, details, false)
    }

    fn learn(
        &mut self,
        (source, api): (SourceNumber, RuntimeApi),
        id: ContainerId,
        details: ContainerDetails,
        is_partial: bool,
    ) -> Option<ContainerId> {
        self.following.insert((source, api));
        let id = self.own_id(id, &details)?;
        let details = bounded(details);
        if !self.known.contains_key(&id) && !self.make_room() {
            return Some(id);
        }
        match self.known.get_mut(&id) {
            Some(known) => {
                let mut before = std::mem::take(&mut known.details);
                if known.gone_ns.take().is_some() {
                    // Another container of the same name.
                    before = ContainerDetails::default();
                    known.api = api;
                    known.is_partial = is_partial;
                }
                known.is_partial &= is_partial;
                known.sources |= bit(source);
                known.details = if api >= known.api {
                    overlaid(before, details)
                } else {
                    overlaid(details, before)
                };
                known.api = known.api.max(api);
            }
            None => {
                let known = NameRecord {
                    details,
                    api,
                    sources: bit(source),
                    gone_ns: None,
                    is_partial,
                };
                self.known.insert(id.clone(), known);
            }
        }
        Some(id)
    }

    /// A source reports that a container was removed. It may give the id as `namespace/id`.
    pub(crate) fn gone(&mut self, source: SourceNumber, told: &str, now_ns: u64) {
        if let Some(id) = self.find(told) {
            self.left(source, &id, now_ns);
        }
    }

    /// A source has this container no longer.
    fn left(&mut self, source: SourceNumber, id: &ContainerId, now_ns: u64) {
        if let Some(known) = self.known.get_mut(id) {
            known.sources &= !bit(source);
            if known.sources == 0 && known.gone_ns.is_none() {
                known.gone_ns = Some(now_ns);
                self.gone.push_back((now_ns, id.clone()));
            }
        }
    }

    /// The id under which the container is kept that a source means.
    fn find(&self, told: &str) -> Option<ContainerId> {
        let kept = |id: &str| {
            ContainerId::new(id)
                .ok()
                .filter(|id| self.known.contains_key(id))
        };
        let is_in = |namespace: &str, id: &ContainerId| {
            let known = self.known.get(id);
            known.is_some_and(|known| {
                known.details.containerd_namespace.as_deref() == Some(namespace)
            })
        };
        let unqualified = told.split_once('/').and_then(|(namespace, id)| {
            let id = kept(id)?;
            is_in(namespace, &id).then_some(id)
        });
        unqualified.or_else(|| kept(told))
    }

    /// A source has these containers and no others. It may give ids as `namespace/id`.
    pub(crate) fn listed(
        &mut self,
        (source, api): (SourceNumber, RuntimeApi),
        ids: &[String],
        now_ns: u64,
    ) {
        self.following.insert((source, api));
        let listed: HashSet<ContainerId> = ids.iter().filter_map(|id| self.find(id)).collect();
        let missing: Vec<ContainerId> = self
            .known
            .iter()
            .filter(|(id, known)| known.sources & bit(source) != 0 && !listed.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.left(source, &id, now_ns);
        }
    }

    /// A source is not connected any more. What it reported holds until the source reports otherwise.
    pub(crate) fn lost(&mut self, source: SourceNumber, api: RuntimeApi) {
        self.following.remove(&(source, api));
    }

    /// Whether a source is connected, and has reported its containers.
    pub(crate) fn is_following(&self, source: SourceNumber, api: RuntimeApi) -> bool {
        self.following.contains(&(source, api))
    }

    /// The container with all its known details; `None` if none are known.
    pub(crate) fn name(&self, container: &Container) -> Option<Arc<Container>> {
        let known = self.known.get(&container.id)?;
        Some(Arc::new(Container {
            details: overlaid(container.details.clone(), known.details.clone()),
            ..container.clone()
        }))
    }

    /// Whether a connected source is expected to report more of this container soon.
    pub(crate) fn awaits(&self, container: &Container) -> bool {
        let mut following = self.following.iter();
        following.any(|(_, api)| self.has_more(*api, container))
    }

    /// Whether an interface is expected to report more of a container than is known.
    fn has_more(&self, api: RuntimeApi, container: &Container) -> bool {
        let runtime = container.details.runtime.as_deref();
        let known = self.known.get(&container.id);
        is_runtimes_id(container.id.as_str())
            && knows(api, runtime)
            && known.is_none_or(|known| !known.is_named() || known.is_left_to(api))
    }

    /// The sources to ask for a container whose cgroup appeared first. containerd's services are not among them: they
    /// report each container before it runs.
    pub(crate) fn askable(&self, container: &Container) -> Vec<SourceNumber> {
        let answers =
            |api: RuntimeApi| api != RuntimeApi::Containerd && self.has_more(api, container);
        let following = self.following.iter();
        following
            .filter(|(_, api)| answers(*api))
            .map(|(source, _)| *source)
            .collect()
    }

    /// Forgets containers that have been gone as long as a cgroup's tombstone stays, unless a living container has
    /// the id.
    pub(crate) fn expire(&mut self, now_ns: u64, is_live: impl Fn(&ContainerId) -> bool) {
        while let Some((gone_ns, id)) = self
            .gone
            .pop_front_if(|(gone_ns, _)| gone_ns.saturating_add(TOMBSTONE_NS) <= now_ns)
        {
            let is_this = self.known.get(&id).map(|known| known.gone_ns) == Some(Some(gone_ns));
            if is_this && is_live(&id) {
                // The runtime lost it, and its cgroup is still there: checked again later.
                if let Some(known) = self.known.get_mut(&id) {
                    known.gone_ns = Some(now_ns);
                }
                self.gone.push_back((now_ns, id));
            } else if is_this {
                self.known.remove(&id);
            }
        }
    }

    /// Drops the container that has been gone longest, until there is room.
    fn make_room(&mut self) -> bool {
        while self.known.len() >= MAX_CONTAINERS {
            let Some((gone_ns, id)) = self.gone.pop_front() else {
                return false;
            };
            if self.known.get(&id).map(|known| known.gone_ns) == Some(Some(gone_ns)) {
                self.known.remove(&id);
            }
        }
        true
    }

    fn own_id(&self, id: ContainerId, details: &ContainerDetails) -> Option<ContainerId> {
        let Some(namespace) = details.containerd_namespace.as_deref() else {
            return Some(id);
        };
        let qualified = ContainerId::new(&format!("{namespace}/{id}")).ok()?;
        let is_taken =
            self.is_alive(&qualified) || self.is_alive(&id) && self.is_in_another(namespace, &id);
        Some(if is_taken { qualified } else { id })
    }

    fn is_alive(&self, id: &ContainerId) -> bool {
        let known = self.known.get(id);
        known.is_some_and(|known| known.gone_ns.is_none())
    }

    fn is_in_another(&self, namespace: &str, id: &ContainerId) -> bool {
        let known = self.known.get(id);
        let other = known.and_then(|known| known.details.containerd_namespace.as_deref());
        other.is_some_and(|other| other != namespace)
    }
}

/// Whether an interface knows the containers of a runtime, by the runtime's name in a path. Below a pod's directory,
/// no runtime has a name in the path.
fn knows(api: RuntimeApi, runtime: Option<&str>) -> bool {
    match runtime {
        Some("docker") => api == RuntimeApi::Docker,
        Some("podman") => api == RuntimeApi::Podman,
        Some("cri-o") => api == RuntimeApi::Cri,
        Some("containerd" | "nerdctl") => {
            matches!(api, RuntimeApi::Containerd | RuntimeApi::Cri)
        }
        None => true,
        Some(_) => false,
    }
}

/// 64 hexadecimal digits: an id that a runtime made up.
pub(crate) fn is_runtimes_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn bit(source: SourceNumber) -> u64 {
    1 << source.min(63)
}

/// The details of both; those of `above` where they differ.
fn overlaid(below: ContainerDetails, above: ContainerDetails) -> ContainerDetails {
    let mut labels = below.labels;
    labels.extend(above.labels);
    ContainerDetails {
        name: above.name.or(below.name),
        runtime: above.runtime.or(below.runtime),
        image: above.image.or(below.image),
        pod: above.pod.or(below.pod),
        pod_uid: above.pod_uid.or(below.pod_uid),
        namespace: above.namespace.or(below.namespace),
        containerd_namespace: above.containerd_namespace.or(below.containerd_namespace),
        containerd_address: above.containerd_address.or(below.containerd_address),
        attempt: above.attempt.or(below.attempt),
        is_sandbox: above.is_sandbox.or(below.is_sandbox),
        labels,
    }
}

/// Cuts the details to what is worth keeping for every container of a host.
fn bounded(mut details: ContainerDetails) -> ContainerDetails {
    for name in [
        &mut details.name,
        &mut details.runtime,
        &mut details.image,
        &mut details.pod,
        &mut details.pod_uid,
        &mut details.namespace,
        &mut details.containerd_namespace,
        &mut details.containerd_address,
    ]
    .into_iter()
    .flatten()
    {
        cut(name);
    }
    let mut left = MAX_LABELS_BYTES;
    details.labels = std::mem::take(&mut details.labels)
        .into_iter()
        .filter_map(|(mut key, mut value)| {
            cut(&mut key);
            cut(&mut value);
            left = left.checked_sub(key.len() + value.len())?;
            Some((key, value))
        })
        .collect();
    details
}

fn cut(text: &mut String) {
    if text.len() > MAX_NAME_BYTES {
        text.truncate(text.floor_char_boundary(MAX_NAME_BYTES));
    }
    text.shrink_to_fit();
}

#[cfg(test)]
mod tests;
