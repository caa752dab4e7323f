//! What runtimes report of their containers: the part of an answer that no path holds.
//!
//! Kept apart from the registry, because a name may come before the container's cgroup exists, or after its kill. Two
//! runtimes may use one id: names are kept by the runtime's own key, and [`Names::name`] decides which of them are a
//! registered container's. A name outlives the container as long as the tombstone does. Names are bounded in number
//! and in size, because labels are whatever people put there. Pure: time is an argument.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
};

use hashbrown::HashSet;

use super::sighting::{CRI_NAMESPACE, Owner, Realm, RuntimeApi, RuntimeKey};
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    id::{CgroupId, ContainerId},
    topology::tree::TOMBSTONE_NS,
};

/// Most containers whose names are kept; further containers stay without a name.
const MAX_CONTAINERS: usize = 65_536;
/// Bytes of a name, and of a label.
const MAX_NAME_BYTES: usize = 512;
/// Bytes of all labels of a container, keys included.
const MAX_LABELS_BYTES: usize = 4096;

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
    /// Its cgroup, by the runtime's word.
    cgroup: Option<CgroupId>,
    /// A source was asked where it is.
    is_asked: bool,
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

    /// Whether the record is a registered container's, which has the same id. The runtime says where it is, or root
    /// made a path with the id that the runtime made up.
    fn is_of(&self, realm: &Realm, container: &Container) -> bool {
        match self.cgroup {
            Some(cgroup) => cgroup == container.cgroup_id,
            None => {
                container.identity.is_evidence()
                    && is_runtimes_id(container.id.as_str())
                    && describes(realm, container.details.runtime.as_deref())
            }
        }
    }
}

/// The names of all containers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: BTreeMap<RuntimeKey, NameRecord>,
    /// Containers that are gone, the first gone first.
    gone: VecDeque<(u64, RuntimeKey)>,
    following: HashSet<(SourceNumber, RuntimeApi)>,
}

impl Names {
    /// Takes in an event's own details of a container. The source will report more of it.
    pub(crate) fn told(
        &mut self,
        source: (SourceNumber, RuntimeApi),
        key: RuntimeKey,
        details: ContainerDetails,
    ) {
        self.learn(source, key, details, true);
    }

    /// Takes in a container that a source reports.
    pub(crate) fn seen(
        &mut self,
        source: (SourceNumber, RuntimeApi),
        key: RuntimeKey,
        cgroup: Option<CgroupId>,
        details: ContainerDetails,
    ) {
        if let Some(cgroup) = cgroup {
            self.leave_to(&key, cgroup);
        }
        if let Some(record) = self.learn(source, key, details, false) {
            record.cgroup = cgroup.or(record.cgroup);
        }
    }

    /// A cgroup is in one namespace of containerd: its other containers with this id are elsewhere.
    fn leave_to(&mut self, key: &RuntimeKey, cgroup: CgroupId) {
        let is_other = |other: &RuntimeKey| match (&other.realm, &key.realm) {
            (Realm::Containerd(other), Realm::Containerd(own)) => other != own,
            _ => false,
        };
        let with_id = self.with_id(&key.id);
        let others = with_id.filter(|(other, record)| {
            is_other(other) && record.cgroup == Some(cgroup) && record.gone_ns.is_none()
        });
        for other in others.map(|(other, _)| other.clone()).collect::<Vec<_>>() {
            if let Some(record) = self.known.get_mut(&other) {
                record.cgroup = None;
            }
        }
    }

    /// Where a container is by its runtime's word so far.
    pub(crate) fn place_of(&self, key: &RuntimeKey) -> Option<CgroupId> {
        let record = self.known.get(key)?;
        record.cgroup.filter(|_| record.gone_ns.is_none())
    }

    /// Whether some runtime says of a cgroup that it is the container with this id.
    pub(crate) fn is_said_of(&self, id: &ContainerId, cgroup: CgroupId) -> bool {
        let mut there = self.there(id, cgroup);
        there.any(|(_, record)| record.gone_ns.is_none())
    }

