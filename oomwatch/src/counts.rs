//! The OOM kills reported so far, as numbers: of each container, and of the node.
//!
//! The watcher's own task enters each event as it hands the event over. So a slow reader, a full queue or a failed
//! publisher changes no number. Other tasks read the numbers, also after the watcher's end, so there is a lock. It is
//! held for a kill's few additions, or to copy pointers. Asks nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::{HashMap, HashSet};
use prometheus_client::metrics::histogram::Histogram;

use crate::{
    clock,
    containers::{container::Container, names::is_runtimes_id},
    event::{Attribution, Evidence, Kind, OomEvent, Scope},
    id::ContainerId,
    record::Constraint,
};

/// Most containers that are remembered, the removed ones included.
pub const MAX_COUNTED_CONTAINERS: usize = 20_000;
/// How long a removed container's numbers are kept, for a scrape to see them.
pub(crate) const KEPT_NS: u64 = 600_000_000_000;
/// The share of containers evicted at once, as one in so many. So a crash loop does not look through all containers
/// for each kill.
const EVICTED_AT_ONCE: usize = 16;
/// Seconds from the kernel's time stamp to the publishers.
const LATENCY_BUCKETS: [f64; 16] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,
    0.25, 0.5, 1.0,
];

/// Numbers of OOM kills, for [`crate::metrics::Metrics`] and others; given to [`crate::watcher::Builder::counts`].
///
/// Clones share the same numbers. Each kill is counted exactly once: events are entered before any queue, and a kill
/// that a container claims late moves to it. At most [`MAX_COUNTED_CONTAINERS`] containers are remembered. Beyond
/// that, the containers removed longest ago are forgotten first, then those whose last kill is the oldest. The
/// numbers of the node include all.
#[derive(Clone, Debug)]
pub struct Counts(Arc<Mutex<Tally>>);

impl Default for Counts {
    fn default() -> Self {
        Self::with_limit(MAX_COUNTED_CONTAINERS)
    }
}

impl Counts {
    /// As the default, with another number of containers.
    #[must_use]
    pub fn with_limit(max_containers: usize) -> Self {
        Self(Arc::new(Mutex::new(Tally::new(max_containers))))
    }

    /// Takes in an event. A watcher that was given these counts does so itself.
    pub fn enter(&self, event: &OomEvent) {
        let now_ns = clock::now().boottime_ns;
        self.tally().enter(event, now_ns);
    }

    /// Learns which containers exist, and forgets those that are gone for long enough.
    pub(crate) fn retain_live(&self, live: &HashSet<Series>, now_ns: u64) {
        self.tally().retain_live(live, now_ns);
    }

    /// The numbers as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let tally = self.tally();
        let mut losses: Vec<_> = tally.containers.values().cloned().collect();
        let node = tally.node.clone();
        drop(tally);
        losses.sort_unstable_by(|left, right| left.container.id.cmp(&right.container.id));
        Snapshot { losses, node }
    }

    /// Containers that lost a process since `since_ns`, on the boot-time clock, by when the event was entered.
    pub(crate) fn losses_since(&self, since_ns: u64) -> Vec<Arc<Losses>> {
        let tally = self.tally();
        let recent = tally.containers.values();
        let recent = recent.filter(|losses| losses.entered_ns >= since_ns);
        recent.cloned().collect()
    }

    /// Changes with each kill in a container.
    pub(crate) fn version(&self) -> u64 {
        self.tally().version
    }

    /// Most containers that are remembered and shown.
    pub(crate) fn limit(&self) -> usize {
        self.tally().max_containers
    }

    /// Nothing in here can panic half-way.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Of containers that lost a process, by id.
    pub(crate) losses: Vec<Arc<Losses>>,
    pub(crate) node: NodeCounts,
}

/// What one container lost.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    /// As the last event had it.
    pub(crate) container: Arc<Container>,
    pub(crate) kills: Vec<Kills>,
    pub(crate) group_kills: u64,
    pub(crate) last: LastKill,
    /// The group kill that was counted last; its further members are not.
    last_group: Option<u64>,
    /// When the last event was entered.
    entered_ns: u64,
    /// Since when it is known not to exist any more.
    gone_since_ns: Option<u64>,
}

/// Kills of one container at one kind of limit.
#[derive(Clone, Debug)]
pub(crate) struct Kills {
    pub(crate) scope: Scope,
    pub(crate) constraint: Constraint,
    pub(crate) count: u64,
    /// The last victim whose name is known.
    pub(crate) victim: Option<Victim>,
}

/// A process that was killed.
#[derive(Clone, Debug)]
pub(crate) struct Victim {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) unix_time_ns: i128,
}

/// The last kill.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastKill {
    pub(crate) unix_time_ns: i128,
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) usage_bytes: Option<u64>,
}

/// What is counted for the whole node.
#[derive(Clone, Debug)]
pub(crate) struct NodeCounts {
    /// All kills, in containers and elsewhere.
    pub(crate) kills: BTreeMap<&'static str, u64>,
    /// Events, by kind and evidence.
    pub(crate) events: BTreeMap<(&'static str, &'static str), u64>,
    pub(crate) attribution: BTreeMap<&'static str, u64>,
    /// Counter-only kills: kills that only a counter shows.
    pub(crate) recovered: u64,
    pub(crate) latency: Histogram,
    /// Containers that were forgotten for want of room, and their kills.
    pub(crate) evicted_containers: u64,
    pub(crate) evicted_kills: u64,
}

/// What one container's numbers are kept under: its id, and its realm where the id alone is not unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    id: ContainerId,
    realm: Option<String>,
}

impl Series {
    pub(crate) fn of(container: &Container) -> Self {
        let is_unique = is_runtimes_id(container.id.as_str());
        let realm = container.details.realm.as_ref();
        Self {
            id: container.id.clone(),
            realm: realm.filter(|_| !is_unique).cloned(),
        }
    }
}

#[derive(Debug)]
struct Tally {
    /// Not by cgroup, unlike nearly everything else. An id that comes back, such as that of a restarted Docker
    /// container, is the same series. It must be there once.
    containers: HashMap<Series, Arc<Losses>>,
    max_containers: usize,
    node: NodeCounts,
    version: u64,
}

impl Tally {
    fn new(max_containers: usize) -> Self {
        Self {
            containers: HashMap::new(),
            max_containers: max_containers.max(1),
            node: NodeCounts::new(),
            version: 0,
        }
    }

    fn enter(&mut self, event: &OomEvent, now_ns: u64) {
        self.node.enter(event);
        if event.count == 0 {
            return;
        }
        // A claim has no numbers of its own.
        let Some(container) = event.answerable() else {
            return;
        };
        self.version += 1;
        let series = Series::of(container);
        if !self.containers.contains_key(&series) {
            self.make_room();
        }
        let losses = self.containers.entry(series);
        let losses = losses.or_insert_with(|| Arc::new(Losses::new(container)));
        let losses = Arc::make_mut(losses);
        losses.enter(event, container);
        losses.entered_ns = now_ns;
    }

    /// A place for one more.
    fn make_room(&mut self) {
        if self.containers.len() < self.max_containers {
            return;
        }
        let mut order: Vec<_> = self.containers.values().map(Arc::clone).collect();
        order.sort_unstable_by_key(|losses| losses.eviction_order());
        let surplus = (self.max_containers / EVICTED_AT_ONCE).max(1);
        for losses in order.iter().take(surplus) {
            self.containers.remove(&Series::of(&losses.container));
            self.node.evicted_containers += 1;
            self.node.evicted_kills += losses.total();
        }
    }

    fn retain_live(&mut self, live: &HashSet<Series>, now_ns: u64) {
        self.containers.retain(|series, losses| {
            let is_live = live.contains(series);
            if is_live == losses.gone_since_ns.is_some() {
                Arc::make_mut(losses).gone_since_ns = (!is_live).then_some(now_ns);
            }
            let gone = losses.gone_since_ns;
            gone.is_none_or(|since_ns| since_ns.saturating_add(KEPT_NS) > now_ns)
        });
    }
}

impl Losses {
    fn new(container: &Arc<Container>) -> Self {
        Self {
            container: Arc::clone(container),
            kills: Vec::new(),
            group_kills: 0,
            last: LastKill::default(),
            last_group: None,
            entered_ns: 0,
            gone_since_ns: None,
        }
    }