    /// Whether all runtimes that say so speak for a part of the host only.
    pub(crate) fn is_of_a_part(&self, id: &ContainerId, cgroup: CgroupId) -> bool {
        let mut there = self.there(id, cgroup).peekable();
        there.peek().is_some() && there.all(|(key, _)| key.realm.is_part())
    }

    fn there(
        &self,
        id: &ContainerId,
        cgroup: CgroupId,
    ) -> impl Iterator<Item = (&RuntimeKey, &NameRecord)> {
        self.with_id(id.as_str())
            .filter(move |(_, record)| record.cgroup == Some(cgroup))
    }

    /// `None` if there is no room for it.
    fn learn(
        &mut self,
        (source, api): (SourceNumber, RuntimeApi),
        key: RuntimeKey,
        details: ContainerDetails,
        is_partial: bool,
    ) -> Option<&mut NameRecord> {
        self.following.insert((source, api));
        if self.known.len() >= MAX_CONTAINERS && !self.known.contains_key(&key) && !self.make_room()
        {
            return None;
        }
        let details = bounded(answerable(&key.realm, details));
        let known = match self.known.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                return Some(entry.insert(NameRecord {
                    details,
                    api,
                    sources: bit(source),
                    cgroup: None,
                    is_asked: false,
                    gone_ns: None,
                    is_partial,
                }));
            }
        };
        let mut before = std::mem::take(&mut known.details);
        if known.gone_ns.take().is_some() {
            // Another container of the same name.
            before = ContainerDetails::default();
            known.api = api;
            known.cgroup = None;
            known.is_asked = false;
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
        Some(known)
    }

    /// A source reports that a container was removed.
    pub(crate) fn gone(&mut self, source: SourceNumber, key: &RuntimeKey, now_ns: u64) {
        if let Some(known) = self.known.get_mut(key) {
            known.sources &= !bit(source);
            if known.sources == 0 && known.gone_ns.is_none() {
                known.gone_ns = Some(now_ns);
                self.gone.push_back((now_ns, key.clone()));
            }
        }
    }

    /// A source has these containers and no others.
    pub(crate) fn listed(
        &mut self,
        (source, api): (SourceNumber, RuntimeApi),
        keys: &[RuntimeKey],
        now_ns: u64,
    ) {
        self.following.insert((source, api));
        let listed: HashSet<&RuntimeKey> = keys.iter().collect();
        let missing: Vec<RuntimeKey> = self
            .known
            .iter()
            .filter(|(key, known)| known.sources & bit(source) != 0 && !listed.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in missing {
            self.gone(source, &key, now_ns);
        }
    }

    /// A source is not connected any more. What it reported holds until the source reports otherwise.
    pub(crate) fn lost(&mut self, source: SourceNumber, api: RuntimeApi) {
        self.following.remove(&(source, api));
        let of_source = self.known.values_mut();
        for record in of_source.filter(|record| record.sources & bit(source) != 0) {
            // The answer may have been under way.
            record.is_asked = false;
        }
    }

    /// The cgroup of a container is gone. A runtime that made up the id may start the container again on another.
    pub(crate) fn left(&mut self, id: &ContainerId, cgroup: CgroupId) {
        if !is_runtimes_id(id.as_str()) {
            return;
        }
        let keys: Vec<RuntimeKey> = self
            .with_id(id.as_str())
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if let Some(record) = self
                .known
                .get_mut(&key)
                .filter(|record| record.cgroup == Some(cgroup))
            {
                record.cgroup = None;
                record.is_asked = false;
            }
        }
    }

    /// Whether a source is connected, and has reported its containers.
    pub(crate) fn is_following(&self, source: SourceNumber, api: RuntimeApi) -> bool {
        self.following.contains(&(source, api))
    }

    /// The container with all its known details; `None` if none are known. Where two interfaces describe it, the
    /// details of the later one hold.
    pub(crate) fn name(&self, container: &Container) -> Option<Arc<Container>> {
        let mut records: Vec<_> = self.records(container).collect();
        records.sort_by_key(|(_, record)| record.api);
        if records.is_empty() {
            return None;
        }
        let is_listed = records.iter().any(|(_, record)| record.gone_ns.is_none());
        let details = records
            .iter()
            .fold(container.details.clone(), |below, (key, record)| {
                let mut above = record.details.clone();
                above.realm = Some(key.realm.to_string());
                overlaid(below, above)
            });
        let identity = match container.identity {
            Identity::Path if is_listed => Identity::Runtime,
            identity => identity,
        };
        Some(Arc::new(Container {
            details,
            identity,
            ..container.clone()
        }))
    }

    /// The records of a registered container.
    fn records(&self, container: &Container) -> impl Iterator<Item = (&RuntimeKey, &NameRecord)> {
        self.with_id(container.id.as_str())
            .filter(|(key, record)| record.is_of(&key.realm, container))
    }

    /// All that runtimes have under an id.
    fn with_id(&self, id: &str) -> impl Iterator<Item = (&RuntimeKey, &NameRecord)> {
        let first = || RuntimeKey {
            id: id.to_owned(),
            // Before all others in their order.
            realm: Realm::Containerd(Box::default()),
        };
        // Without a runtime to follow there are no names, and every event asks.
        let from = (!self.known.is_empty()).then(|| self.known.range(first()..));
        let from = from.into_iter().flatten();
        from.take_while(move |(key, _)| key.id == id)
    }

    /// Where a runtime says that a container is which has this id, if it says so of one cgroup alone.
    pub(crate) fn place(&self, id: &ContainerId, runtime: Option<&str>) -> Option<CgroupId> {
        let alive = self
            .with_id(id.as_str())
            .filter(|(key, record)| record.gone_ns.is_none() && describes(&key.realm, runtime));
        let mut places = alive.filter_map(|(_, record)| record.cgroup);
        let place = places.next()?;
        places.all(|other| other == place).then_some(place)
    }

    /// Whether a runtime says that a cgroup's container with this id is a pod's sandbox.
    pub(crate) fn is_sandbox(&self, id: &ContainerId, cgroup: CgroupId) -> bool {
        let mut there = self.there(id, cgroup);
        there.any(|(_, record)| record.details.is_sandbox == Some(true))
    }

    /// Whether a source is yet to be asked for a container's place. Says so once. A cgroup that is gone is no place.
    pub(crate) fn take_unplaced(
        &mut self,
        key: &RuntimeKey,
        is_live: impl Fn(CgroupId) -> bool,
    ) -> bool {
        let Some(record) = self.known.get_mut(key) else {
            return false;
        };
        !record.cgroup.is_some_and(is_live) && !std::mem::replace(&mut record.is_asked, true)
    }

    /// Whether a connected source is expected to report more of this container soon.
    pub(crate) fn awaits(&self, container: &Container) -> bool {
        let mut following = self.following.iter();
        following.any(|(_, api)| self.has_more(*api, container))
    }

    /// Whether an interface is expected to report more of a container than is known.
    fn has_more(&self, api: RuntimeApi, container: &Container) -> bool {
        let runtime = container.details.runtime.as_deref();
        let mut records = self.records(container);
        container.identity.is_evidence()
            && is_runtimes_id(container.id.as_str())
            && knows(api, runtime)
            && records.all(|(_, known)| !known.is_named() || known.is_left_to(api))
    }

    /// Whom to ask for a container whose cgroup appeared first. containerd's services are not among them: they report
    /// each container before it runs.
    pub(crate) fn askable(&self, container: &Container) -> Vec<(SourceNumber, RuntimeKey)> {
        let answers =
            |api: RuntimeApi| api != RuntimeApi::Containerd && self.has_more(api, container);
        let following = self.following.iter();
        following
            .filter(|(_, api)| answers(*api))
            .map(|&(source, api)| {
                let id = container.id.as_str().to_owned();
                let realm = Realm::of(api);
                (source, RuntimeKey { id, realm })
            })
            .collect()
    }

    /// Whether a runtime that is followed would know a container with this runtime in its path.
    pub(crate) fn follows(&self, runtime: Option<&str>) -> bool {
        self.following.iter().any(|(_, api)| knows(*api, runtime))
    }

    /// Forgets containers that have been gone as long as a cgroup's tombstone stays, unless a living container has
    /// the id.
    pub(crate) fn expire(&mut self, now_ns: u64, is_live: impl Fn(&str) -> bool) {
        while let Some((gone_ns, key)) = self
            .gone
            .pop_front_if(|(gone_ns, _)| gone_ns.saturating_add(TOMBSTONE_NS) <= now_ns)
        {
            let is_this = self.known.get(&key).map(|known| known.gone_ns) == Some(Some(gone_ns));
            if is_this && is_live(&key.id) {
                // The runtime lost it, and its cgroup is still there: checked again later.
                if let Some(known) = self.known.get_mut(&key) {
                    known.gone_ns = Some(now_ns);
                }
                self.gone.push_back((now_ns, key));
            } else if is_this {
                self.known.remove(&key);
            }
        }
    }

    /// Drops the container that has been gone longest, until there is room.
    fn make_room(&mut self) -> bool {
        while self.known.len() >= MAX_CONTAINERS {
            let Some((gone_ns, key)) = self.gone.pop_front() else {
                return false;
            };
            if self.known.get(&key).map(|known| known.gone_ns) == Some(Some(gone_ns)) {
                self.known.remove(&key);
            }
        }
        true
    }
}

/// What a runtime may tell of its containers. Only the host's CRI, and engines that Kubernetes may use, answer for pods of
/// the cluster. Elsewhere their labels are anybody's.
fn answerable(realm: &Realm, details: ContainerDetails) -> ContainerDetails {
    let has_pods = match realm {
        Realm::Containerd(namespace) => {
            &**namespace == CRI_NAMESPACE || is_dockers(namespace) || namespace.starts_with("in:")
        }
        Realm::Docker(owner) | Realm::Podman(owner) => *owner == Owner::Host,
        Realm::CriO => true,
    };
    if has_pods {
        return details;
    }
    ContainerDetails {
        // Podman has pods of its own, without a namespace.
        pod: details.pod.filter(|_| matches!(realm, Realm::Podman(_))),
        pod_uid: None,
        namespace: None,
        ..details
    }
}

/// Whether the containers of a realm may be those of a runtime, by the runtime's name in a path. A runtime that speaks
/// for a part of the host, such as a user's, describes no path that root made.
fn describes(realm: &Realm, runtime: Option<&str>) -> bool {
    let is_containerds = matches!(runtime, None | Some("containerd" | "nerdctl"));
    match realm {
        realm if realm.is_part() => false,
        Realm::Containerd(namespace) if is_dockers(namespace) => {
            matches!(runtime, None | Some("docker"))
        }
        Realm::Containerd(_) => is_containerds,
        Realm::Docker(Owner::Host) => matches!(runtime, None | Some("docker")),
        Realm::Podman(Owner::Host) => matches!(runtime, None | Some("podman")),
        Realm::CriO => matches!(runtime, None | Some("cri-o")),
        // A part of the host, as above.
        Realm::Docker(Owner::User(_)) | Realm::Podman(Owner::User(_)) => false,
    }
}

/// The namespaces of containerd in which Docker keeps its containers.
pub(crate) fn is_dockers(namespace: &str) -> bool {
    matches!(namespace, "moby" | "plugins.moby")
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
    if labels.is_empty() {
        labels = above.labels;
    } else {
        labels.extend(above.labels);
    }
    ContainerDetails {
        name: above.name.or(below.name),
        runtime: above.runtime.or(below.runtime),
        image: above.image.or(below.image),
        pod: above.pod.or(below.pod),
        pod_uid: above.pod_uid.or(below.pod_uid),
        namespace: above.namespace.or(below.namespace),
        containerd_namespace: above.containerd_namespace.or(below.containerd_namespace),
        containerd_address: above.containerd_address.or(below.containerd_address),
        realm: above.realm.or(below.realm),
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
    if details.labels.keys().any(|key| key.len() > MAX_NAME_BYTES) {
        let labels = std::mem::take(&mut details.labels).into_iter();
        let short = labels.map(|(mut key, value)| {
            cut(&mut key);
            (key, value)
        });
        details.labels = short.collect();
    }
    details.labels.retain(|key, value| {
        cut(value);
        let room = left.checked_sub(key.len() + value.len());
        left = room.unwrap_or(left);
        room.is_some()
    });
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