    /// All kills.
    pub(crate) fn total(&self) -> u64 {
        self.kills.iter().map(|kills| kills.count).sum()
    }

    fn enter(&mut self, event: &OomEvent, container: &Arc<Container>) {
        self.container = Arc::clone(container);
        let (scope, constraint) = (event.scope, event.constraint);
        let of_this_kind =
            |kills: &&mut Kills| (kills.scope, kills.constraint) == (scope, constraint);
        match self.kills.iter_mut().find(of_this_kind) {
            Some(kills) => kills.enter(event),
            None => {
                let mut kills = Kills {
                    scope,
                    constraint,
                    count: 0,
                    victim: None,
                };
                kills.enter(event);
                self.kills.push(kills);
            }
        }
        if let Some(group) = event.group
            && self.last_group != Some(group.invocation)
        {
            self.last_group = Some(group.invocation);
            self.group_kills += 1;
        }
        // A late claim reports an earlier kill.
        if event.unix_time_ns >= self.last.unix_time_ns {
            self.last = LastKill {
                unix_time_ns: event.unix_time_ns,
                limit_bytes: event.limit.max_bytes,
                usage_bytes: event.limit.usage_bytes,
            };
        }
    }

    /// Containers that are gone come before those that are not, and each kind by age.
    fn eviction_order(&self) -> (bool, u64, i128) {
        let gone = self.gone_since_ns;
        (gone.is_none(), gone.unwrap_or(0), self.last.unix_time_ns)
    }
}

impl Kills {
    /// Whose limit was hit, and what confined the allocation.
    pub(crate) fn kind(&self) -> (Scope, Constraint) {
        (self.scope, self.constraint)
    }

    fn enter(&mut self, event: &OomEvent) {
        self.count += event.count;
        let victim = event.victim.pid.zip(event.victim.comm.clone());
        if let Some((pid, comm)) = victim {
            self.victim = Some(Victim {
                pid,
                comm,
                unix_time_ns: event.unix_time_ns,
            });
        }
    }
}

impl NodeCounts {
    /// The usual values are there from the start, as 0: an increase is visible only from something.
    fn new() -> Self {
        let scopes = [
            Scope::Container,
            Scope::Pod,
            Scope::Ancestor,
            Scope::Cgroup,
            Scope::Node,
            Scope::Unknown,
        ];
        let events = [
            (Kind::Kill, "tracepoint,counter"),
            (Kind::Kill, "tracepoint"),
            (Kind::AlreadyExiting, "tracepoint"),
            (Kind::CounterOnly, "counter"),
        ];
        let attributions = [
            Attribution::Exact,
            Attribution::Ancestor,
            Attribution::Late,
            Attribution::Unregistered,
        ];
        Self {
            kills: scopes.map(|scope| (scope.as_str(), 0)).into(),
            events: events.map(|(kind, by)| ((kind.as_str(), by), 0)).into(),
            attribution: attributions.map(|found| (found.as_str(), 0)).into(),
            recovered: 0,
            latency: Histogram::new(LATENCY_BUCKETS),
            evicted_containers: 0,
            evicted_kills: 0,
        }
    }

    fn enter(&mut self, event: &OomEvent) {
        let name = (event.kind.as_str(), evidence(event));
        *self.events.entry(name).or_default() += 1;
        let attribution = event.quality.attribution.as_str();
        *self.attribution.entry(attribution).or_default() += 1;
        if event.kind == Kind::CounterOnly {
            self.recovered += event.count;
        }
        if event.supersedes.is_some() {
            // It was counted when it was unclaimed.
            return;
        }
        *self.kills.entry(event.scope.as_str()).or_default() += event.count;
        // A kill that waited in a pinned ring, or has no time of its own, says nothing of latency.
        if let Some(delivered_ns) = event.delivered_ns
            && event.kind != Kind::CounterOnly
            && !event.while_down
        {
            self.latency.observe(delivered_ns as f64 / 1e9);
        }
    }
}

fn evidence(event: &OomEvent) -> &'static str {
    let has = |evidence| event.evidence.contains(&evidence);
    match (has(Evidence::Tracepoint), has(Evidence::Counter)) {
        (true, true) => "tracepoint,counter",
        (true, false) => "tracepoint",
        (false, true) => "counter",
        (false, false) => "none",
    }
}
